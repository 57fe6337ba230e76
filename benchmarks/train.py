"""A training of a million interactions: the search for parameters, the evaluation, the models, and their publication.

    python -m benchmarks.train --events 2200000 --shoppers 50000 --products 20000

A simulated shop's events of four weeks are in the lake, and all tables of its days are made. The job `train` then runs
three times, a process each: a shop's first, which does not search; one after 1,000 new events, which does; and one of
the same data again, which finds its lists published. Per training there are seconds, peak memory and the seconds of
each asset, and the rows that were written to PostgreSQL.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from deltalake import DeltaTable

from benchmarks.day.events import DAY, numbered, parsed
from benchmarks.growth import BATCH_EVENTS, job, new_events, open_lake, servers_of_days, update
from benchmarks.measure import run_measured, say
from clickstream_assets.catalogue import EVENTS, INTERACTIONS, RAW_EVENTS
from clickstream_assets.settings import load_settings
from clickstream_assets.stores.postgres.connection import connect

DAYS = 28
NEW_EVENTS = 1_000
WRITTEN = "SELECT sum(n_tup_ins + n_tup_upd) FROM pg_stat_user_tables"


def fill(events: int, shoppers: int, products: int) -> None:
    """Write a shop's events of DAYS days, and their records without bytes, into an empty lake."""
    import pyarrow as pa

    from clickstream_assets.ingest.money import update_money
    from clickstream_assets.simulator.stream import RecordStream
    from clickstream_assets.simulator.traffic import Traffic

    lake = open_lake()
    start = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC)
    last = DAY + timedelta(days=DAYS - 1)
    traffic = Traffic(
        users=shoppers, products=products, seed=1, start=start, events=events, seconds=DAYS * 86_400
    )
    values = (record.value for record in RecordStream(traffic) if record.day <= last)
    first = batch = 0
    while part := list(islice(values, BATCH_EVENTS)):
        batch += 1
        rows = numbered(parsed(part, first, after=last), batch)
        first += len(part)
        records = rows
        for name in ("kafka_timestamp", "key", "value"):
            records = records.append_column(name, pa.nulls(rows.num_rows, RAW_EVENTS.by_name[name].type))
        for table, its in ((RAW_EVENTS, records), (EVENTS, rows)):
            df = lake.engine.from_arrow(its.select(table.column_names).cast(table.arrow))
            lake.append_batch(table, df, batch)
            lake.engine.release(df)
    update_money(lake, 0, load_settings())


def train() -> dict[str, Any]:
    """Run `train`; its figures, and the rows that it wrote to PostgreSQL."""

    def written() -> int:
        with connect(load_settings()) as connection:
            connection.execute("SELECT pg_stat_force_next_flush()")
            ((rows,),) = connection.execute(WRITTEN).fetchall()
        return int(rows or 0)

    before = written()
    return job("train") | {"written_rows": written() - before}


def main() -> None:
    """Fill a lake, train three times; print a JSON object last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--events", type=int, default=2_200_000)
    parser.add_argument("--shoppers", type=int, default=50_000)
    parser.add_argument("--products", type=int, default=20_000)
    parser.add_argument("--fill", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.fill:
        fill(given.events, given.shoppers, given.products)
        print("{}")
        return
    with servers_of_days():
        sizes = ("events", "shoppers", "products")
        options = [f"--{name}={getattr(given, name)}" for name in sizes]
        say(f"filled: {run_measured(['-m', 'benchmarks.train', '--fill', *options])}")
        job("ingest")
        job("refresh", [(DAY + timedelta(days=number)).isoformat() for number in range(DAYS)])
        found: dict[str, Any] = {"first": train()}
        pairs = DeltaTable(f"{load_settings().lake}/{INTERACTIONS.name}").to_pyarrow_dataset().count_rows()
        update(new_events(DAY + timedelta(days=DAYS - 1), NEW_EVENTS, 2))
        found |= {"with_search": train(), "again": train()}
    print(json.dumps({"interactions": pairs, **{name: getattr(given, name) for name in sizes}, **found}))


if __name__ == "__main__":
    main()
