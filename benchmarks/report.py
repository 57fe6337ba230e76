"""A day's buyers, most viewed products and conversion by category: from the lake, and by a plain loop over its lines.

    python -m benchmarks.report --events 1000000

Simulated events of one day are written as JSON lines and into the lake. Each way then runs in processes of its own,
and all must find the same. Memory is the process's peak resident set, and what of it comes on top of the imports and
the engine's start, which a process that computes many tables pays once; time is without these.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.measure import run_python, say, temporary_home

DAY = date(2024, 5, 1)
TOP = 5


def peak_mb() -> float:
    """Return the most memory that this process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_day(folder: Path, count: int) -> None:
    """Simulate a day's events into `lines.jsonl` and, with its sessions and shoppers' events, into the lake."""
    from benchmarks.day.events import BATCH_RECORDS, parsed
    from clickstream_assets.analytics.persons import shopper_events
    from clickstream_assets.analytics.sessions import sessions
    from clickstream_assets.catalogue import EVENTS, SESSIONS, SHOPPER_EVENTS
    from clickstream_assets.engine import DuckDBEngine
    from clickstream_assets.settings import load_settings
    from clickstream_assets.simulator.stream import RecordStream
    from clickstream_assets.simulator.traffic import Traffic
    from clickstream_assets.stores.lake import Lake

    settings = load_settings()
    start = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC)
    traffic = Traffic(users=100_000, products=5_000, seed=1, start=start, events=count)
    # The plain events of older simulators: the shortest lines, so the loop at its best.
    values = [record.value for record in RecordStream(traffic, plain=True) if record.day == DAY]
    (folder / "lines.jsonl").write_bytes(b"\n".join(values) + b"\n")
    events = parsed(values)
    assert events.num_rows == len(values)
    engine = DuckDBEngine(settings)
    lake = Lake(str(folder / "lake"), engine)
    # In batches, as the ingest brings them in.
    for batch, first in enumerate(range(0, len(values), BATCH_RECORDS), start=1):
        part = engine.from_arrow(events.slice(first, BATCH_RECORDS))
        lake.append_batch(EVENTS, part, batch)
        engine.release(part)
    gap = timedelta(minutes=settings.session_gap_minutes)
    visits = sessions(lake.read(EVENTS), DAY, DAY, gap, settings.bot_views_per_minute)
    lake.replace(SESSIONS, visits, days=(DAY, DAY))
    # Each event of the simulator's has a user id, which is its person.
    shoppers = shopper_events(lake.read(EVENTS), lake.read(SESSIONS), DAY, DAY)
    lake.replace(SHOPPER_EVENTS, shoppers, days=(DAY, DAY))


def by_loop(folder: Path) -> dict[str, Any]:
    """Read all lines, then go through them in Python."""
    with (folder / "lines.jsonl").open() as lines:
        events = [json.loads(line) for line in lines]
    kinds = defaultdict(set)
    views: Counter[str] = Counter()
    by_category: dict[str, Counter[str]] = defaultdict(Counter)
    for event in events:
        kind = event["event_type"]
        kinds[event["user_id"]].add(kind)
        if kind == "view":
            views[event["product_id"]] += 1
        if kind in ("view", "purchase"):
            by_category[event.get("product_category") or "unknown"][kind] += 1
    buyers = sum(1 for of_user in kinds.values() if "purchase" in of_user)
    return {
        "events": len(events),
        "buyers": buyers,
        "window_shoppers": len(kinds) - buyers,
        "top": [list(item) for item in sorted(views.items(), key=lambda item: (-item[1], item[0]))[:TOP]],
        "categories": {name: [c["view"], c["purchase"]] for name, c in sorted(by_category.items())},
    }


def _lake(folder: Path) -> Any:
    from clickstream_assets.engine import DuckDBEngine
    from clickstream_assets.settings import load_settings
    from clickstream_assets.stores.lake import Lake

    return Lake(str(folder / "lake"), DuckDBEngine(load_settings()))


def _persons(lake: Any) -> Any:
    from clickstream_assets.catalogue import SHOPPER_EVENTS

    return lake.read(SHOPPER_EVENTS)


def _warm_up(folder: Path) -> None:
    """Start what a process starts once: the engine's own start, and late imports, are not the day's."""
    import pyarrow as pa
    import pyarrow.compute

    from clickstream_assets.analytics.products import product_performance  # noqa: F401
    from clickstream_assets.analytics.segments import user_segments  # noqa: F401
    from clickstream_assets.catalogue import SESSIONS

    lake = _lake(folder)
    lake.engine.to_arrow(lake.engine.from_arrow(pa.table({"warm": [1]})))
    lake.snapshot(SESSIONS)


