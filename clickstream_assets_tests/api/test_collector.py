"""The collector: what it takes and refuses, and that what it says is in Kafka is there, whatever happens to Kafka."""

from __future__ import annotations

import gzip
import json
import logging
import socket
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from threading import Thread
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from tenacity import Retrying, retry_if_exception_type, retry_if_result, stop_after_delay, wait_fixed
from uvicorn import Config, Server

from clickstream_assets.api import access_log
from clickstream_assets.api.app import create_api
from clickstream_assets.api.collector_document import describe
from clickstream_assets.api.collector_routes import ROUTES
from clickstream_assets.api.rates import RateLimit
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.keys import Scope
from clickstream_assets.local.stack import Stack
from clickstream_assets.settings import Settings, SettingsError, load_settings
from clickstream_assets.stores.kafka.topic import OffsetRange, Topics
from clickstream_assets_tests.api.api_keys import entry
from clickstream_assets_tests.api.served import Served, served
from clickstream_assets_tests.databases import free_port, suspended, with_settings
from clickstream_assets_tests.faults.account import Part, take_account
from clickstream_assets_tests.faults.plugin import Fault
from clickstream_assets_tests.ingestion import Ingestion
from clickstream_assets_tests.topics import new_topic

KEY = "shop-1"
# Keys that a shop had before, and chose itself, do as well.
KEYS = f"{entry(KEY, Scope.COLLECT, name='shop')}, {entry('shop-2', Scope.COLLECT, name='app')}"
READER = "reader-1"
OWN = {"event_type": "page_view", "timestamp": "2024-05-02T10:00:00Z", "anonymous_id": "a", "event_id": "e-1"}
BROKEN = {
    "event_type": "purchase",
    "timestamp": "2024-05-02T10:00:00Z",
    "user_id": "u",
    "product_id": "P",
    "price": "?",
}
PAGE = {"type": "page", "messageId": "m-1", "anonymousId": "a", "timestamp": "2024-05-02T10:00:00Z"}


class Client:
    """Speaks to an application of this process."""

    def __init__(self, address: str) -> None:
        self.address = address

    def __call__(self, method: str, path: str, **request: Any) -> requests.Response:
        return requests.request(method, f"{self.address}{path}", timeout=60, **request)


@contextmanager
def application(settings: Settings, **changes: Any) -> Iterator[Client]:
    api = create_api(with_settings(settings, **{"api_keys": KEYS, **changes}))
    server = Server(Config(api, lifespan="on", log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=server.run, args=[[listener]])
        thread.start()
        try:
            yield Client(f"http://127.0.0.1:{listener.getsockname()[1]}")
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def nowhere() -> Iterator[Client]:
    """A collector whose Kafka is not there: for what never gets so far."""
    with application(Settings(_env_file=None, kafka_bootstrap_servers=f"127.0.0.1:{free_port()}")) as client:
        yield client


@pytest.fixture
def topic(kafka: Settings) -> Settings:
    return new_topic(kafka, partitions=3)


def post(
    client: Client, body: Any, path: str = "/api/events", key: str | None = KEY, **headers: str
) -> requests.Response:
    given = {"Authorization": f"Basic {b64encode(f'{key}:'.encode()).decode()}"} if key is not None else {}
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return client(
        "POST", path, data=body if isinstance(body, bytes) else json.dumps(body), headers=given | sent
    )


def post_until_settled(client: Client, body: Any) -> requests.Response:
    """Post as a tracker does: what is not delivered, as on a busy machine, is sent again."""
    again = Retrying(
        stop=stop_after_delay(120),
        wait=wait_fixed(0.5),
        retry=retry_if_result(lambda answer: answer.status_code == 503),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )
    answer: requests.Response = again(post, client, body)
    return answer


def refused(answer: requests.Response) -> tuple[int, str]:
    assert answer.headers["Content-Type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


def kafka_has(settings: Settings) -> list[Any]:
    """Return the values in the topic, by partition and offset."""
    topic = Topics(settings)
    ranges = [
        OffsetRange(partition, 0, held.high)
        for partition, held in sorted(topic.offsets().items())
        if held.high
    ]
    return [
        json.loads(value)
        for batch in topic.read_here(ranges, batch=1, room=1 << 30)
        for value in batch.column("value").to_pylist()
    ]


@pytest.mark.slow
def test_it_is_off_until_there_are_keys() -> None:
    for keys in (None, "", " , ", entry(READER, Scope.READ)):
        with application(Settings(_env_file=None), api_keys=keys) as client:
            for route in ROUTES:
                assert refused(post(client, OWN, route)) == (403, "collector_off")
                assert refused(post(client, OWN, f"{route}/")) == (403, "collector_off")


@pytest.mark.parametrize("key", [None, "", "shop", "shop-11", "SHOP-1", "ü", "shop-1, shop-2"])
def test_whoever_has_none_of_the_keys_is_refused(nowhere: Client, key: str | None) -> None:
    answer = post(nowhere, OWN | {"writeKey": KEY} if key is not None else OWN, key=key)
    assert refused(answer) == (401, "unknown_key" if key else "no_key")
    # Whose browser would ask the shopper for a password.
    assert not answer.headers["WWW-Authenticate"].startswith("Basic")
    assert KEY not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n",
        b"hello",
        b"[1, 2]",
        b"5",
        b"null",
        b'{"event_type": ',
        b"\x00\x01\x02",
        b"[" * 50_000,
        b"\xff\xfe{}",
        b"a=1&b=2",
    ],
    ids=range(11),
)
def test_a_body_without_any_event_is_refused_and_not_kept(nowhere: Client, body: bytes) -> None:
    for sent in (body, gzip.compress(body)):
        assert refused(post(nowhere, sent)) == (400, "no_events")


