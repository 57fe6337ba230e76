"""Input of the assets on carts and customers: what is known of each day of shoppers' events, and the data's own clock.

Carts and customers depend on all days. That nobody has to read them all, each has a row in `shopper_days`: whoever
compares it with the row that its own tables were made from knows whether the day has changed.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from hashlib import sha256

import pyarrow as pa

from clickstream_assets.analytics.customers import orders, refunds, shopper_days
from clickstream_assets.analytics.persons import between
from clickstream_assets.analytics.windows import counted_time
from clickstream_assets.catalogue import EVENTS, SHOPPER_DAYS, SHOPPER_EVENTS, SHOPPER_ORDERS, SHOPPER_REFUNDS
from clickstream_assets.defs.partitions import Days, chunks
from clickstream_assets.engine import functions_of
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.stores.lake import Lake, Snapshot

NO_EVENTS = {"events": 0, "fingerprint": ""}


def update_shopper_days(lake: Lake) -> pa.Table:
    """Bring `shopper_days`, `shopper_orders` and `shopper_refunds` up to date with `shopper_events`.

    Reads the days that have other files than when their rows were made: those that were written since, whoever did,
    and those whose files were put together. So what a killed run has left is found by the next.

    Returns:
        SHOPPER_DAYS rows, in order.
    """
    engine = lake.engine
    newest = lake.snapshot(SHOPPER_EVENTS)
    files = files_by(newest, "event_date")
    rows = [] if lake.is_lost(SHOPPER_ORDERS, SHOPPER_REFUNDS) else lake.rows(SHOPPER_DAYS).to_pylist()
    before = {row["report_date"]: row for row in rows}
    changed = [
        day for day in files.keys() | before.keys() if before.get(day, {}).get("files") != files.get(day)
    ]
    if not changed:
        return _table(before)
    after = {day: before[day] for day in before.keys() & files.keys()}
    for first, last in chunks(lake, Days.of(changed), SHOPPER_EVENTS):
        events = between(lake.read(SHOPPER_EVENTS, newest.version), "event_date", first, last)
        lake.replace(SHOPPER_ORDERS, orders(events).drop("last_line_at"), days=(first, last))
        lake.replace(SHOPPER_REFUNDS, refunds(events), days=(first, last))
        found = {row.pop("report_date"): row for row in engine.to_arrow(shopper_days(events)).to_pylist()}
        for day in filter(files.__contains__, Days(((first, last),))):
            after[day] = {"report_date": day, **found.get(day, NO_EVENTS), "files": files[day]}
    table = _table(after)
    lake.replace_rows(SHOPPER_DAYS, table)
    return table


def _table(rows: dict[date, dict[str, object]]) -> pa.Table:
    return pa.Table.from_pylist([rows[day] for day in sorted(rows)], schema=SHOPPER_DAYS.arrow)


def files_by(snapshot: Snapshot, column: str) -> dict[date, str]:
    """Return a hash of the names of the files of each day that a table has; every write gives them others.

    Args:
        snapshot: of the table.
        column: the day, by which its files are laid out.
    """
    if not snapshot.files.num_rows:
        return {}
    paths: dict[date, list[str]] = {}
    for row in snapshot.files.select(["path", f"partition.{column}"]).to_pylist():
        paths.setdefault(row[f"partition.{column}"], []).append(row["path"])
    return {day: sha256("|".join(sorted(its)).encode()).hexdigest()[:32] for day, its in paths.items()}


def newest_time(lake: Lake, events: Snapshot, rules: ValidationRules) -> datetime:
    """Return the time of the newest event, of whatever type and user; 1970 where there is none.

    A shopper's clock can be fast: an event is no newer than its arrival, as for the streams.
    """
    days = events.rows_by("event_date")
    if not days:
        return datetime.fromtimestamp(0, UTC)
    rows = lake.read(EVENTS, events.version)
    F, _ = functions_of(rows)
    # So far back can the newest be, as no event is further ahead of its arrival.
    ahead = timedelta(microseconds=rules.max_clock_skew)
    since = rules.clock.day_of(rules.clock.begin(max(days)) - ahead)
    newest = rows.where(F.col("event_date") >= F.lit(since)).agg(F.max(counted_time(F)).alias("newest"))
    return lake.engine.to_arrow(newest)["newest"][0].as_py().astimezone(UTC)
