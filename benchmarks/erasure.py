"""Erasure: what it costs to forget persons, by how many they are.

    python -m benchmarks.erasure --days 30 --persons 1,1000

The lake gets days of a million events, by copies of a simulated one, and all tables of them are made once. Then some of
the shoppers are erased: by the command, the job `erase`, a refresh of the days that have lost events, a training, and
the upkeep that deletes files; each is a process. There are seconds and peak memory of each; afterwards no table may
name them, or the run ends with what does.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.day.events import DAY
from benchmarks.growth import OF_A_DAY, job, open_lake, servers_of_days
from benchmarks.measure import run_measured, say
from clickstream_assets.catalogue import SHOPPER_EVENTS
from clickstream_assets.engine import functions_of
from clickstream_assets.ingest.erasure import rows_left
from clickstream_assets.stores.lake import Lake

_COMMAND = "from clickstream_assets.commands.app import app; app()"


def some_persons(lake: Lake, number: int) -> list[str]:
    """Return persons who did something on the first day, the first by their ids who are there still."""
    events = lake.read(SHOPPER_EVENTS, columns=("event_date", "user_id"), days=[DAY])
    F, _ = functions_of(events)
    ids = events.select("user_id").distinct().orderBy(F.col("user_id")).limit(number)
    found: list[str] = lake.engine.to_arrow(ids)["user_id"].to_pylist()
    return found


def erased(home: Path, number: int) -> dict[str, Any]:
    """Erase persons, all the way."""
    persons = some_persons(open_lake(), number)
    file = home / "persons.txt"
    file.write_text("\n".join(persons))
    start = time.perf_counter()
    command = run_measured(["-c", _COMMAND, "erase", "--file", str(file)])
    command["seconds"] = round(time.perf_counter() - start, 1)
    say(f"  {number:,} persons asked to be erased: {command}")
    found: dict[str, Any] = {"command": command, "erase": job("erase")}
    found["refresh"] = job("refresh", found["erase"]["dirty_days"])
    found["days"] = len(found["erase"]["dirty_days"])
    found["train"] = job("train")
    found["upkeep"] = job("upkeep")
    left = rows_left(open_lake(), persons)
    if left:
        raise SystemExit(f"{number:,} persons are erased, and still there: {left}")
    return found


def main() -> None:
    """Fill a lake, and erase; print a JSON object last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--of-a-day", type=int, default=OF_A_DAY, help="Events of a day.")
    parser.add_argument("--persons", default="1,1000", help="How many are erased, one group after the other.")
    arguments = parser.parse_args()
    every = [(DAY + timedelta(days=number)).isoformat() for number in range(arguments.days)]
    with servers_of_days() as home:
        filled = run_measured(
            ["-m", "benchmarks.growth", "--fill", str(arguments.days), str(arguments.of_a_day)]
        )
        say(f"{arguments.days} days of {arguments.of_a_day:,} events are written: {filled}")
        whole = {"ingest": job("ingest"), "refresh": job("refresh", every), "train": job("train")}
        persons = {int(number): erased(home, int(number)) for number in arguments.persons.split(",")}
    print(json.dumps({"days": arguments.days, "whole": whole, "persons": persons}))


if __name__ == "__main__":
    main()
