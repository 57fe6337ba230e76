from collections import Counter
from typing import Any

import msgspec
import pytest

from clickstream_assets.ingest.fields import Rejection
from clickstream_assets.ingest.record_paths import Path
from clickstream_assets.ingest.rejected import mend, send_again
from clickstream_assets.settings import EventDialect
from clickstream_assets_tests.analytics.records import ARRIVED, RULES, VIEW, encode

AUTO = EventDialect.AUTO
NOW = int(ARRIVED.timestamp() * 1_000_000)


def test_without_changes_a_record_stays_byte_for_byte():
    assert mend(b'{ "a" : 1.50 }\n', {}, [], AUTO) == b'{ "a" : 1.50 }\n'


def test_mending_sets_and_takes_out_fields_and_leaves_the_others_as_they_are_written():
    value = (
        b'{"price":1.50,"big":123456789012345678901234567890,"bad":true,"name":"\\u00e9","type":"teleport"}'
    )
    assert mend(value, {("type",): "view", ("quantity",): 2}, [("bad",)], AUTO) == (
        '{"price":1.50,"big":123456789012345678901234567890,"name":"é","type":"view","quantity":2}'.encode()
    )
    huge = b'{"price":1e99999999999999999999,"big":[-1' + b"0" * 5000 + b"]"
    assert mend(huge + b',"type":1}', {("type",): "view"}, [], AUTO) == huge + b',"type":"view"}'


@pytest.mark.parametrize(
    ("value", "rule"), [(None, "tombstone"), (b"{", "not_json"), (b"[1]", "not_an_object")]
)
def test_what_has_no_fields_cannot_be_mended(value: bytes | None, rule: str):
    with pytest.raises(Rejection) as rejection:
        mend(value, {("event_type",): "view"}, [], AUTO)
    assert rejection.value.rule == rule


def test_only_valid_events_are_sent_and_the_others_are_counted_by_rule():
    typed = VIEW | {"event_type": "teleport"}
    values = [encode(typed), encode(typed | {"user_id": None}), b"no json", encode(VIEW)]
    records = [
        {"topic": "events", "partition": 0, "offset": offset, "key": str(offset).encode(), "value": value}
        for offset, value in enumerate(values)
    ]
    sent: list[tuple[bytes | None, bytes, str]] = []
    changes: dict[Path, Any] = {("event_type",): "view"}
    resent = send_again(records, lambda *record: sent.append(record), RULES, ["events"], NOW, changes)
    assert [(key, msgspec.json.decode(value)["event_type"]) for key, value, _ in sent] == [
        (b"0", "view"),
        (b"3", "view"),
    ]
    assert (resent.selected, resent.sent) == (4, 2)
    assert resent.still_rejected == Counter(missing=1, not_json=1)
    assert resent.example == "events/0, offset 1: user_id: missing"