def by_lake(folder: Path) -> dict[str, Any]:
    """Compute the loop's figures, and no more, from the lake, in the pipeline's DataFrame API."""
    import pyarrow.compute as pc

    from clickstream_assets.analytics.measures import count_of
    from clickstream_assets.engine import functions_of

    lake = _lake(folder)
    persons = _persons(lake)
    F, _ = functions_of(persons)

    by_user = lake.engine.to_arrow(
        persons.groupBy("user_id").agg(
            F.count(F.lit(1)).alias("events"), count_of(F, "purchase").alias("purchases")
        )
    )
    buyers = pc.sum(pc.greater(by_user["purchases"], 0)).as_py()
    views = lake.engine.to_arrow(
        persons.where(F.col("event_type") == "view")
        .groupBy("product_id")
        .agg(F.count(F.lit(1)).alias("views"))
    ).sort_by([("views", "descending"), ("product_id", "ascending")])
    categories = lake.engine.to_arrow(
        persons.groupBy("product_category").agg(
            count_of(F, "view").alias("views"), count_of(F, "purchase").alias("purchases")
        )
    ).sort_by("product_category")
    return {
        "events": pc.sum(by_user["events"]).as_py(),
        "buyers": buyers,
        "window_shoppers": by_user.num_rows - buyers,
        "top": [[row["product_id"], row["views"]] for row in views.slice(0, TOP).to_pylist()],
        "categories": {
            row["product_category"]: [row["views"], row["purchases"]] for row in categories.to_pylist()
        },
    }


def by_tables(folder: Path) -> dict[str, Any]:
    """Compute the pipeline's tables, which hold more than these figures, and write nothing."""
    from clickstream_assets.analytics.products import category_conversion, product_performance
    from clickstream_assets.analytics.segments import user_segments

    lake = _lake(folder)
    persons = _persons(lake)
    segments = lake.engine.to_arrow(user_segments(persons)).select(["segment", "events"])
    products = lake.engine.to_arrow(product_performance(persons)).sort_by("rank")
    categories = lake.engine.to_arrow(category_conversion(persons)).sort_by("category")
    counts = Counter(segments["segment"].to_pylist())
    return {
        "events": sum(segments["events"].to_pylist()),
        "buyers": counts["buyer"],
        "window_shoppers": counts["window_shopper"],
        "top": [[row["product_id"], row["view_count"]] for row in products.slice(0, TOP).to_pylist()],
        "categories": {row["category"]: [row["views"], row["purchases"]] for row in categories.to_pylist()},
    }


WAYS = {"loop": by_loop, "lake": by_lake, "tables": by_tables}


def measured(way: str, folder: Path) -> None:
    """Run one way in this process; print its figures, times and memory."""
    if way != "loop":
        _warm_up(folder)
    before = peak_mb()
    start, cpu = time.perf_counter(), time.process_time()
    result = WAYS[way](folder)
    figures = {
        "seconds": round(time.perf_counter() - start, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "peak_mb": round(peak_mb()),
        "peak_above_start_mb": round(peak_mb() - before),
    }
    print(json.dumps({**figures, "result": result}))


def main() -> None:
    """Write the day, then measure each way a few times and take the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--measured", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measured:
        measured(arguments.measured, arguments.folder)
        return
    with temporary_home() as folder:
        # In a process of its own, so that what it took is not inherited by those that are measured.
        writing = f"from benchmarks.report import *; write_day(Path({str(folder)!r}), {arguments.events})"
        run_python(["-c", writing])
        say("the day is written")
        figures: dict[str, Any] = {}
        results = []
        for way in WAYS:
            runs = [_run(way, folder) for _ in range(arguments.runs)]
            results += [run.pop("result") for run in runs]
            figures[way] = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            say(f"{way}: {figures[way]}")
    if any(result != results[0] for result in results):
        raise SystemExit("the ways found different figures")
    loop = figures["loop"]
    for way in ("lake", "tables"):
        figures[way]["times_as_fast"] = round(loop["seconds"] / figures[way]["seconds"], 1)
        figures[way]["share_of_memory"] = round(figures[way]["peak_mb"] / loop["peak_mb"], 3)
        above = figures[way]["peak_above_start_mb"] / loop["peak_above_start_mb"]
        figures[way]["share_of_memory_above_start"] = round(above, 3)
    print(json.dumps({"events": arguments.events, **figures}))


def _run(way: str, folder: Path) -> dict[str, Any]:
    return json.loads(run_python(["-m", "benchmarks.report", "--measured", way, "--folder", str(folder)]))


if __name__ == "__main__":
    main()
