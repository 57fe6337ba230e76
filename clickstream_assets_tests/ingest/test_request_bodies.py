"""From a request's body to its records: what is split, added and taken away, and that the rest stays as it was sent."""

from __future__ import annotations

import gzip
import json
import zlib
from datetime import UTC, datetime
from typing import Any

import pytest

from clickstream_assets.catalogue.units import MINUTE, SECOND
from clickstream_assets.ingest.fields import Rejection, ValidationRules
from clickstream_assets.ingest.parsing import parse_record
from clickstream_assets.ingest.request_bodies import (
    Arrival,
    TooLargeError,
    events_of,
    record_of,
    unpacked,
    without_addresses,
)
from clickstream_assets.settings import Settings

RULES = ValidationRules.of(Settings(_env_file=None))
AT = int(datetime(2026, 5, 2, 12, tzinfo=UTC).timestamp()) * SECOND
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
OWN = {"event_type": "page_view", "timestamp": "2026-05-02T11:59:00Z", "anonymous_id": "a"}
CALL = {"type": "page", "messageId": "m", "anonymousId": "a", "timestamp": "2026-05-02T11:59:00Z"}


def arrival(**changes: Any) -> Arrival:
    return Arrival(**{"at": AT, "rules": RULES, **changes})


def records(body: Any, **changes: Any) -> list[bytes]:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return [record_of(event, arrival(**changes)) for event in events_of(sent)[0]]


def record(body: Any, **changes: Any) -> dict[str, Any]:
    [found] = records(body, **changes)
    return json.loads(found)


def judged(value: bytes) -> Any:
    [found] = parse_record(value, AT, RULES)
    return found


@pytest.mark.parametrize(
    ("body", "values"),
    [
        (b'{"a": 1}', [b'{"a": 1}']),
        (b' {\n "a": 1\n}\n', [b' {\n "a": 1\n}\n']),
        (b'[{"a": 1}, {"b":2} , 5]', [b'{"a": 1}', b'{"b":2}', b"5"]),
        (b'{"a": 1}\n\n{"b": 2}\r\n', [b'{"a": 1}', b'{"b": 2}']),
        (b'{"a": 1}\n{"b": \n{"c": 3}', [b'{"a": 1}', b'{"b": ', b'{"c": 3}']),
        # Numbers that JSON allows and Python's floats do not hold, and an order of fields that somebody chose.
        (
            b'[{"z":1.10,"a":1e999,"z":12345678901234567890.5}]',
            [b'{"z":1.10,"a":1e999,"z":12345678901234567890.5}'],
        ),
        (b"", []),
        (b" \n ", []),
        (b"[]", []),
        (b"hello\nworld", [b"hello", b"world"]),
        (b"[" * 100_000, [b"[" * 100_000]),
        (b'{"a":' * 100_000, [b'{"a":' * 100_000]),
        (b'{"\xff": 1}', [b'{"\xff": 1}']),
    ],
    ids=range(13),
)
def test_each_event_of_a_body_is_a_record_of_its_bytes(body: bytes, values: list[bytes]) -> None:
    assert records(body) == values


def test_each_call_of_a_batch_is_a_record_with_what_the_batch_says_of_all() -> None:
    batch = {
        "writeKey": "k",
        "sentAt": "2026-05-02T12:00:00Z",
        "context": {"locale": "de"},
        "batch": [CALL, CALL | {"context": {"locale": "fr"}}, 5],
    }
    first, second, third = records(batch)
    assert json.loads(first) == CALL | {"sentAt": batch["sentAt"], "context": {"locale": "de"}}
    assert json.loads(second) == CALL | {"sentAt": batch["sentAt"], "context": {"locale": "fr"}}
    assert third == b"5"
    assert judged(first).event_id == "m"


def test_an_own_event_may_have_a_field_that_is_called_batch() -> None:
    assert record(OWN | {"batch": [1, 2]}) == OWN | {"batch": [1, 2]}


