"""Costs of the pages for a worker of the API: its memory, its start, and the time of *Today* on a year of a shop.

    python -m benchmarks.pages

PostgreSQL serves a year of days and of hours, with a visit in each. A worker that has rendered every page is compared
with one that has answered, over HTTP's routes alone, all that these pages ask the API for; and what is imported for
the pages is weighed where all else of the API is imported already. Each is a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import statistics
import sys
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psutil
import pyarrow as pa

from benchmarks.measure import run_python, servers

PAGES = "clickstream_assets.api.pages"
DAYS = 365
ROUNDS, TIMES = 4, 30


def addresses(last: date) -> list[str]:
    """Return the pages, some over all of the year that ends on `last`."""
    year = f"since={last - timedelta(days=DAYS - 1)}&until={last}"
    return [
        "/",
        "/?part=live",
        f"/trends?{year}",
        "/funnel",
        f"/products?{year}",
        "/customers",
        "/recommendations?person=user_1",
        f"/reports?{year}",
        "/data",
    ]


def publish(last: date) -> None:
    """Publish a year of days and of hours, until `last`."""
    from clickstream_assets.catalogue import DAILY_SUMMARY, HOURLY_SUMMARY
    from clickstream_assets.settings import load_settings
    from clickstream_assets.stores.postgres.publishing import publication

    counts = {"total_events": 60, "users": 9, "sessions": 9, "converted_sessions": 1}
    counts |= {"views": 40, "add_to_carts": 4, "purchases": 2, "orders": 1}
    money = {"revenue": Decimal("99.5"), "refunds": Decimal("9.5"), "net_revenue": Decimal(90)}
    of_day = {
        "buyer_count": 1,
        "window_shopper_count": 8,
        "buyer_rate": Decimal("11.11"),
        "bounced_sessions": 3,
        "bounce_rate": Decimal("33.33"),
        "average_order_value": Decimal("99.5"),
        "bot_events": 2,
        "bot_sessions": 1,
        "currencies": ["EUR"],
        "currency": "EUR",
        "unconverted": 0,
    }
    rate = {"conversion_rate": Decimal("11.11")}
    days = [last - timedelta(days=number) for number in range(DAYS)]
    hours: list[dict[str, Any]] = [
        {"report_date": day, "hour_start": datetime(day.year, day.month, day.day, hour, tzinfo=UTC)}
        for day in days
        for hour in range(24)
    ]
    rows = {
        DAILY_SUMMARY: [{"report_date": day} | counts | money | rate | of_day for day in days],
        HOURLY_SUMMARY: [hour | counts | money | rate for hour in hours],
    }
    with publication(load_settings()) as transaction:
        for table, its_rows in rows.items():
            transaction.publish(table, [pa.RecordBatch.from_pylist(its_rows, schema=table.arrow)])


def memory() -> int:
    """Return the memory of this process alone, in bytes, without what nobody holds any more."""
    gc.collect()
    return psutil.Process().memory_full_info().uss


def imported() -> dict[str, float]:
    """Import the API, the pages last; return the memory and time that they take."""
    for name in json.loads(os.environ["OTHERS"]):
        importlib.import_module(name)
    before, started = memory(), time.perf_counter()
    importlib.import_module("clickstream_assets.api.app")
    assert PAGES in sys.modules
    return {
        "import_mb": round((memory() - before) / 1e6, 1),
        "import_seconds": round(time.perf_counter() - started, 3),
    }


def other_modules() -> list[str]:
    """Return the modules of the API, in the order of their import, that bring no page with them."""
    importlib.import_module("clickstream_assets.api.app")
    names = [name for name in sys.modules if not name.startswith(("__", PAGES, "babel"))]
    code = "import importlib, sys\nfor name in sys.argv[2:]: importlib.import_module(name)\n"
    code += "print(int(sys.argv[1] in sys.modules))"
    ours = [name for name in names if name.startswith("clickstream_assets.api")]
    without = {name for name in ours if run_python(["-c", code, PAGES, name]) == "0"}
    return [name for name in names if name not in ours or name in without]


def worker(kind: str) -> dict[str, Any]:
    """Answer as a worker does, again and again; return its memory, and the median time of *Today*.

    Args:
        kind: `pages`, or `api` for what the pages ask the API for.
    """
    from clickstream_assets.api.app import create_app
    from clickstream_assets.settings import load_settings

    client = create_app(load_settings()).test_client()
    asked = addresses(date.fromisoformat(os.environ["LAST"]))
    if kind == "api":
        asked = json.loads(os.environ["ASKED"])
    for _ in range(ROUNDS):
        for address in asked:
            assert client.get(address).data
    found: dict[str, Any] = {"mb": round(memory() / 1e6, 1)}
    if kind == "pages":
        found["today_ms"] = milliseconds(client, "/")
        found["live_part_ms"] = milliseconds(client, "/?part=live")
    return found


def milliseconds(client: Any, address: str) -> float:
    """Return the median time of an answer."""
    times = []
    for _ in range(TIMES):
        started = time.perf_counter()
        assert client.get(address).status_code == 200
        times.append(1000 * (time.perf_counter() - started))
    return round(statistics.median(times), 1)


def asked_by_pages() -> list[str]:
    """Return the addresses that all pages ask the API for."""
    from clickstream_assets.api.app import create_app
    from clickstream_assets.api.pages.source import Answer, Source
    from clickstream_assets.settings import load_settings

    found: list[str] = []
    get = Source.get

    def noted(source: Source, path: str, **parameters: Any) -> Answer:
        answer = get(source, path, **parameters)
        found.append(answer.address)
        return answer

    setattr(Source, "get", noted)  # noqa: B010 - what a type checker would refuse
    client = create_app(load_settings()).test_client()
    for address in addresses(date.fromisoformat(os.environ["LAST"])):
        assert client.get(address).data
    return found


def main() -> None:
    """Print what the pages cost as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--part", choices=("others", "imported", "asked", "api", "pages"), help=argparse.SUPPRESS
    )
    part = parser.parse_args().part
    parts = {"others": other_modules, "imported": imported, "asked": asked_by_pages}
    if part:
        print(json.dumps(parts[part]() if part in parts else worker(part)))
        return

    def run(name: str, **settings: str) -> Any:
        return json.loads(run_python(["-m", "benchmarks.pages", "--part", name], settings))

    last = datetime.now(UTC).date()
    with servers():
        publish(last)
        found = run("imported", OTHERS=json.dumps(run("others")))
        asked = run("asked", LAST=last.isoformat())
        api = run("api", LAST=last.isoformat(), ASKED=json.dumps(asked))
        pages = run("pages", LAST=last.isoformat())
    rendered = round(pages["mb"] - api["mb"], 1)
    print(
        json.dumps(
            found
            | {"requests": len(asked), "api_worker_mb": api["mb"], "pages_worker_mb": pages["mb"]}
            | {"rendering_mb": rendered, "pages_mb": round(rendered + found["import_mb"], 1)}
            | {name: pages[name] for name in ("today_ms", "live_part_ms")}
        )
    )


if __name__ == "__main__":
    main()
