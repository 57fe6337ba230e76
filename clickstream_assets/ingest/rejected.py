"""Rejected records: finding, mending and sending them again.

A rejected record stays in `raw_events` and in `rejected_events`; the mended one is a new record. So every record is
accounted for, and one that is sent twice is a duplicate like any other, recognised by its event id.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

import msgspec

from clickstream_assets.catalogue import ITEM_KEY, RECORD_KEY, REJECTED_EVENTS
from clickstream_assets.engine import DataFrame, functions_of
from clickstream_assets.ingest.fields import Rejection, ValidationRules
from clickstream_assets.ingest.parsing import decode_payload, parse_record
from clickstream_assets.stores.lake import Lake

RECENT_COMMITS = 5

_encoder = msgspec.json.Encoder(decimal_format="number", enc_hook=lambda unreadable: unreadable.raw)


@dataclass(frozen=True)
class Selection:
    """Conditions on rejected records; all that are given must hold."""

    rule: str | None = None
    field: str | None = None
    value: str | None = None
    """The field's value as `rejected_events` has it, in `rejected_value`."""


@dataclass(frozen=True)
class Group:
    """The number of records that broke a rule in a field."""

    rule: str
    field: str | None
    records: int


@dataclass
class Resent:
    """Outcome of sending the selected records again."""

    selected: int = 0
    sent: int = 0
    still_rejected: Counter[str] = field(default_factory=Counter)
    """By rule, the number of those that would be rejected again, and were not sent."""
    example: str | None = None
    """The first of those, in words."""


def count_rejected(lake: Lake, selection: Selection) -> list[Group]:
    """Count the selected records by rule and field, the most frequent first."""
    rows = _selected(lake, selection)
    F, _ = functions_of(rows)
    counts = rows.groupBy("rule", "field").agg(F.count(F.lit(1)).cast("long").alias("records"))
    groups = [Group(**row) for row in lake.engine.to_arrow(counts).to_pylist()]
    return sorted(groups, key=lambda group: (-group.records, group.rule, group.field or ""))


def newest_rejected(lake: Lake, selection: Selection, limit: int) -> list[dict[str, Any]]:
    """Return the last of the selected records, at most `limit`, as REJECTED_EVENTS rows in the order they came in."""
    rows = _selected(lake, selection)
    F, _ = functions_of(rows)
    backwards = rows.orderBy(*(F.col(name).desc() for name in ("kafka_time", *ITEM_KEY)))
    newest = lake.engine.to_arrow(backwards.limit(limit)).to_pylist()
    return newest[::-1]


def rejected_samples(lake: Lake, limit: int) -> list[dict[str, Any]]:
    """Return the last rejected record of each rule and field, at most `limit`, the newest first, without its bytes.

    Looks at the last RECENT_COMMITS commits with rejected records, so that it is quick however many there are.
    """
    files = lake.snapshot(REJECTED_EVENTS).files
    batches = sorted(set(files["max.batch"].drop_null().to_pylist())) if files.num_rows else []
    if not batches:
        return []
    rows = lake.read(REJECTED_EVENTS, batches=(batches[-RECENT_COMMITS:][0], batches[-1]))
    F, Window = functions_of(rows)
    newest_first = [F.col(name).desc() for name in ("kafka_time", *ITEM_KEY)]
    numbered = rows.select(
        *(*ITEM_KEY, "kafka_time", "rule", "field", "rejected_value", "rejected_by"),
        F.row_number().over(Window.partitionBy("rule", "field").orderBy(*newest_first)).alias("number"),
    )
    last = numbered.where(F.col("number") == 1).drop("number")
    return lake.engine.to_arrow(last.orderBy(*newest_first).limit(limit)).to_pylist()


def all_rejected(lake: Lake, selection: Selection) -> Iterator[dict[str, Any]]:
    """Yield the selected records as REJECTED_EVENTS rows in the order of their offsets, an ingest batch at a time."""
    batches = lake.engine.to_arrow(_selected(lake, selection).select("batch").distinct())["batch"]
    for batch in sorted(batches.to_pylist()):
        rows = _selected(lake, selection, (batch, batch)).orderBy(*ITEM_KEY)
        yield from lake.engine.to_arrow(rows).to_pylist()


def _selected(lake: Lake, selection: Selection, batches: tuple[int, int] | None = None) -> DataFrame:
    rows = lake.read(REJECTED_EVENTS, batches=batches)
    F, _ = functions_of(rows)
    # Records that Elasticsearch refused are events: sent again, they would be duplicates.
    chosen = F.col("rejected_by").isNull() | (F.col("rejected_by") == "ingest")
    for column, wanted in (
        ("rule", selection.rule),
        ("field", selection.field),
        ("rejected_value", selection.value),
    ):
        if wanted is not None:
            chosen = chosen & (F.col(column) == wanted)
    return rows.where(chosen)


def mend(value: bytes | None, changes: Mapping[str, Any], drop: Collection[str]) -> bytes | None:
    """Set fields of a record's JSON object, or drop them; the other fields stay as they are written.

    Raises:
        Rejection: the value is no JSON object, so there are no fields.
    """
    if not changes and not drop:
        return value
    if value is None:
        raise Rejection(None, "tombstone")
    payload = decode_payload(value)
    kept = {name: given for name, given in payload.items() if name not in drop}
    return _encoder.encode({**kept, **changes})


def send_again(
    records: Iterable[Mapping[str, Any]],
    send: Callable[[bytes | None, bytes], None],
    rules: ValidationRules,
    now: int,
    changes: Mapping[str, Any],
    drop: Collection[str] = (),
) -> Resent:
    """Mend records, and send those that are valid events now.

    Args:
        records: REJECTED_EVENTS rows.
        send: takes a record's key and value.
        rules: the bounds that the ingest keeps.
        now: the time that Kafka will give them, microseconds since 1970.
        changes: fields to set, with their values.
        drop: fields to drop.
    """
    resent = Resent()
    # Each record once, however many of its items were rejected; they come one after the other.
    for _, (record, *_) in groupby(records, key=itemgetter(*RECORD_KEY)):
        resent.selected += 1
        try:
            mended = mend(record["value"], changes, drop)
            found = parse_record(mended, now, rules)
        except Rejection as rejection:
            mended, found = None, [rejection]
        if wrong := next((one for one in found if isinstance(one, Rejection)), None):
            resent.still_rejected[wrong.rule] += 1
            resent.example = resent.example or (
                f"partition {record['partition']}, offset {record['offset']}: "
                f"{wrong.field or 'the record'}: {wrong.rule}"
            )
            continue
        assert mended is not None
        send(record["key"], mended)
        resent.sent += 1
    return resent
