"""A simulated month: in one run, day by day, and late, repeated and shuffled."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import dagster as dg
import pytest

from clickstream_assets.ingest.replay import run_replay
from clickstream_assets.local.stack import Stack
from clickstream_assets.settings import Settings
from clickstream_assets.simulator.habits import USUAL
from clickstream_assets.simulator.run import SimulationOptions, plan_traffic
from clickstream_assets.simulator.stream import Faults, Record, RecordStream
from clickstream_assets_tests.proofs.recomputation import (
    Recomputation,
    differences_between,
    served_differences,
)
from clickstream_assets_tests.proofs.shop import SERVED_BY_DAY, Tables, running_pipeline
from clickstream_assets_tests.proofs.simulated import raw

pytestmark = pytest.mark.long

FIRST, LAST = date(2024, 5, 1), date(2024, 5, 31)
DAYS = [FIRST + timedelta(days=number) for number in range(31)]
OPTIONS = SimulationOptions(
    events=4_000,
    seed=5,
    start=datetime(2024, 5, 1, tzinfo=UTC),
    days=30.9,
    users=60,
    products=40,
    bots=0.02,
    habits=replace(USUAL, anonymous=0.8, second_device=0.4, shared_device=0.2, refunds=0.15, unit_rows=0.3),
    kafka=False,
)
FAULTS = Faults(late=0.01, duplicate=0.01, conflicting=0.01, malformed=0.01)
# Of the events in any order: most, some more, and a few that come long after the others.
PARTS = (0.6, 0.385, 0.015)
# What is of all days is made with the first and with the last of them.
EACH_DAY = [dg.AssetKey(table.name) for table in SERVED_BY_DAY] + [dg.AssetKey("published_days")]


def event(moment: str, user: str, kind: str, product: str = "p1", **more: Any) -> bytes:
    """Return an event as a shop sends it; `moment` is like `05-01 10:00:00`, in 2024 and UTC."""
    return json.dumps(
        {
            "event_id": f"{user} {moment} {product} {kind}",
            "event_type": kind,
            "user_id": user,
            "product_id": product,
            "timestamp": f"2024-{moment.replace(' ', 'T')}Z",
            **more,
        }
    ).encode()


# What no simulated shopper does.
EXTRA = [
    # A session without end, of a robot with no name.
    *(
        event(f"05-{7 + minutes // 1440:02} {minutes // 60 % 24:02}:{minutes % 60:02}:00", "endless", "view")
        for minutes in range(600, 4200, 25)
    ),
    # A visit across midnight, whose purchase is in the funnel of the day before; orders without an id.
    event("05-11 23:45:00", "owl", "view", product_category="night"),
    event("05-11 23:50:00", "owl", "add_to_cart", product_category="night", price="4.00", currency="EUR"),
    event("05-12 00:05:00", "owl", "purchase", product_category="night", price="4.00"),
    event("05-12 00:05:30", "owl", "purchase", "p2", price="1.25", quantity=4),
    # A cart that is given up, taken up, and given up again; one that is older than a cart can be.
    event("05-02 10:00:00", "bat", "remove_from_cart", "p3"),
    event("05-02 10:01:00", "bat", "add_to_cart", "p3", price="2.50", quantity=3),
    event("05-04 11:00:00", "bat", "remove_from_cart", "p3", quantity=2),
    event("05-04 11:00:00", "bat", "add_to_cart", "p4"),
    event("05-08 10:00:00", "bat", "purchase", "p5", price="9.00"),
    event("05-01 00:10:00", "elk", "add_to_cart", price="7.00"),
    event("05-31 00:20:00", "elk", "add_to_cart", "p2", price="8.00"),
    # Two campaigns of one visit, and an order a week after them.
    event("05-13 09:00:00", "fox", "view", campaign="mail"),
    event("05-13 09:05:00", "fox", "view", campaign="search"),
    event("05-13 09:06:00", "fox", "view", campaign="search"),
    event("05-13 09:07:00", "fox", "view", campaign="mail"),
    event("05-20 09:00:00", "fox", "purchase", price="10.00", order_id="fox-1"),
    event("05-20 09:01:00", "fox", "purchase", "p2", price="0.01", order_id="fox-1"),
    # A guest's order whose page is loaded again after the login, and then of the user alone, which tells nobody.
    *(
        event(f"05-15 10:{minute:02}:00", "elf", "purchase", price="20.00", order_id="elf-1", **more)
        for minute, more in (
            (0, {"event_id": "elf", "user_id": None, "anonymous_id": "phone"}),
            (5, {"event_id": "elf-reload", "anonymous_id": "phone"}),
            (10, {}),
        )
    ),
    event("05-15 10:04:00", "elf", "view", anonymous_id="phone"),
]


def lines(values: Iterable[bytes], file: Path) -> Path:
    """Write these lines into the file, and return it."""
    file.write_bytes(b"".join(value + b"\n" for value in values))
    return file


@dataclass(frozen=True)
class Month:
    """The month as it should come in, and its tables of one run and of a run for each day."""

    file: Path
    at_once: Tables
    day_by_day: Tables


@pytest.fixture(scope="module")
def month(stack: Stack, servers: Settings, tmp_path_factory: pytest.TempPathFactory) -> Month:
    folder = tmp_path_factory.mktemp("month")
    with running_pipeline(stack, servers, folder) as pipeline:
        made = RecordStream(plan_traffic(pipeline.settings, OPTIONS))
        values = [*(record.value for record in made), *EXTRA]
        file = lines(sorted(values, key=lambda value: json.loads(value)["timestamp"]), folder / "month.jsonl")
        run_replay(pipeline.settings, file, files=False)
        pipeline.ingest()
        pipeline.refresh(str(FIRST), str(LAST))
        at_once = Tables.of(pipeline.settings)
        for table in at_once.lake:
            (folder / "lake" / table).rename(folder / table)
        pipeline.refresh(str(FIRST), str(FIRST))
        for day in DAYS[1:-1]:
            pipeline.refresh(str(day), str(day), EACH_DAY)
        pipeline.refresh(str(LAST), str(LAST))
        return Month(file, at_once, Tables.of(pipeline.settings))


def test_every_table_of_a_simulated_month_equals_sql_on_its_lines(month: Month):
    recomputation = Recomputation(raw(month.file), FIRST, LAST)
    assert recomputation.differences(month.at_once.lake) == {}
    assert served_differences(month.at_once) == {}
    # Nothing of what there is to prove is missing.
    states = recomputation.query("SELECT DISTINCT state FROM expected.carts")
    assert {state for (state,) in states} == {"open", "abandoned", "recovered", "emptied", "converted"}
    reasons = recomputation.query("SELECT DISTINCT bot_reason FROM expected.sessions")
    assert {reason for (reason,) in reasons} == {None, "user_agent", "view_rate", "endless_session"}
    ((campaigns,),) = recomputation.query(
        "SELECT count(DISTINCT campaign) FROM expected.campaign_attribution"
    )
    assert campaigns > 5
    ((divided,),) = recomputation.query(
        "SELECT count(*) FROM expected.campaign_attribution WHERE model = 'linear' AND orders % 1 <> 0"
    )
    assert divided > 0
    ((segments,),) = recomputation.query("SELECT count(DISTINCT rfm_segment) FROM expected.customer_segments")
    assert segments >= 8
    kinds = recomputation.query("SELECT DISTINCT event_type FROM accepted")
    assert len(kinds) == 13
    ((visitors, refunds),) = recomputation.query(
        "SELECT count(DISTINCT user_id) FILTER (user_id LIKE 'anonymous:%'), count(*) FILTER (event_type = 'refund') "
        "FROM persons"
    )
    assert visitors > 5
    assert refunds > 10


def test_a_month_day_by_day_is_the_same_as_in_one_run(month: Month):
    assert differences_between(month.day_by_day, month.at_once) == {}
    assert served_differences(month.day_by_day) == {}


def shuffled(records: list[Record], random: Random) -> list[bytes]:
    """Return the records in any order, but for repetitions: what repeats or contradicts an event comes after it.

    Of an order line under two ids the event is the one that came first, whatever its own time.
    """
    positions: dict[str, list[int]] = defaultdict(list)
    order = list(range(len(records)))
    random.shuffle(order)
    for position, number in enumerate(order):
        positions[_line(records[number], number)].append(position)
    values = [b""] * len(records)
    for number, record in enumerate(records):
        # The repetitions of an event take its positions from the first on, as the records come.
        values[positions[_line(record, number)].pop(0)] = record.value
    return values


def _line(record: Record, number: int) -> str:
    """Return what the repetitions of an event have in common; a broken record is like no other."""
    try:
        return str(json.loads(record.value)["event_id"]).removesuffix("-reload")
    except (ValueError, KeyError, TypeError):
        return f"record {number}"


def test_late_repeated_and_shuffled_events_end_in_the_tables_of_the_clean_month(
    month: Month, stack: Stack, servers: Settings, tmp_path: Path
):
    with running_pipeline(stack, servers, tmp_path) as pipeline:
        made = RecordStream(plan_traffic(pipeline.settings, OPTIONS), FAULTS)
        extra = [Record(b"", value, FIRST) for value in EXTRA]
        values = shuffled([*made, *extra], Random(7))
        assert made.made.late
        assert made.made.duplicates
        assert made.made.conflicts
        assert made.made.rejected
        start = 0
        for part in PARTS:
            end = min(len(values), start + round(part * len(values)) + 1)
            run_replay(pipeline.settings, lines(values[start:end], tmp_path / "part.jsonl"), files=False)
            pipeline.ingest()
            assert pipeline.catch_up()
            start = end
        assert start == len(values)
        tables = Tables.of(pipeline.settings)
    assert differences_between(tables, month.at_once) == {}
    assert served_differences(tables) == {}
