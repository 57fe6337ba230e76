"""Records that repeat an event: the same id, or the same order line under another id.

The result is a function of the records and their order alone: the same records in the same ingest batches give the
same rows, however often and on whichever engine they are computed.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import pyarrow as pa

from clickstream_assets.analytics.measures import units
from clickstream_assets.analytics.windows import named_id
from clickstream_assets.catalogue import CONFLICTING_EVENTS, DUPLICATE_EVENTS, ITEM_KEY, MONEY_TYPES
from clickstream_assets.engine import DataFrame, Engine, as_view, functions_of

_JUDGED = ("event_date", "payload_hash", *ITEM_KEY)
_RECORD = ("event_id", *_JUDGED)
_LINE = ("identity", "order_id", "line", "product_id", "line_quantity", "line_price")
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
    engine: Engine, parsed: DataFrame, events_before: DataFrame, duplicates_before: DataFrame, days: int
) -> pa.Table:
    """Find the valid records of an ingest batch that repeat an event of at most some days before or after.

    Records are taken in the order of topic, partition and offset, and the items of one in theirs. The first of an event
    id is the event; the same id with the same payload is `same_event`, with another payload `other_payload`. A purchase
    or a refund that repeats an order line (order, line, product, quantity and price) of the same person at another time
    under another id, as a reloaded thank-you page does, is `same_order_line`. At the very same time it is another line
    of the order, as of a shop that sends one for each unit. What is further away than `days` repeats nothing: it is an
    event, the first of its id or line again for what comes after it.

    Lines are the same person's where they share a user id or an anonymous id, whatever else they have: a page that is
    loaded again after a login shares the one, an order that is looked at on another device the other. Ties are not
    asked, as they change with events of other days. A line is compared with events alone: one that repeats an event
    leads no further, to lines that share only its other id. So what an earlier batch found need not be known, and it
    does not matter where batches are cut.

    Args:
        engine: computes.
        parsed: PARSED rows of the new ingest batch, which are read several times.
        events_before: EVENTS rows of all earlier batches that are within `days` of a new record; others may be there.
        duplicates_before: DUPLICATE_EVENTS rows of all earlier batches, likewise.
        days: how far apart the days of a record and of the event that it repeats are at most.

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
    same_ids = _several(engine, valid.select(*_RECORD), before, ["event_id"], _JUDGED)
    repeated_ids = _repetitions(same_ids, ["event_id"], days)

    # A record with a repeated id is no event, so it is not the first of an order line either.
    repeated = engine.from_arrow(repeated_ids)
    lines = _order_lines(valid).join(repeated.select(*ITEM_KEY), on=list(ITEM_KEY), how="left_anti")
    same_lines = _several(
        engine, as_view(lines), _order_lines(events_before), list(_LINE), ("event_time", *_JUDGED)
    )
    repeated_lines = _repetitions(same_lines, list(_LINE), days, are_lines=True)
    engine.release(repeated)
    return pa.concat_tables([repeated_ids, repeated_lines])


def order_line(F: Any) -> tuple[Any, list[Any]]:
    """Return the condition that an event is an order line, and the columns that are equal where it is the same line.

    They are compared within a person's lines (`identities`): with some shops order ids are the same for many, or
    counters that begin anew. A missing quantity is one, and a missing price is a price too.
    """
    is_line = F.col("event_type").isin(*MONEY_TYPES) & F.col("order_id").isNotNull()
    price = F.coalesce(F.col("price"), F.lit(-1).cast("decimal(18,4)"))
    line = F.concat_ws("|", F.col("event_type"), F.col("order_line"))
    return is_line, [
        F.col("order_id"),
        line,
        F.coalesce(F.col("product_id"), F.lit("")),
        units(F),
        price,
    ]


def identities(F: Any) -> tuple[Any, Any]:
    """Return two columns of EVENTS rows, by each of which an event is of the same person as those that share it.

    The user id, or null; and the anonymous id, or, where there is neither, the session id, or null. They say which id
    they are: a user id and an anonymous id of the same text are two persons'.
    """
    session = F.when(F.col("user_id").isNull(), named_id(F, "session_id"))
    return named_id(F, "user_id"), F.coalesce(named_id(F, "anonymous_id"), session)


