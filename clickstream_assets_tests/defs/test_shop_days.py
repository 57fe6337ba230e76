"""A shop in Berlin on the days on which its clocks change: its tables, its partitions and its report's hour."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from clickstream_assets.catalogue import EVENTS
from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.engine import Engine, SparkEngine
from clickstream_assets.ingest.event_frames import load_events
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.ingest.money import update_money
from clickstream_assets.settings import Settings
from clickstream_assets.simulator.stream import Faults, RecordStream
from clickstream_assets.simulator.traffic import Traffic
from clickstream_assets.stores.lake import Lake, conform
from clickstream_assets_tests.proofs.recomputation import Recomputation
from clickstream_assets_tests.proofs.shop import DAILY_TABLES
from clickstream_assets_tests.proofs.test_month import raw

ZONE = "Europe/Berlin"
TABLES = (
    dg.AssetSelection.groups("sessions", "segments", "reports")
    # Who refuses to be profiled.
    | dg.AssetSelection.assets("interaction_days")
) - dg.AssetSelection.assets("report_mail")
SPRING, AUTUMN = date(2024, 3, 31), date(2024, 10, 27)


def lines(day: date) -> list[bytes]:
    """Four days of shoppers around a day: among them one who stays for days, and some who stay over midnight."""
    start = datetime.combine(day - timedelta(days=1), datetime.min.time(), UTC) - timedelta(hours=2)
    traffic = Traffic(
        users=60, products=25, seed=day.month, start=start, events=2_500, seconds=4 * 86_400.0, bots=0.02
    )

    def event(number: int, user: str, at: datetime, kind: str) -> bytes:
        return json.dumps(
            {
                "event_id": f"{user} {number}",
                "event_type": kind,
                "user_id": user,
                "product_id": "p1",
                "price": "2.50",
                "currency": "EUR",
                "timestamp": at.isoformat(),
            }
        ).encode()

    endless = [event(n, "endless", start + timedelta(minutes=20 * n), "view") for n in range(3 * 72 + 10)]
    # Over each midnight of the shop: an order soon after it belongs to a view before it.
    midnights = [ShopClock(ZONE).begin(day + timedelta(days=offset)) for offset in (-1, 0, 1, 2)]
    owls = [
        event(3 * number + step, f"owl{number}", midnight + timedelta(minutes=minutes), kind)
        for number, midnight in enumerate(midnights)
        for step, (minutes, kind) in enumerate(((-10, "view"), (-3, "add_to_cart"), (8, "purchase")))
    ]
    return [*(record.value for record in RecordStream(traffic, Faults())), *endless, *owls]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "day", "hours"),
    [
        ("duckdb", SPRING, 23),
        pytest.param("duckdb", AUTUMN, 25, marks=pytest.mark.long),
        pytest.param("spark", AUTUMN, 25, marks=pytest.mark.long),
    ],
    indirect=["engine"],
)
def test_every_daily_table_over_a_change_of_clocks_equals_sql(
    engine: Engine,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    day: date,
    hours: int,
):
    monkeypatch.setenv("SHOP_TIME_ZONE", ZONE)
    monkeypatch.setenv("LAKE_PATH", str(tmp_path / "lake"))
    monkeypatch.setenv("COMPUTE_ENGINE", engine.name)
    if isinstance(engine, SparkEngine):
        # Started first, so that the run joins it: a process has one.
        assert engine.session
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"".join(line + b"\n" for line in lines(day)))
    rules = ValidationRules.of(Settings(_env_file=None))
    lake = Lake(str(tmp_path / "lake"), engine)
    lake.replace(EVENTS, load_events(engine, file, rules).events)
    update_money(lake, 0, Settings(_env_file=None, shop_currency="EUR"))
    days = sorted(lake.snapshot(EVENTS).rows_by("event_date"))
    definitions.resolve_job_def("refresh").execute_in_process(
        instance=instance,
        asset_selection=list(TABLES.resolve(definitions.resolve_asset_graph())),
        tags={
            "dagster/asset_partition_range_start": str(days[0]),
            "dagster/asset_partition_range_end": str(days[-1]),
        },
    )
    made = {table.name: conform(engine.to_arrow(lake.read(table)), table) for table in DAILY_TABLES}
    recomputation = Recomputation(raw(file), days[0], days[-1], ZONE)
    assert recomputation.differences(made) == {}

    # It is about what it should be about.
    ((length,),) = recomputation.query(
        f"SELECT epoch(DATE '{day + timedelta(days=1)}'::TIMESTAMPTZ) - epoch(DATE '{day}'::TIMESTAMPTZ)"
    )
    assert length == hours * 3600
    elsewhere = Recomputation(raw(file), days[0], days[-1]).differences(made)
    assert {"sessions", "daily_summary", "funnel", "cart_days", "customer_segments", "daily_report"} <= set(
        elsewhere
    )
    ((over_midnight, cut),) = recomputation.query(
        "SELECT count(*) FILTER (end_time::DATE > session_date), count(*) FILTER (user_id = 'endless') "
        "FROM expected.sessions"
    )
    assert over_midnight >= 4
    assert cut >= 3


SEEN = """
import json
from datetime import datetime
import dagster as dg
from clickstream_assets.definitions import defs
from clickstream_assets.defs.partitions import SESSIONS_BEFORE, daily
from clickstream_assets_tests.dagster_private import schedule_execution_time_iterator

