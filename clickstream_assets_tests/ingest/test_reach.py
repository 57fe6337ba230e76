"""The days that new events make dirty: to recompute these brings everything up to date, persons included."""

from __future__ import annotations

import random
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from clickstream_assets.analytics.attribution import campaign_attribution, campaign_touches
from clickstream_assets.analytics.identity import IdentityRules
from clickstream_assets.analytics.persons import between, shopper_events
from clickstream_assets.analytics.sessions import SESSION_DAYS, sessions
from clickstream_assets.catalogue import (
    CAMPAIGN_ATTRIBUTION,
    CAMPAIGN_TOUCHES,
    EVENTS,
    SESSIONS,
    SHOPPER_EVENTS,
    Table,
)
from clickstream_assets.defs.partitions import Days
from clickstream_assets.engine import DataFrame, DuckDBEngine
from clickstream_assets.ingest.reach import dirty_days
from clickstream_assets.ingest.ties import persons_of, update_ties
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake, conform
from clickstream_assets_tests.analytics.records import event_table
from clickstream_assets_tests.analytics.who import START, Event, random_histories

SETTINGS = Settings(
    _env_file=None,
    identity_lookback_days=2,
    identity_max_users=3,
    session_gap_minutes=180,
    funnel_window_minutes=180,
    attribution_days=3,
)
FIRST = START.date() - timedelta(days=SESSION_DAYS)
LAST = START.date() + timedelta(days=16)
TABLES = (SESSIONS, SHOPPER_EVENTS, CAMPAIGN_ATTRIBUTION)


def shop(seed: int) -> list[Event]:
    """Events of few persons: visits over midnight, orders, campaigns, and robots among them."""
    source = random.Random(seed)
    return [
        {
            **event,
            "event_type": source.choice(["view", "view", "purchase"]),
            "campaign": source.choice([None, None, "mail", "search"]),
            "price": Decimal(source.randrange(1, 9)),
            "is_bot": source.random() < 0.03,
        }
        for event in random_histories(seed, seed + 1, size=150)
    ]


class Tables:
    """The tables of days, as their assets make them."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake

    def refresh(self, first: date, last: date) -> None:
        gap = timedelta(minutes=SETTINGS.session_gap_minutes)
        persons = self._persons(first - timedelta(days=SESSION_DAYS), last + timedelta(days=1))
        self.lake.replace(SESSIONS, sessions(persons, first, last, gap, 60), (first, last))
        shoppers = shopper_events(persons, self.lake.read(SESSIONS), first, last)
        self.lake.replace(SHOPPER_EVENTS, shoppers, (first, last))
        lookback = timedelta(days=SETTINGS.attribution_days)
        shoppers = self.lake.read(SHOPPER_EVENTS)
        touches = campaign_touches(between(shoppers, "event_date", first, last), gap)
        self.lake.replace(CAMPAIGN_TOUCHES, touches, (first, last))
        shares = campaign_attribution(shoppers, self.lake.read(CAMPAIGN_TOUCHES), first, last, lookback, gap)
        self.lake.replace(CAMPAIGN_ATTRIBUTION, shares, (first, last))

    def _persons(self, first: date, last: date) -> DataFrame:
        events = between(self.lake.read(EVENTS), "event_date", first, last)
        return persons_of(self.lake, events, IdentityRules.of(SETTINGS))

    def rows(self, table: Table) -> list[dict]:
        order = [(name, "ascending") for name in table.key]
        return conform(self.lake.engine.to_arrow(self.lake.read(table)), table).sort_by(order).to_pylist()


def ingest(lake: Lake, *batches: list[Event]) -> None:
    for batch, events in enumerate(batches, start=lake.snapshot(EVENTS).batch + 1):
        rows = event_table({**event, "batch": batch} for event in events)
        lake.append_batch(EVENTS, lake.engine.from_arrow(rows), batch)
        update_ties(lake, IdentityRules.of(SETTINGS))


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed", [7, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 3, 5, 9, 11))]
)
def test_recomputing_the_dirty_days_brings_every_table_up_to_date(
    duckdb_engine: DuckDBEngine, tmp_path: Path, seed: int
):
    events = shop(seed)
    # The first logins of some devices, which change what these did before and after, and others.
    logins = {
        event["anonymous_id"]: event
        for event in sorted(events, key=lambda event: event["event_time"], reverse=True)
        if event["user_id"] and event["anonymous_id"] in (f"x{seed}", f"shared{seed}")
    }
    late = [*logins.values(), *random.Random(seed).sample(events, 2)]
    tables = Tables(Lake(str(tmp_path / "lake"), duckdb_engine))
    ingest(tables.lake, [event for event in events if event not in late])
    tables.refresh(FIRST, LAST)
    # In two batches that are reported at once.
    ingest(tables.lake, late[:1], late[1:])
    dirty = [day for day in dirty_days(tables.lake, 1, SETTINGS) if FIRST <= day <= LAST]
    # Not all, of which one would know nothing.
    assert len(dirty) < (LAST - FIRST).days
    for first, last in Days.of(dirty).ranges:
        tables.refresh(first, last)

    at_once = Tables(Lake(str(tmp_path / "at_once"), duckdb_engine))
    ingest(at_once.lake, events)
    at_once.refresh(FIRST, LAST)
    for table in TABLES:
        assert tables.rows(table) == at_once.rows(table), table.name