@pytest.mark.slow
def test_limits_are_kept_before_and_after_unpacking(nowhere: Client) -> None:
    large = json.dumps(OWN | {"properties": {"text": "x" * 1_000_000}}).encode()
    bomb = gzip.compress(bytes(300_000_000), 9)
    assert len(bomb) < 1_000_000 < len(large)
    many = [OWN] * 1001
    for body in (large, gzip.compress(large), bomb, many, {"batch": many}):
        assert refused(post(nowhere, body)) == (413, "too_large")
    assert refused(post(nowhere, gzip.compress(b"{}")[:-2])) == (400, "not_gzip")
    assert refused(post(nowhere, OWN, Content_Encoding="br")) == (415, "unsupported_encoding")


def test_other_methods_are_refused_by_name(nowhere: Client) -> None:
    for method in ("GET", "PUT", "DELETE"):
        answer = nowhere(method, "/v1/track")
        assert refused(answer) == (405, "method_not_allowed")
        assert answer.headers["Allow"] == "POST, OPTIONS"


@pytest.mark.slow
def test_pages_of_allowed_origins_may_send_and_read() -> None:
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,x-retry-count,x-tomorrow",
    }
    listed = "https://Shop.example, https://www.shop.example:8443/"

    def allowed(client: Client, origin: str, **headers: str) -> dict[str, str]:
        answer = client("OPTIONS", "/v1/t", headers={"Origin": origin, **headers})
        assert answer.status_code == 204
        return {
            name.title().removeprefix("Access-Control-"): value
            for name, value in answer.headers.items()
            if name.startswith("access-control-")
        }

    with application(Settings(_env_file=None), collector_allowed_origins=listed) as client:
        for origin in ("https://shop.example", "https://www.shop.example:8443"):
            found = allowed(client, origin, **asked)
            assert found["Allow-Origin"] == origin
            assert found["Allow-Headers"] == asked["Access-Control-Request-Headers"]
            assert (found["Allow-Methods"], found["Allow-Credentials"]) == ("POST", "true")
            # A problem is read too: it says when to come again.
            answer = post(client, b"", Origin=origin)
            assert answer.headers["Access-Control-Allow-Origin"] == origin
            assert answer.headers["Access-Control-Expose-Headers"] == "Retry-After"
        for origin in ("https://shop.example.org", "http://shop.example", "null", "https://www.shop.example"):
            assert allowed(client, origin, **asked) == {}
            assert post(client, b"", Origin=origin).headers["Vary"] == "Origin"
    with application(Settings(_env_file=None), collector_allowed_origins="*") as client:
        found = allowed(client, "https://anybody.example", **asked)
        assert found["Allow-Origin"] == "*"
        # Browsers refuse both together.
        assert "Allow-Credentials" not in found
    with application(Settings(_env_file=None)) as client:
        assert allowed(client, "https://shop.example", **asked) == {}


