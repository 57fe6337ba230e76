"""A simulated shop whose people log in late, on two devices and on shared ones, and what its tables have to say."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from clickstream_assets.analytics.identity import IdentityRules
from clickstream_assets.catalogue import CARTS, DAILY_SUMMARY, FUNNEL, SESSIONS, USER_SEGMENTS, Table
from clickstream_assets.simulator.catalogue import CURRENCY, write_rates
from clickstream_assets.simulator.habits import Habits
from clickstream_assets.simulator.stream import RecordStream
from clickstream_assets.simulator.traffic import Traffic
from clickstream_assets_tests.analytics import by_hand
from clickstream_assets_tests.analytics.who import person_of

from . import truth
from .truth import Act

ZONE = "Europe/Berlin"
LOOKBACK_DAYS = 2
GAP, WINDOW = timedelta(minutes=30), timedelta(minutes=60)
HABITS = Habits(
    anonymous=0.9,
    late_login=0.6,
    never_login=0.1,
    second_device=0.8,
    shared_device=0.25,
    guest_checkout=0.4,
    identify=0.5,
    refunds=0.3,
    page_views=0.4,
    impressions=0.02,
    wishlists=0.05,
    checkouts=0.5,
    custom=0.05,
    items=0.5,
    unit_rows=0.5,
    foreign_currency=0.3,
    local_times=0.5,
)
TRAFFIC = Traffic(
    users=40,
    products=20,
    seed=4,
    start=datetime(2024, 5, 1, tzinfo=UTC),
    events=1_500,
    seconds=4.5 * 86_400,
    bots=0.0,
    habits=HABITS,
    time_zone=ZONE,
)
TABLES = (SESSIONS, CARTS, USER_SEGMENTS, FUNNEL, DAILY_SUMMARY)


def set_up(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Set the shop's clock and money, and how long before a login a visitor is known."""
    write_rates(folder / "rates.csv")
    for name, value in {
        "EXCHANGE_RATES": str(folder / "rates.csv"),
        "IDENTITY_LOOKBACK_DAYS": str(LOOKBACK_DAYS),
        "SHOP_CURRENCY": CURRENCY,
        "SHOP_TIME_ZONE": ZONE,
    }.items():
        monkeypatch.setenv(name, value)


def records() -> list[bytes]:
    """Return the shop's records, in order."""
    return [record.value for record in RecordStream(TRAFFIC)]


def shuffled(parts: int) -> list[list[bytes]]:
    """Return the records in any order, a third of them twice, in batches of one size but for a small last one."""
    source = random.Random(1)
    once = records()
    order = [*once, *source.sample(once, len(once) // 3)]
    source.shuffle(order)
    bounds = [0, *(len(order) * 9 * number // (10 * (parts - 1)) for number in range(1, parts)), len(order)]
    return [order[begin:end] for begin, end in pairwise(bounds)]


@cache
def acts() -> list[Act]:
    """Return what the shop's people do, each with the person that it counts for by the documented rule."""
    done = truth.acts(TRAFFIC)
    of_device = defaultdict(list)
    for act in done:
        of_device[act.anonymous_id].append(act.ids)
    rules = IdentityRules(timedelta(days=LOOKBACK_DAYS), max_users=10)
    return [replace(act, user=person_of(act.ids, of_device[act.anonymous_id], rules)) for act in done]


def stream_of_rules() -> RecordStream:
    """Return the shop's records, handed out and counted by the rule's lookback."""
    stream = RecordStream(TRAFFIC, lookback=timedelta(days=LOOKBACK_DAYS))
    assert list(stream)
    return stream


def require_what_the_simulator_knows(tables: Mapping[Table, list[dict[str, Any]]]) -> None:
    """Require that the rows of TABLES are those that plain loops make of the shop's acts."""
    columns: tuple[str, ...]
    columns = ("user_id", "start_time", "end_time", "total_events", "furthest_step", "purchases", "revenue")
    found = sorted(tuple(row[name] for name in columns) for row in tables[SESSIONS])
    assert found == truth.visits(acts(), GAP)
    assert not any(row["is_bot"] for row in tables[SESSIONS])

    columns = ("user_id", "opened_at", "state", "product_ids", "value", "purchased_at", "order_id")
    carts = sorted(tuple(row[name] for name in columns) for row in tables[CARTS])
    assert carts == truth.carts(acts())
    assert {state for _, _, state, *_ in carts} == {"open", "abandoned", "converted", "recovered", "emptied"}

    segments = {
        (row["report_date"], row["user_id"]): (row["segment"], row["revenue"])
        for row in tables[USER_SEGMENTS]
    }
    assert segments == truth.segments(acts())
    buyers = {user for (_, user), (segment, _) in segments.items() if segment == "buyer"}
    made = stream_of_rules().made
    assert (len(buyers), len({row["user_id"] for row in tables[SESSIONS]})) == (made.buyers, made.users)

    funnel: dict[Any, dict[Any, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in sorted(tables[FUNNEL], key=lambda row: row["step_number"]):
        if row["dimension"] != "rfm":
            funnel[row["report_date"]][row["dimension"], row["value"]].append(row["users"])
    summaries = {row["report_date"]: row for row in tables[DAILY_SUMMARY]}
    assert set(summaries) == {act.day for act in acts()}
    lines: list[by_hand.Line] = list(acts())
    for day, summary in summaries.items():
        groups = by_hand.funnel(lines, day, WINDOW, {})
        assert funnel[day] == {group: list(steps) for group, steps in groups.items() if group[0] != "rfm"}
        figures = by_hand.summary(lines, day, GAP)
        assert {name: summary[name] for name in figures} == figures
    assert float(sum(row["revenue"] for row in summaries.values())) == made.revenue
    assert float(sum(row["refunds"] for row in summaries.values())) == made.refunds > 0


def tied_users() -> dict[str, set[str]]:
    """Return the users who log in on each device."""
    found = defaultdict(set)
    for act in acts():
        if act.is_named and act.anonymous_id:
            found[act.anonymous_id].add(act.shopper)
    return found
