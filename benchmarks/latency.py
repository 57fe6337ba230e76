"""From produce to published: new events with everything up, brought in and served by the sensors.

    python -m benchmarks.latency --rounds 5 --events 1000

A round's tables are published when PostgreSQL's last one of days holds all that was sent, and its recommendations when
those were trained on all of it; it is over when every other table has come along too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import ExitStack

from benchmarks.measure import temporary_home
from clickstream_assets.local.demo import Demo


def main() -> None:
    """Start everything, then send events round by round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--before", type=int, default=20_000, help="Events that are there at the start.")
    arguments = parser.parse_args()
    figures: dict[str, list[float]] = {"tables": [], "recommendations": [], "everything": []}
    with temporary_home() as home, ExitStack() as stack:
        run = Demo(home, True, stack, time.monotonic())
        sent, _ = run.feed(None, arguments.before, 0.01, seed=1)
        run.start_readers()
        run.wait(sent, 300)
        for number in range(arguments.rounds):
            start = time.monotonic()
            more, _ = run.feed(None, arguments.events, 0.01, seed=100 + number)
            sent += more
            for name, are_new in (
                ("tables", run.are_tables_new),
                ("recommendations", run.are_recommendations_new),
            ):
                while not are_new(sent):
                    time.sleep(0.1)
                figures[name].append(round(time.monotonic() - start, 1))
            run.wait(sent, 300)
            figures["everything"].append(round(time.monotonic() - start, 1))
    medians = {name: statistics.median(seconds) for name, seconds in figures.items()}
    print(json.dumps({"events": arguments.events, "median_seconds": medians, "seconds": figures}))


if __name__ == "__main__":
    main()