@pytest.mark.parametrize(
    "origins", ["shop.example", "https://shop.example/path", "ftp://shop.example", "https://"]
)
def test_what_is_no_origin_is_named(origins: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLECTOR_ALLOWED_ORIGINS", f"https://a.example, {origins}")
    with pytest.raises(SettingsError, match=r"COLLECTOR_ALLOWED_ORIGINS=.* is no origin"):
        load_settings()


def test_a_rate_is_of_all_processes_and_of_each_key_alone(tmp_path: Path) -> None:
    first, second = (RateLimit(10, 2, tmp_path, name="events") for _ in range(2))
    # What a second allows at once, and the request with which more is owed.
    assert first.wait_of(0, 10) == 0
    assert second.wait_of(0, 15) == 0
    assert 1 < first.wait_of(0, 1) <= 1.5
    assert 1 < second.wait_of(0, 1) <= 1.5
    assert second.wait_of(1, 1) == 0
    for one in (first, second):
        one.close()


def test_more_events_than_the_rate_have_to_wait(topic: Settings) -> None:
    with application(topic, collector_rate_limit=0.01) as client:
        answers = [post(client, [OWN] * 5) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 429]
        assert refused(answers[1]) == (429, "too_many_events")
        # The first five are those of 500 seconds.
        assert 400 < int(answers[1].headers["Retry-After"]) < 500
        assert post(client, OWN, key="shop-2").status_code == 200
    assert len(kafka_has(topic)) == 6


def test_each_event_gets_the_verdict_that_ingest_comes_to(
    topic: Settings, duckdb_engine: DuckDBEngine, tmp_path: Path
) -> None:
    several = OWN | {
        "event_id": "e-2",
        "event_type": "purchase",
        "items": [{"product_id": "P", "price": 5}, {"product_id": "Q", "price": "?"}],
    }
    noted = OWN | {"event_id": "e-3", "event_type": "view", "product_id": "P", "price": "cheap"}
    with application(topic) as client:
        answer = post(client, [OWN, BROKEN, several, noted, 5])
        assert answer.status_code == 200
        # A client that did not get the answer sends the same again.
        assert post(client, [OWN, BROKEN, several, noted, 5]).json() == answer.json()
    place = [
        {"record": record, "item": item} for record, item in ((1, 1), (2, 1), (3, 1), (3, 2), (4, 1), (5, 1))
    ]
    assert answer.json() == {
        "success": True,
        "accepted": 3,
        "rejected": 3,
        "verdicts": [
            place[0] | {"verdict": "accepted", "event_id": "e-1"},
            place[1] | {"verdict": "rejected", "field": "price", "rule": "not_a_number"},
            place[2] | {"verdict": "accepted", "event_id": "e-2"},
            place[3] | {"verdict": "rejected", "field": "price", "rule": "not_a_number"},
            place[4]
            | {
                "verdict": "accepted",
                "event_id": "e-3",
                "left_out": [{"field": "price", "rule": "not_a_number"}],
            },
            place[5] | {"verdict": "rejected", "field": None, "rule": "not_an_object"},
        ],
    }
    ingestion = Ingestion.of(with_settings(topic, lake_path=str(tmp_path / "lake")), duckdb_engine)
    ingestion.run()
    assert ingestion.counts() == {
        "raw_events": 10,
        "events": 3,
        "duplicate_events": 3,
        "conflicting_events": 0,
        "rejected_events": 6,
    }
    contents = ingestion.contents()
    assert {row["event_id"] for row in contents["events"]} == {"e-1", "e-2", "e-3"}
    assert {(row["field"], row["rule"]) for row in contents["rejected_events"]} == {
        ("price", "not_a_number"),
        (None, "not_an_object"),
    }


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        # As @segment/analytics-next sends single calls, and batches; Segment's libraries for servers; and PostHog's.
        ("/v1/p", PAGE | {"writeKey": KEY, "sentAt": "2024-05-02T10:00:01Z"}, {"Content_Type": "text/plain"}),
        (
            "/v1/b",
            {"writeKey": KEY, "batch": [PAGE], "sentAt": "2024-05-02T10:00:01Z"},
            {"Content_Type": "text/plain"},
        ),
        (
            "/v1/batch",
            {"batch": [PAGE]},
            {"Authorization": f"Basic {b64encode(f'{KEY}:'.encode()).decode()}"},
        ),
        (
            f"/v1/import/?write_key={KEY}",
            gzip.compress(json.dumps({"batch": [PAGE]}).encode()),
            {"Content_Encoding": "gzip"},
        ),
        (
            "/batch/",
            {
                "api_key": KEY,
                "batch": [
                    {
                        "event": "$pageview",
                        "distinct_id": "a",
                        "uuid": "m-1",
                        "timestamp": "2024-05-02T10:00:00Z",
                    }
                ],
            },
            {},
        ),
        # And your own page's beacon.
        (
            f"/api/events?write_key={KEY}",
            OWN | {"event_id": "m-1"},
            {"Content_Type": "text/plain;charset=UTF-8"},
        ),
    ],
    ids=range(6),
)
def test_what_trackers_send_is_taken_with_the_key_where_they_put_it(
    topic: Settings, path: str, body: Any, headers: dict[str, str]
) -> None:
    with application(topic) as client:
        answer = post(client, body, path, key=None, **headers)
    assert (answer.status_code, answer.json()["success"]) == (200, True)
    assert [verdict.get("event_id") for verdict in answer.json()["verdicts"]] == ["m-1"]
    [value] = kafka_has(topic)
    assert KEY not in json.dumps(value)


