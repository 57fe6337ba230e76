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

from clickstream_assets.catalogue import ITEM_KEY, RECORD_KEY, REJECTED_EVENTS, WHOLE_RECORD
from clickstream_assets.engine import DataFrame, functions_of
from clickstream_assets.ingest.dialects import snowplow
from clickstream_assets.ingest.dialects.wire import without_header
from clickstream_assets.ingest.fields import Rejection, ValidationRules
from clickstream_assets.ingest.origins import origin_of
from clickstream_assets.ingest.parsing import decode_any, parse_record, read_payload
from clickstream_assets.ingest.record_paths import Path, encoder, with_value, without
from clickstream_assets.settings import EventDialect
from clickstream_assets.stores.kafka.partition import TopicPartition
from clickstream_assets.stores.lake import Lake

RECENT_COMMITS = 5

_NO_FIELDS = (
    "it has no fields that --set and --drop could mend. Write such records to a file with `clickstream rejected list "
    "--format json`, mend them there, and send them with `clickstream replay FILE`"
)
ADVICE = {
    "tombstone": "it has no value, so there is nothing to mend or to send",
    "emptied": "what it said is past REJECTED_RETENTION_DAYS, or not kept as PSEUDONYMS is set. Kafka may have it, "
    "and its sender",
    "avro": "Avro is not read. Have the sender, or the connector before Kafka, write JSON, and send the events anew",
    "protobuf": "Protobuf is not read. Have the sender, or the connector before Kafka, write JSON, and send the events "
    "anew",
    "not_json": _NO_FIELDS,
    "not_an_object": _NO_FIELDS,
    "not_utf8": "it is no text. Have the sender write UTF-8, and send the events anew",
    "too_large": "set MAX_EVENT_BYTES to more, and run `clickstream rejected replay --rule too_large`",
    "no_such_column": "a line of Snowplow's has columns alone, such as user_id or ti_price, and JSON in some of them",
    "other_dialect": "with these changes it would be taken for another tracker's. Use its own tracker's words, or give "
    "its topic a dialect in KAFKA_TOPIC",
    "topic_not_read": "KAFKA_TOPIC does not name the topic that it came from, so nobody would read it there",
}
"""What can be done about a record that no change of a field mends, by rule."""


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


def mend(
    value: bytes | None, changes: Mapping[Path, Any], drop: Collection[Path], dialect: EventDialect
) -> bytes | None:
    """Set fields of a record in its sender's words, or drop them; all others stay as they are written.

    Args:
        value: the record's bytes; a line of Snowplow's has its columns as fields.
        changes: what to set, by path.
        drop: paths of what to take out.
        dialect: the one that the record's topic has; auto tells it by the record's shape.

    Raises:
        Rejection: the record has no fields: it is neither a JSON object nor such a line, or has no such column.
    """
    if not changes and not drop:
        return value
    if value is None:
        raise Rejection(None, "tombstone")
    body = without_header(value)
    payload, told = read_payload(value, dialect)
    mended: Any = payload
    for path in drop:
        mended = without(mended, path, decode_any)
    for path, given in changes.items():
        mended = with_value(mended, path, given, decode_any)
    if told is EventDialect.SNOWPLOW and snowplow.is_tsv(value):
        return snowplow.to_tsv(value, mended)
    header = value[: len(value) - len(body)]
    written = header + encoder.encode(mended)
    if told is not EventDialect.OWN and read_payload(written, dialect)[1] is not told:
        raise Rejection(None, "other_dialect", told.value)
    return written


def send_again(
    records: Iterable[Mapping[str, Any]],
    send: Callable[[bytes | None, bytes, str], None],
    rules: ValidationRules,
    topics: Collection[str],
    now: int,
    changes: Mapping[Path, Any],
    drop: Collection[Path] = (),
) -> Resent:
    """Mend records, and send those that are valid events now to the topics that they came from.

    Args:
        records: REJECTED_EVENTS rows.
        send: takes a record's key, value and topic.
        rules: the rules that the ingest keeps.
        topics: those that are read; nobody would see what is sent to another.
        now: the time that Kafka will give them, microseconds since 1970.
        changes: what to set, by path.
        drop: paths of what to take out.
    """
    resent = Resent()
    # Each record once, however many of its items were rejected; they come one after the other.
    for _, (record, *_) in groupby(records, key=itemgetter(*RECORD_KEY)):
        resent.selected += 1
        topic = record["topic"]
        own_rules = rules.of_topic(topic)
        mended: bytes | None = None
        found: list[Any]
        try:
            if topic not in topics:
                raise Rejection(None, "topic_not_read", topic)
            if record["value"] is None and record["rule"] != "tombstone":
                raise Rejection(None, "emptied")
            mended = mend(record["value"], changes, drop, own_rules.event_dialect)
            found = parse_record(mended, now, own_rules)
        except Rejection as rejection:
            found = [rejection]
        wrong = next(((place, one) for place, one in enumerate(found, 1) if isinstance(one, Rejection)), None)
        if wrong is not None:
            item, broken = wrong
            resent.still_rejected[broken.rule] += 1
            resent.example = resent.example or (
                f"{TopicPartition(topic, record['partition'])}, offset {record['offset']}: "
                f"{field_in_words(mended, item, broken.field, own_rules)}: {broken.rule}"
            )
            continue
        assert mended is not None
        send(record["key"], mended, topic)
        resent.sent += 1
    return resent


def field_in_words(value: bytes | None, item: int, field: str | None, rules: ValidationRules) -> str:
    """Return a rejected record's field, with the words of its sender beside it where these are others.

    Args:
        value: the record's bytes.
        item: the place of the rejected item in the record, from 1.
        field: the own field; None for the whole record.
        rules: those of the record's topic.
    """
    origin = origin_of(value, item, field, rules)
    if origin is None or origin.words in (None, field):
        return field or WHOLE_RECORD
    return f"{field} ({origin.words} in {origin.dialect})"