def _order_lines(events: DataFrame) -> DataFrame:
    """Return the order lines among EVENTS rows, one row for each identity of theirs."""
    F, _ = functions_of(events)
    is_line, columns = order_line(F)
    line = (column.alias(name) for column, name in zip(columns, _LINE[1:], strict=True))
    sent = events.select(*_JUDGED, *_SENT_LINE).where(is_line)
    lines = as_view(sent.select(F.array(*identities(F)).alias("both"), *line, "event_time", *_JUDGED))
    each = as_view(lines.withColumn("identity", F.explode("both")))
    return as_view(each.where(F.col("identity").isNotNull()).select(*_LINE, "event_time", *_JUDGED))


def _several(
    engine: Engine, new: DataFrame, before: DataFrame, key: list[str], others: Sequence[str]
) -> pa.Table:
    """Return the rows of which there are several with their key, a new one among them.

    Args:
        engine: computes.
        new: new records.
        before: earlier ones, with the same columns.
        key: columns.
        others: further columns that are wanted, ITEM_KEY among them.

    Returns:
        Rows of both with `is_new`: earlier ones first, then in the order of records. One with several keys has a row
        for each of them that it shares.
    """
    F, Window = functions_of(new)
    columns = [*key, *others]
    # Computed once for its two uses: it reads all of the days, and finds few.
    known = engine.persist(before.select(*columns).join(new.select(*key), on=key, how="left_semi"))
    all_of_them = as_view(
        new.select(*columns, F.lit(True).alias("is_new")).unionByName(
            known.select(*columns, F.lit(False).alias("is_new"))
        )
    )
    of_key = F.count(F.lit(1)).over(Window.partitionBy(*key))
    counted = as_view(all_of_them.select(*columns, "is_new", of_key.alias("of_key")))
    found = engine.to_arrow(counted.where(F.col("of_key") > 1).select(*columns, "is_new"))
    engine.release(known)
    return found.sort_by([(name, "ascending") for name in ("is_new", *ITEM_KEY)])


def _repetitions(several: pa.Table, key: list[str], days: int, *, are_lines: bool = False) -> pa.Table:
    """Find the new records that repeat the first with one of their keys, each with the one that it repeats.

    Args:
        several: rows of `_several`.
        key: its columns.
        days: how far apart two are at most of which one repeats the other.
        are_lines: whether those of the same moment repeat nothing.

    Returns:
        REPETITIONS rows.
    """
    keys = list(zip(*(several[name].to_pylist() for name in key), strict=True))
    dates = several["event_date"].cast(pa.int32()).to_pylist()
    moments = several["event_time"].cast(pa.int64()).to_pylist() if are_lines else dates
    records = list(zip(*(several[name].to_pylist() for name in ("payload_hash", *ITEM_KEY)), strict=True))
    is_new = several["is_new"].to_pylist()
    # Of each key the row of the first event of each moment, which others of that moment stand behind.
    firsts: defaultdict[tuple[Any, ...], dict[int, int]] = defaultdict(dict)
    found: list[tuple[Any, ...]] = []
    for record, rows_of_it in groupby(range(len(records)), key=records.__getitem__):
        row, *others = rows_of_it
        its_keys = [keys[row], *(keys[other] for other in others)]
        repeated = [
            first
            for its_key in its_keys
            for moment, first in firsts[its_key].items()
            if abs(dates[row] - dates[first]) <= days and not (are_lines and moment == moments[row])
        ]
        if is_new[row] and repeated:
            payload, *position = record
            first = records[min(repeated)]
            same = "same_event" if payload == first[0] else "other_payload"
            found.append((*position, "same_order_line" if are_lines else same, *first))
        else:
            for its_key in its_keys:
                firsts[its_key].setdefault(moments[row], row)
    return pa.Table.from_pylist(
        [dict(zip(REPETITIONS.names, row, strict=True)) for row in found], schema=REPETITIONS
    )
