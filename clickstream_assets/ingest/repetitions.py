"""Records that repeat an event: the same id, or the same order line under another id.

The result is a function of the records and their order alone: the same records in the same ingest batches give the
same rows, however often and on whichever engine they are computed.
"""

from typing import Any

import pyarrow as pa

from clickstream_assets.catalogue import CONFLICTING_EVENTS, DUPLICATE_EVENTS, RAW_EVENTS, RECORD_KEY
from clickstream_assets.engine import DataFrame, Engine, as_view, functions_of

_RECORD = ("event_id", "payload_hash", *RECORD_KEY)
_LINE = ("order_id", "product_id", "line_quantity", "line_price")
_SENT_LINE = ("event_type", "order_id", "product_id", "quantity", "price")

REPETITIONS = pa.schema(
    [
        *(RAW_EVENTS.arrow.field(name) for name in RECORD_KEY),
        DUPLICATE_EVENTS.arrow.field("reason"),
        *(CONFLICTING_EVENTS.arrow.field(f"first_{name}") for name in ("payload_hash", *RECORD_KEY)),
    ]
)
"""Rows of records that repeat an event: the record, the reason, and the record that came first."""


def find_repetitions(
    engine: Engine, parsed: DataFrame, events_before: DataFrame, duplicates_before: DataFrame
) -> pa.Table:
    """Find the valid records of an ingest batch that repeat an event.

    Records are taken in the order of topic, partition and offset. The first of an event id is the event; the
    same id with the same payload is `same_event`, with another payload `other_payload`. A purchase that repeats an
    order line (order, product, quantity and price) under another id, as a reloaded thank-you page does, is
    `same_order_line`.

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
    lines = _order_lines(valid).join(repeated.select(*RECORD_KEY), on=list(RECORD_KEY), how="left_anti")
    repeated_lines = _repetitions(
        engine, as_view(lines), _order_lines(events_before), list(_LINE), F.lit("same_order_line")
    )
    engine.release(repeated)
    return pa.concat_tables([repeated_ids, repeated_lines])


def order_line(F: Any) -> tuple[Any, list[Any]]:
    """Return the condition that an event is an order line, and the columns that are equal where it is the same line.

    A missing quantity is one, and a missing price is a price too.
    """
    is_line = (F.col("event_type") == "purchase") & F.col("order_id").isNotNull()
    quantity = F.coalesce(F.col("quantity"), F.lit(1))
    price = F.coalesce(F.col("price"), F.lit(-1).cast("decimal(18,4)"))
    return is_line, [F.col("order_id"), F.col("product_id"), quantity, price]


def _order_lines(events: DataFrame) -> DataFrame:
    F, _ = functions_of(events)
    is_line, columns = order_line(F)
    line = (column.alias(name) for column, name in zip(columns, _LINE, strict=True))
    sent = events.select("payload_hash", *RECORD_KEY, *_SENT_LINE).where(is_line)
    return as_view(sent.select(*line, "payload_hash", *RECORD_KEY))


def _repetitions(engine: Engine, new: DataFrame, before: DataFrame, key: list[str], reason: Any) -> pa.Table:
    """Find the new records that do not come first with their key, each with the record that does.

    Args:
        engine: computes.
        new: the key, `payload_hash` and RECORD_KEY of each new record.
        before: the same of earlier records, of which each key has at most one.
        key: columns.
        reason: a column of REPETITIONS, in terms of its others and of `payload_hash`.

    Returns:
        REPETITIONS rows.
    """
    F, Window = functions_of(new)
    # Computed once for its two uses: it reads all of history, and finds few.
    known = engine.persist(before.join(new.select(*key), on=key, how="left_semi"))
    columns = [*key, "payload_hash", *RECORD_KEY]
    all_of_them = as_view(
        new.select(*columns, F.lit(0).alias("is_known")).unionByName(
            known.select(*columns, F.lit(1).alias("is_known"))
        )
    )
    in_order = Window.partitionBy(*key).orderBy(F.col("is_known").desc(), *RECORD_KEY)
    repeated = as_view(
        all_of_them.select(
            *RECORD_KEY,
            "payload_hash",
            F.row_number().over(in_order).alias("position"),
            *(F.first(name).over(in_order).alias(f"first_{name}") for name in ("payload_hash", *RECORD_KEY)),
        )
    ).where(F.col("position") > 1)
    found = engine.to_arrow(repeated.withColumn("reason", reason).select(*REPETITIONS.names))
    engine.release(known)
    return found.cast(REPETITIONS)