repository = defs().get_repository_def()
schedule = repository.get_schedule_def("morning_report")
days = daily()
found = {"zone": schedule.execution_timezone, "windows": {}, "reports": {}, "upstream": {}}
for day in ("2024-03-30", "2024-03-31", "2024-10-27", "2024-10-28"):
    window = days.time_window_for_partition_key(day)
    found["windows"][day] = (window.end.timestamp() - window.start.timestamp()) / 3600
    mapped = SESSIONS_BEFORE.partition_mapping.get_upstream_mapped_partitions_result_for_partitions(
        days.empty_subset().with_partition_keys([day]), days, days
    )
    found["upstream"][day] = sorted(mapped.partitions_subset.get_partition_keys())
    since = datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp()
    at = next(schedule_execution_time_iterator(since, schedule.cron_schedule, schedule.execution_timezone))
    context = dg.build_schedule_context(scheduled_execution_time=at, repository_def=repository)
    found["reports"][str(at)] = schedule.evaluate_tick(context).run_requests[0].partition_key
print(json.dumps(found))
"""


@pytest.mark.slow
def test_partitions_and_the_report_follow_the_shops_clock(tmp_path: Path):
    env = {**os.environ, "SHOP_TIME_ZONE": ZONE, "LAKE_PATH": str(tmp_path), "DAGSTER_HOME": str(tmp_path)}
    seen: Any = json.loads(
        subprocess.run(
            [sys.executable, "-c", SEEN], env=env, check=True, capture_output=True, text=True
        ).stdout
    )
    assert seen == {
        "zone": ZONE,
        "windows": {"2024-03-30": 24, "2024-03-31": 23, "2024-10-27": 25, "2024-10-28": 24},
        # Two o'clock is passed over on 31 March, and comes twice on 27 October.
        "reports": {
            "2024-03-30 02:00:00+01:00": "2024-03-29",
            "2024-03-31 03:00:00+02:00": "2024-03-30",
            "2024-10-27 02:00:00+01:00": "2024-10-26",
            "2024-10-28 02:00:00+01:00": "2024-10-27",
        },
        "upstream": {
            "2024-03-30": ["2024-03-28", "2024-03-29", "2024-03-30"],
            "2024-03-31": ["2024-03-29", "2024-03-30", "2024-03-31"],
            "2024-10-27": ["2024-10-25", "2024-10-26", "2024-10-27"],
            "2024-10-28": ["2024-10-26", "2024-10-27", "2024-10-28"],
        },
    }
