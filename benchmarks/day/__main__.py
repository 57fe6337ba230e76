"""Every table of one day: seconds, processor time and memory, against the same tables as SQL by hand.

    python -m benchmarks.day --events 10000000 [--logins] [--engine spark] [--runs 3] [--tables sessions carts]

The events of a day are written into a lake by a process of its own. Another then makes each table as its asset does
(`tables`), and a third as SQL by hand in DuckDB (`by_hand`), on the same events, with as many threads and with all
memory that it asks for. Both write what they compute; by hand, what one table needs of another stays in memory. All
rows of both have to be the same in every column, or the run ends with the column that is not. `--scale` does it for a
tenth of the events first, and prints how much longer the whole takes.

With `--logins` there are visitors who log in, on devices of their own and on shared ones, as in a usual shop. `who` is
what is taken for whose events are whose and which of them count: `identity_ties`, persons within `sessions`, and
`shopper_events`; and its share of that and all tables together.

`--late` then appends one purchase of one shopper to the day, brings the day up to date as the pipeline does, and
prints which part of the whole day's time that takes. `sessions`, `shopper_events` and `carts` compute only the persons
whom it concerns, and replace their rows; `funnel` and `category_conversion` change their sums by what these persons
count for; `daily_summary` adds users up from `user_segments`. All other tables of the day are made whole.

`peak_mb` is the most resident memory of the processes while the table was made, with what they had before: of the
pipeline's that is Python, Dagster and the engine (`start_mb`) and what DuckDB keeps to use again, and from `carts` on
also the workers that follow carts, where there are enough of them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.day.by_hand import ORDER, source
from benchmarks.measure import run_python, say, temporary_home
from clickstream_assets import catalogue
from clickstream_assets.settings import load_settings

TABLES = {
    name: table for name, table in catalogue.TABLES.items() if name in (*ORDER, "customer_segment_days")
}
GIVEN = {"raw_events", "events", "exchange_rates", "ingest_rules"}
"""Tables that a run finds, and makes its own from."""
# Fingerprints are hashes of the pipeline's own.
COMPARED = {"customer_segment_days": ["report_date", "as_of", "events"]}


def run(module: str, lake: Path, engine: str, *arguments: str) -> str:
    """Run a module of this package in a process of its own; return the last line that it printed."""
    settings = {
        "LAKE_PATH": str(lake),
        "CLICKSTREAM_HOME": str(lake.parent),
        "COMPUTE_ENGINE": engine,
        "DUCKDB_THREADS": "2",
        "EVENTS_START_DATE": "2024-01-01",
    }
    # Dagster warns of this at every asset.
    quietly = ("-W", "ignore:Parameter `backfill_policy`")
    # Not as the main module: workers import that again, and what a run has for one is light.
    code = f"from benchmarks.day.{module} import main; main()"
    return run_python([*quietly, "-c", code, *arguments], settings)


def compare(name: str, lake: Path, by_hand: Path) -> int:
    """Compare a table's rows with those by hand, by sums of hashes; return their number.

    Raises:
        SystemExit: they differ; the message says in which columns, or in how many rows.
    """
    table = TABLES[name]
    columns = COMPARED.get(name, table.column_names)
    with duckdb.connect(config={"threads": 2}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        pipeline = connection.sql(f"SELECT {', '.join(columns)} FROM {source(str(lake), table)}")
        types = dict(zip(columns, pipeline.types, strict=True))
        cast = ", ".join(f"{column}::{types[column]} AS {column}" for column in columns)
        hand = connection.sql(f"SELECT {cast} FROM '{by_hand}/{name}.parquet'")
        sums = ", ".join(
            [
                "count(*)",
                f"sum(hash(({', '.join(columns)})))",
                *(f"sum(hash({column}))" for column in columns),
            ]
        )
        ours, theirs = (relation.aggregate(sums).fetchall()[0] for relation in (pipeline, hand))
    if ours[0] != theirs[0]:
        raise SystemExit(f"{name} has {ours[0]:,} rows, and {theirs[0]:,} by hand")
    if ours != theirs:
        pairs = zip(columns, ours[2:], theirs[2:], strict=True)
        differing = [column for column, our, their in pairs if our != their]
        raise SystemExit(f"{name} differs from the table by hand in {', '.join(differing or ['its rows'])}")
    return int(ours[0])


def share_of_who(found: Mapping[str, Mapping[str, float]], tables: list[str]) -> dict[str, Any]:
    """Return what a run of `tables` took for persons and their events, and which share of everything that is.

    Args:
        found: what it measured.
        tables: those that it made.
    """
    figures: dict[str, Any] = {}
    for key in ("seconds", "cpu_seconds"):
        parts = {
            "identity_ties": found["identity_ties"][key],
            "persons_in_sessions": max(0.0, found["persons"][key] - found["as_sent"][key]),
            "shopper_events": found["shopper_events"][key],
        }
        everything = found["identity_ties"][key] + sum(found[name][key] for name in tables)
        figures[key] = {name: round(value, 3) for name, value in parts.items()} | {
            "share": round(sum(parts.values()) / everything, 3)
        }
    return figures


def measure(
    folder: Path, events: int, engine: str, tables: list[str], runs: int, *, logins: bool
) -> dict[str, Any]:
    """Write a day and make its tables both ways; the figures are the runs' medians."""
    lake, by_hand = folder / "lake", folder / "by_hand"
    by_hand.mkdir(parents=True)
    # On DuckDB whatever the engine, as the files are the same.
    run("events", lake, "duckdb", str(lake), str(events), *(["--logins"] if logins else []))
    say(f"{events:,} events are written")
    of_pipeline, of_hand = [], []
    rows: dict[str, int] = {}
    for _ in range(runs):
        # What is there already would not be computed, or would have to be removed.
        for name in catalogue.TABLES.keys() - GIVEN:
            shutil.rmtree(lake / name, ignore_errors=True)
        of_pipeline.append(json.loads(run("tables", lake, engine, *tables))["tables"])
        say("the pipeline's tables are made")
        of_hand.append(json.loads(run("by_hand", lake, engine, str(by_hand), *tables))["tables"])
        say("the tables by hand are made")
        compared = [*tables, *(["customer_segment_days"] if "customer_segments" in tables else [])]
        rows = {name: compare(name, lake, by_hand) for name in compared}
    figures: dict[str, Any] = {}
    for name in tables:
        ours, theirs = (
            {key: statistics.median(one[name][key] for one in all_runs) for key in all_runs[0][name]}
            for all_runs in (of_pipeline, of_hand)
        )
        figures[name] = {"rows": rows[name], **ours, **{f"by_hand_{key}": theirs[key] for key in theirs}}
    figures["total"] = {
        key: round(sum(figures[name][key] for name in tables), 3)
        for key in ("seconds", "cpu_seconds", "by_hand_seconds", "by_hand_cpu_seconds")
    } | {key: max(figures[name][key] for name in tables) for key in ("peak_mb", "by_hand_peak_mb")}
    figures["total"]["start_mb"] = max(one["start"]["peak_mb"] for one in of_pipeline)
    for row in figures.values():
        row["times_by_hand"] = round(row["seconds"] / max(row["by_hand_seconds"], 0.001), 2)
        row["times_by_hand_cpu"] = round(row["cpu_seconds"] / max(row["by_hand_cpu_seconds"], 0.001), 2)
    for name, row in figures.items():
        say(
            f"{name:22}{row['seconds']:9.2f} s{row['cpu_seconds']:9.2f} s CPU{row['peak_mb']:7.0f} MB   by hand "
            f"{row['by_hand_seconds']:8.2f} s{row['by_hand_cpu_seconds']:8.2f} s CPU{row['by_hand_peak_mb']:7.0f} MB"
            f"{row['times_by_hand']:7.2f} times"
        )
    if {"sessions", "shopper_events"} <= set(tables):
        shares = [share_of_who(one, tables) for one in of_pipeline]
        figures["who"] = sorted(shares, key=lambda one: one["cpu_seconds"]["share"])[len(shares) // 2]
        say(f"who: {figures['who']}")
    return figures


def repair(folder: Path, engine: str, tables: list[str], whole: dict[str, Any]) -> dict[str, Any]:
    """Append an event to the measured day and bring the day up to date."""
    lake = folder / "lake"
    run("events", lake, "duckdb", str(lake), "late")
    found = json.loads(run("tables", lake, engine, "--late", *tables))
    made = {name: row for name, row in found["tables"].items() if name not in ("start", "identity_ties")}
    late: dict[str, Any] = {"days": found["days"], "tables": made}
    for key in ("seconds", "cpu_seconds"):
        late[key] = round(sum(row[key] for row in made.values()), 3)
        late[f"share_of_{key}"] = round(late[key] / whole["total"][key], 3)
    say(
        f"one late event: {late['seconds']} s for {', '.join(late['days'])}, "
        f"{late['share_of_seconds']} of the whole day's time"
    )
    return late


def main() -> None:
    """Measure what is asked for; print a JSON object last."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.day", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--engine", choices=("duckdb", "spark"), default="duckdb")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--tables", nargs="+", choices=ORDER, default=list(ORDER), metavar="TABLE")
    parser.add_argument("--logins", action="store_true", help="of visitors who log in, too")
    parser.add_argument("--scale", action="store_true", help="also for a tenth of the events")
    parser.add_argument(
        "--late", action="store_true", help="also bring the day up to date after a late event"
    )
    arguments = parser.parse_args()
    tables = [name for name in ORDER if name in arguments.tables]
    limit = load_settings().duckdb_memory_limit
    result: dict[str, Any] = {"engine": arguments.engine, "events": arguments.events, "memory_limit": limit}
    smaller: dict[str, Any] = {}
    if arguments.scale:
        with temporary_home() as folder:
            tenth = arguments.events // 10
            smaller = measure(
                folder, tenth, arguments.engine, tables, arguments.runs, logins=arguments.logins
            )
    with temporary_home() as folder:
        result["tables"] = measure(
            folder, arguments.events, arguments.engine, tables, arguments.runs, logins=arguments.logins
        )
        if arguments.late:
            result["late"] = repair(folder, arguments.engine, tables, result["tables"])
    if smaller:
        result["a_tenth"] = smaller
        result["times_for_ten_times_the_events"] = {
            name: round(row["seconds"] / smaller[name]["seconds"], 2)
            for name, row in result["tables"].items()
            if name != "who"
        }
        say(f"for ten times the events: {result['times_for_ten_times_the_events']}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