def test_a_record_that_kafka_does_not_take_is_refused_alone(kafka: Settings) -> None:
    topic = new_topic(kafka, config={"max.message.bytes": "50000"})

    def event(number: int, size: int) -> dict[str, Any]:
        return OWN | {"event_id": f"e-{number}", "properties": {"text": token_hex(size // 2)}}

    many = [event(number, 8000) for number in range(10)]
    with application(topic) as client, ThreadPoolExecutor() as clients:
        assert post(client, OWN).status_code == 200
        # Sent together: what of it Kafka takes only in smaller batches, what it does not take, and what it does.
        sent = [many, event(100, 60_000), event(101, 100)]
        answers = list(clients.map(lambda body: post_until_settled(client, body), sent))
        assert [answer.status_code for answer in answers] == [200, 413, 200]
        assert refused(answers[1]) == (413, "too_large")
        # Nor does what comes later suffer.
        assert post_until_settled(client, event(102, 100)).status_code == 200
    found = {value["event_id"] for value in kafka_has(topic)}
    assert found == {OWN["event_id"], "e-101", "e-102", *(one["event_id"] for one in many)}


@pytest.mark.parametrize("route", ROUTES)
def test_example_of_a_route_is_accepted(topic: Settings, route: str) -> None:
    document: dict[str, Any] = {"paths": {}, "tags": []}
    describe(document)
    example = document["paths"][route]["post"]["requestBody"]["content"]["application/json"]["example"]
    with application(topic) as client:
        answer = post(client, example, route)
    assert (answer.status_code, answer.json()["accepted"], answer.json()["rejected"]) == (200, 1, 0)
    assert answer.json()["verdicts"][0].get("left_out", []) == []


def test_an_empty_batch_is_taken(topic: Settings) -> None:
    with application(topic) as client:
        for body in (b"[]", b'{"batch": []}'):
            assert post(client, body).json() == {
                "success": True,
                "accepted": 0,
                "rejected": 0,
                "verdicts": [],
            }


def test_the_browser_is_added_to_what_a_page_sends_and_not_to_what_a_server_sends(topic: Settings) -> None:
    with application(topic) as client:
        post(client, OWN, User_Agent="HeadlessChrome", Origin="https://shop.example")
        post(client, OWN, User_Agent="python-requests/2.32")
    assert sorted(event.get("user_agent", "") for event in kafka_has(topic)) == ["", "HeadlessChrome"]


def test_logs_and_counts_have_nothing_of_what_was_sent(
    topic: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        application(topic, api_metrics_open=True) as client,
        caplog.at_level(logging.INFO, "clickstream_assets.api.access"),
    ):
        before = counted(client)
        post(client, [OWN, BROKEN, OWN], "/api/events?write_key=secret")
        post(client, OWN, "/api/events?write_key=guessed", key=None)
        after = counted(client)
    lines = [
        json.loads(record.getMessage()) for record in caplog.records if record.name == access_log.log.name
    ]
    [line] = [line for line in lines if line["method"] == "POST"]
    # What Kafka has is counted, and no line of the log.
    assert (line["route"], line["status"]) == ("/api/events", 401)
    assert set(line) == {"method", "route", "status", "bytes", "milliseconds"}
    assert {verdict: after[verdict] - before[verdict] for verdict in after} == {"accepted": 2, "rejected": 1}


def counted(client: Client) -> dict[str, float]:
    lines = client("GET", "/metrics").text.splitlines()
    name = "clickstream_collected_events_total"
    return {
        verdict: sum(
            float(line.split()[-1]) for line in lines if line.startswith(f'{name}{{verdict="{verdict}"}}')
        )
        for verdict in ("accepted", "rejected")
    }


def test_every_answer_is_as_the_openapi_document_says(topic: Settings) -> None:
    with application(topic, api_keys=f"{KEYS},{entry(READER, Scope.READ)}") as client:
        schema = schemathesis.openapi.from_url(f"{client.address}/openapi.json", auth=(READER, ""))
        for route in ("/api/events", "/v1/track", "/v1/batch"):

            @given(
                case=schema[route]["POST"].as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE)
            )
            @hypothesis_settings(
                max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
            )
            def ask(case: schemathesis.Case) -> None:
                case.query = {"write_key": KEY}
                case.headers.pop("Authorization", None)
                case.call_and_validate()

            ask()


@pytest.mark.slow
def test_without_kafka_a_client_is_to_come_again(nowhere: Client) -> None:
    began = time.monotonic()
    answer = post(nowhere, OWN)
    assert answer.status_code == 503
    assert answer.json()["code"] in ("kafka_unreachable", "kafka_silent")
    assert answer.headers["Retry-After"] == "5"
    assert "127.0.0.1" not in answer.text
    # On a busy machine.
    assert time.monotonic() - began < 20


@pytest.mark.fault("kafka_hang_collector")
def test_a_hung_kafka_costs_nobody_else_time_and_what_was_refused_comes_in_once(
    topic: Settings, stack: Stack, duckdb_engine: DuckDBEngine, tmp_path: Path, fault: Fault
) -> None:
    [pid] = [server.pid for server in stack.status() if server.title == "Kafka"]
    assert pid
    variables = {
        "KAFKA_BOOTSTRAP_SERVERS": topic.kafka_bootstrap_servers,
        "KAFKA_TOPIC": topic.kafka_topic,
        "API_KEYS": f"{KEYS},{entry(READER, Scope.READ)}",
    }
    events = [OWN | {"event_id": f"e-{number}"} for number in range(40)]
    with served(Settings(_env_file=None), **variables) as api:
        first = send(api, OWN)
        assert first.status_code == 200, (first.text, api.log)
        with suspended(pid), ThreadPoolExecutor(len(events)) as clients:
            answers = [clients.submit(send, api, event) for event in events]
            while not all(answer.done() for answer in answers):
                assert requests.get(f"{api.address}/health/live", timeout=20).json() == {"status": "live"}
                assert (
                    requests.get(f"{api.address}/openapi.json", auth=(READER, ""), timeout=20).status_code
                    == 200
                )
        for answer in answers:
            refused = answer.result()
            said = refused.status_code, refused.headers.get("Retry-After")
            assert said == (503, "5"), (refused.text, api.log)
            assert refused.json()["code"] in ("kafka_silent", "kafka_unreachable", "kafka_failed")
        fault.saw(f"503 {refused.json()['detail']}")
        with fault.until_healthy():
            for attempt in Retrying(
                retry=retry_if_exception_type(AssertionError),
                stop=stop_after_delay(60),
                wait=wait_fixed(0.2),
                reraise=True,
            ):
                with attempt:
                    assert [send(api, event).status_code for event in events] == [200] * 40
    settings = with_settings(topic, lake_path=str(tmp_path / "lake"))
    ingestion = Ingestion.of(settings, duckdb_engine)
    ingestion.run()
    assert ingestion.counts()["conflicting_events"] == 0
    fault.settle(take_account(settings, [OWN, *events], (Part.TOPIC, Part.LAKE), repeated=True))


def send(api: Served, event: dict[str, Any]) -> requests.Response:
    return requests.post(f"{api.address}/api/events", json=event, auth=(KEY, ""), timeout=30)