@pytest.mark.parametrize("name", ["writeKey", "write_key", "api_key"])
def test_the_key_in_a_body_is_read_and_not_kept(name: str) -> None:
    for body in ({**OWN, name: "k"}, [{**OWN, name: "k"}], {name: "k", "batch": [CALL]}):
        sent = json.dumps(body).encode()
        assert events_of(sent)[1] == "k"
        assert b'"k"' not in b"".join(records(sent))
    assert events_of(json.dumps({**OWN, name: 5}).encode())[1] is None


def test_gzip_is_known_by_its_bytes() -> None:
    body = json.dumps(OWN).encode()
    assert unpacked(body, 1000) == body
    assert unpacked(gzip.compress(body), 1000) == body
    # One behind the other, as whoever appends to a file writes them.
    assert unpacked(gzip.compress(body) + gzip.compress(b"\n" + body), 1000) == body + b"\n" + body


@pytest.mark.parametrize("times", [1, 3])
def test_a_small_body_that_unpacks_to_a_large_one_is_not_unpacked(times: int) -> None:
    bomb = gzip.compress(bytes(400_000)) * times
    assert unpacked(bomb, 400_000 * times) == bytes(400_000 * times)
    with pytest.raises(TooLargeError):
        unpacked(bomb, 400_000 * times - 1)


@pytest.mark.parametrize("cut", [2, 12, -1])
def test_gzip_that_is_none_is_an_error(cut: int) -> None:
    with pytest.raises(zlib.error):
        unpacked(gzip.compress(b"{}" * 100)[:cut], 1000)


def test_a_call_is_of_its_routes_type_and_time_where_it_names_none() -> None:
    bare = {"userId": "u", "event": "Product Viewed", "properties": {"product_id": "P"}}
    [value] = records(bare, call="track")
    assert json.loads(value) == bare | {"type": "track", "receivedAt": "2026-05-02T12:00:00Z"}
    assert (judged(value).event_type, judged(value).event_time) == ("view", AT)
    assert record(CALL, call="track") == CALL
    assert record(bare | {"sentAt": "2026-05-02T12:00:00Z"})["sentAt"] == "2026-05-02T12:00:00Z"
    # Own events say when they happened.
    assert judged(records({"event_type": "page_view", "anonymous_id": "a"})[0]).rule == "missing"


def test_the_browser_is_that_of_events_that_name_none() -> None:
    assert record(OWN, user_agent=BROWSER)["user_agent"] == BROWSER
    assert record(OWN | {"user_agent": ""}, user_agent=BROWSER)["user_agent"] == BROWSER
    assert record(OWN | {"user_agent": "mine"}, user_agent=BROWSER)["user_agent"] == "mine"
    assert record(CALL, user_agent=BROWSER)["context"] == {"userAgent": BROWSER}
    named = CALL | {"context": {"userAgent": "mine", "locale": "de"}}
    assert record(named, user_agent=BROWSER) == named
    assert record(OWN) == OWN
    robot = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
    for body in (OWN, CALL):
        [value] = records(body, user_agent=robot)
        assert judged(value).is_bot


@pytest.mark.parametrize(
    ("sent_at", "timestamp", "corrected"),
    [
        # A clock that is right, or nearly.
        ("2026-05-02T12:00:00Z", "2026-05-02T11:00:00Z", None),
        ("2026-05-02T11:55:00Z", "2026-05-02T11:00:00Z", None),
        # One that is two hours ahead; the call was made ten minutes before it was sent.
        ("2026-05-02T14:00:00Z", "2026-05-02T13:50:00Z", "2026-05-02T11:50:00Z"),
        ("2026-05-02T14:00:04.5+00:00", "2026-05-02T13:50:00.25Z", "2026-05-02T11:50:00.250000Z"),
        # One that was never set.
        ("1970-01-01T00:01:00Z", "1970-01-01T00:00:30Z", "2026-05-02T11:59:30Z"),
        # What is no time corrects none.
        ("soon", "2026-05-02T13:50:00Z", None),
        ("2026-05-02T14:00:00Z", "soon", None),
        ("0001-01-01T00:00:00Z", "9999-12-31T00:00:00Z", None),
    ],
)
def test_a_wrong_clock_is_corrected_by_what_it_showed_when_the_call_was_sent(
    sent_at: str, timestamp: str, corrected: str | None
) -> None:
    call = CALL | {"timestamp": timestamp}
    batch = {"batch": [call]}
    for body in (call | {"sentAt": sent_at}, batch | {"sentAt": sent_at}, batch | {"sent_at": sent_at}):
        found = record(body, clock_tolerance=5 * MINUTE)
        assert found["timestamp"] == (corrected or timestamp)
        assert found.get("originalTimestamp") == (timestamp if corrected else None)


