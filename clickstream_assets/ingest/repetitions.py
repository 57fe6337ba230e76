"""Records that repeat an event: the same id, or the same order line under another id.

The result is a function of the records and their order alone: the same records in the same ingest batches give the
same rows, however often and on whichever engine they are computed.
"""

from typing import Any

import pyarrow as pa

from clickstream_assets.analytics.measures import units
from clickstream_assets.analytics.windows import visitor
from clickstream_assets.catalogue import CONFLICTING_EVENTS, DUPLICATE_EVENTS, ITEM_KEY, MONEY_TYPES
from clickstream_assets.engine import DataFrame, Engine, as_view, functions_of

_RECORD = ("event_id", "payload_hash", *ITEM_KEY)
_LINE = ("line_visitor", "order_id", "line", "product_id", "line_quantity", "line_price")
_SENT_LINE = (
    *("event_type", "event_time", "user_id", "anonymous_id", "session_id"),
    *("order_id", "order_line", "product_id", "quantity", "price"),
)

REPETITIONS = pa.schema(
    [
        *(DUPLICATE_EVENTS.arrow.field(name) for name in ITEM_KEY),
        DUPLICATE_EVENTS.arrow.field("reason"),
        *(CONFLICTING_EVENTS.arrow.field(f"first_{name}") for name in ("payload_hash", *ITEM_KEY)),
    ]
)
"""Rows of records that repeat an event: the record, the reason, and the record that came first."""


def find_repetitions(
    engine: Engine, parsed: DataFrame, events_before: DataFrame, duplicates_before: DataFrame
) -> pa.Table:
    """Find the valid records of an ingest batch that repeat an event.

    Records are taken in the order of topic, partition and offset, and the items of one in theirs. The first of an event
    id is the event; the same id with the same payload is `same_event`, with another payload `other_payload`. A purchase
    or a refund that repeats an order line (visitor, order, line, product, quantity and price) at another time under
    another id, as a reloaded thank-you page does, is `same_order_line`. At the very same time it is another line of the
    order, as of a shop that sends one for each unit.

    Args:
        engine: computes.
        parsed: PARSED rows of the new ingest batch, which are read several times.
        events_before: EVENTS rows of all earlier batches.
        duplicates_before: DUPLICATE_EVENTS rows of all earlier batches.

    Returns:
        REPETITIONS rows: few, whatever the batch.
    """
    F, _ = functions_of(parsed)
    columns = dict.fromkeys([*_RECORD, *_SENT_LINE])
    # Narrow before anything else: what an operation costs on SQLFrame grows with the columns.
    valid = as_view(parsed.select("rule", *columns).where(F.col("rule").isNull()).select(*columns))

    # The id of a repeated order line is taken too: a later record with that id is compared with it.
    taken = duplicates_before.select("reason", *_RECORD).where(F.col("reason") == "same_order_line")
    before = as_view(events_before.select(*_RECORD).unionByName(taken.select(*_RECORD)))
    same_payload = F.col("payload_hash") == F.col("first_payload_hash")
    reason = F.when(same_payload, F.lit("same_event")).otherwise(F.lit("other_payload"))
    repeated_ids = _repetitions(engine, valid.select(*_RECORD), before, ["event_id"], reason)

    # A record with a repeated id is no event, so it is not the first of an order line either.
    repeated = engine.from_arrow(repeated_ids)
    lines = _order_lines(valid).join(repeated.select(*ITEM_KEY), on=list(ITEM_KEY), how="left_anti")
    repeated_lines = _repetitions(
        engine,
        as_view(lines),
        _order_lines(events_before),
        list(_LINE),
        F.lit("same_order_line"),
        "event_time",
    )
    engine.release(repeated)
    return pa.concat_tables([repeated_ids, repeated_lines])


def order_line(F: Any) -> tuple[Any, list[Any]]:
    """Return the condition that an event is an order line, and the columns that are equal where it is the same line.

    A missing quantity is one, and a missing price is a price too. An order is a visitor's own: with some shops order
    ids are the same for many, or counters that begin anew.
    """
    is_line = F.col("event_type").isin(*MONEY_TYPES) & F.col("order_id").isNotNull()
    price = F.coalesce(F.col("price"), F.lit(-1).cast("decimal(18,4)"))
    line = F.concat_ws("|", F.col("event_type"), F.col("order_line"))
    return is_line, [
        visitor(F),
        F.col("order_id"),
        line,
        F.coalesce(F.col("product_id"), F.lit("")),
        units(F),
        price,
    ]


def _order_lines(events: DataFrame) -> DataFrame:
    F, _ = functions_of(events)
    is_line, columns = order_line(F)
    line = (column.alias(name) for column, name in zip(columns, _LINE, strict=True))
    sent = events.select("payload_hash", *ITEM_KEY, *_SENT_LINE).where(is_line)
    return as_view(sent.select(*line, "event_time", "payload_hash", *ITEM_KEY))


def _repetitions(
    engine: Engine,
    new: DataFrame,
    before: DataFrame,
    key: list[str],
    reason: Any,
    distinct: str | None = None,
) -> pa.Table:
    """Find the new records that do not come first with their key, each with the record that does.

    Args:
        engine: computes.
        new: the key, `payload_hash` and ITEM_KEY of each new record.
        before: the same of earlier records.
        key: columns.
        reason: a column of REPETITIONS, in terms of its others and of `payload_hash`.
        distinct: a further column; those that have the value of the first repeat nothing.

    Returns:
        REPETITIONS rows.
    """
    F, Window = functions_of(new)
    # Computed once for its two uses: it reads all of history, and finds few.
    known = engine.persist(before.join(new.select(*key), on=key, how="left_semi"))
    columns = [*key, "payload_hash", *ITEM_KEY, *([distinct] if distinct else [])]
    all_of_them = as_view(
        new.select(*columns, F.lit(0).alias("is_known")).unionByName(
            known.select(*columns, F.lit(1).alias("is_known"))
        )
    )
    in_order = Window.partitionBy(*key).orderBy(F.col("is_known").desc(), *ITEM_KEY)
    is_other = F.lit(True)
    if distinct:
        is_other = F.col(distinct) != F.first(distinct).over(in_order)
    repeated = as_view(
        all_of_them.select(
            *ITEM_KEY,
            "payload_hash",
            "is_known",
            F.row_number().over(in_order).alias("position"),
            is_other.alias("is_other"),
            *(F.first(name).over(in_order).alias(f"first_{name}") for name in ("payload_hash", *ITEM_KEY)),
        )
    ).where((F.col("position") > 1) & (F.col("is_known") == 0) & F.col("is_other"))
    found = engine.to_arrow(repeated.withColumn("reason", reason).select(*REPETITIONS.names))
    engine.release(known)
    return found.cast(REPETITIONS)
