"""Ingest: from Kafka to `events`, deduplicated against what is there; time and peak memory.

    python -m benchmarks.ingest --events 5000000 --engine duckdb spark
    python -m benchmarks.ingest --events 600000 --dialect own segment ga4 shopify snowplow snowplow_tsv
    python -m benchmarks.ingest --events 200000 --pseudonyms

Simulated events are made and sent first, which gives the simulator's own rate. Each engine then brings all of them into
a lake of its own. With dialects, it is one made-up shop as each tracker writes it, on a topic each; what is counted are
events, of which a record of several products has several. With pseudonyms, the same records come in by them too.

A batch takes about a second of one core whatever is in it, for its queries' plans and its commits; so 75,000 records in
a half measure that as much as the dialect. Of 600,000 events a half is one large batch, and the rate is the dialect's.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import run_measured, say, servers
from clickstream_assets_tests.ingest.dialects import writers


def ingest() -> None:
    """Land and classify all records, in a process of its own; print what that took."""
    from clickstream_assets.defs.resources import ComputeResource, SettingsResource
    from clickstream_assets.ingest.classification import classify_records, land_records
    from clickstream_assets.ingest.fields import ValidationRules
    from clickstream_assets.settings import load_settings
    from clickstream_assets.stores.kafka.topic import Topics
    from clickstream_assets.stores.lake import Lake
    from clickstream_assets.stores.postgres.pseudonyms import pseudonyms_of

    settings = load_settings()
    engine = ComputeResource(settings=SettingsResource()).engine()
    # The engine's own start is not what is measured; a warm one is what an always-on Spark server gives.
    import pyarrow as pa

    engine.to_arrow(engine.from_arrow(pa.table({"warm": [1]})))
    lake = Lake(settings.lake, engine)
    result = {}
    # Two halves, the second against what the first left: what sustained means.
    for part in ("first_half", "second_half"):
        start = time.perf_counter()
        half = settings.model_copy(update={"ingest_run_records": int(os.environ["BENCHMARK_HALF"])})
        landing = land_records(lake, Topics(settings), half)
        landed = time.perf_counter()
        names = partial(pseudonyms_of, settings)
        counts = classify_records(lake, ValidationRules.of(settings), names)
        done = time.perf_counter()
        result[part] = {
            "records": landing.records,
            "land_seconds": round(landed - start, 2),
            "classify_seconds": round(done - landed, 2),
            "records_per_second": round(landing.records / (done - start)),
            "events_per_second": round(counts.total() / (done - start)),
            "counts": dict(counts),
        }
    print(json.dumps(result))


def main() -> None:
    """Send events, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--engine", nargs="+", choices=("duckdb", "spark"), default=["duckdb"])
    parser.add_argument("--dialect", nargs="+", choices=("own", *writers.WRITERS), default=[])
    parser.add_argument("--pseudonyms", action="store_true")
    parser.add_argument("--measured", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measured:
        ingest()
        return
    with servers() as home:
        result = (
            {dialect: of_dialect(home, dialect, arguments) for dialect in arguments.dialect}
            if arguments.dialect
            else of_simulated(home, arguments)
        )
    print(json.dumps(result))


def of_simulated(home: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Send simulated events, with faults, and bring them in."""
    from clickstream_assets.settings import load_settings
    from clickstream_assets.simulator.run import SimulationOptions, run_simulation
    from clickstream_assets.simulator.stream import Faults

    faults = Faults(late=0.01, duplicate=0.01, conflicting=0.01, malformed=0.01)
    options = SimulationOptions(
        events=arguments.events,
        seed=1,
        users=100_000,
        products=5_000,
        days=30,
        faults=faults,
        files=False,
    )
    start = time.perf_counter()
    made = run_simulation(load_settings(), options)
    seconds = time.perf_counter() - start
    say(f"sent {made.sent:,} records in {seconds:.0f} s")
    result = {"sent": made.sent, "sent_per_second": round(made.sent / seconds)}
    return result | by_engine(home, made.sent, arguments)


def of_dialect(home: Path, dialect: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Send a made-up shop's records in a dialect, and bring them in."""
    from clickstream_assets.settings import load_settings
    from clickstream_assets.stores.kafka.producer import KafkaSink

    os.environ["KAFKA_TOPIC"] = f"benchmark-{dialect}"
    write = writers.WRITERS.get(dialect, writers.own)
    unsaid, _ = writers.CANNOT_SAY[dialect.partition("_")[0]]
    sent = 0
    with KafkaSink(load_settings()) as topic:
        for happened in writers.happenings(1, arguments.events):
            if happened["event_type"] in unsaid:
                continue
            topic.send(happened["anonymous_id"].encode(), write(happened))
            sent += 1
    say(f"sent {sent:,} records as {dialect}")
    return {"sent": sent} | by_engine(home / dialect, sent, arguments)


def by_engine(home: Path, sent: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure each engine with a lake of its own in `home`; with pseudonyms, with another of these."""
    result = {}
    for engine in arguments.engine:
        for pseudonyms in (False, True)[: 1 + arguments.pseudonyms]:
            name = f"{engine} with pseudonyms" if pseudonyms else engine
            os.environ |= {
                "COMPUTE_ENGINE": engine,
                "LAKE_PATH": str(home / name.replace(" ", "_")),
                "PSEUDONYMS": str(pseudonyms),
                "BENCHMARK_HALF": str(sent // 2 + 1),
            }
            result[name] = run_measured(["-m", "benchmarks.ingest", "--measured"])
            say(f"{name}: {result[name]}")
    return result


if __name__ == "__main__":
    main()