def test_a_clock_that_names_no_zone_is_utcs_wherever_the_shop_is() -> None:
    rules = ValidationRules.of(Settings(_env_file=None, shop_time_zone="Asia/Tokyo"))
    call = CALL | {"timestamp": "2026-05-02 11:00:00", "sentAt": "2026-05-02 12:00:00"}
    assert record(call, clock_tolerance=5 * MINUTE, rules=rules) == call
    ahead = call | {"timestamp": "2026-05-02 13:50:00", "sentAt": "2026-05-02 14:00:00"}
    corrected = record(ahead, clock_tolerance=5 * MINUTE, rules=rules)
    assert corrected["timestamp"] == "2026-05-02T11:50:00Z"


def test_a_call_that_a_wrong_clock_sends_again_is_the_same_event() -> None:
    hashes = set()
    for seconds in range(0, 20, 5):
        call = CALL | {"timestamp": "2026-05-02T13:50:00Z", "sentAt": f"2026-05-02T14:00:{seconds + 3:02}Z"}
        [value] = records(call, at=AT + seconds * SECOND)
        hashes.add(judged(value).payload_hash)
    assert len(hashes) == 1


@pytest.mark.parametrize(
    "name",
    [
        *("ip", "IP", "$ip", "ipAddress", "ip_address", "ip-address", "ipaddr", "ipv4", "ip_v6", "client_ip"),
        *("clientIp", "userIp", "user_ipaddress", "remote_addr", "REMOTE_ADDR", "x-forwarded-for"),
        *("cf-connecting-ip", "true-client-ip"),
    ],
)
def test_addresses_of_the_network_are_taken_out_at_any_depth(name: str) -> None:
    address = {name: "203.0.113.7"}
    for body in (
        OWN | address,
        OWN | {"properties": {"a": [{"b": address, "c": 1}]}},
        CALL | {"context": {**address, "locale": "de"}},
        {"batch": [CALL], "context": address},
        [OWN, OWN | {"items": [address, {"product_id": "P", **address}]}],
    ):
        found = b"".join(records(body))
        assert b"203.0.113.7" not in found
        assert name.encode() not in found
    assert record(OWN | {"properties": {"a": [{"b": address, "c": 1}]}})["properties"] == {
        "a": [{"b": {}, "c": 1}]
    }


def test_what_only_looks_like_an_address_stays() -> None:
    body = OWN | {
        "zip": "12345",
        "ship": True,
        "description": 'the "ip": of it',
        "version": "140.0.0.0",
        "tip": {"ips": ["a"], "shipping": 1},
        "address": "Main Street 1",
    }
    assert record(body) == body
    assert without_addresses(b'{"ip": 1, "n": 1.10, "big": 1e999}') == b'{"n":1.10,"big":1e999}'


@pytest.mark.parametrize(
    "body",
    [b"5", b'"x"', b"null", b"\x00\x01", b'{"a": 1', b'{"ip": "203.0.113.7"', b"[{]", b'{"a": "\\ud800"}'],
)
def test_what_is_no_event_is_handed_on_to_be_judged(body: bytes) -> None:
    [value] = records(body)
    assert value == body
    assert isinstance(judged(value), Rejection)
