"""A simulated shop's sessions, carts, funnel and buyers are what its simulator knows, however its events come."""

from __future__ import annotations

import os
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from clickstream_assets.analytics.carts import CartRules, cart_states, carts
from clickstream_assets.analytics.funnel import funnel
from clickstream_assets.analytics.identity import IdentityRules
from clickstream_assets.analytics.persons import shopper_events
from clickstream_assets.analytics.segments import user_segments
from clickstream_assets.analytics.sessions import sessions
from clickstream_assets.analytics.summary import daily_summary
from clickstream_assets.catalogue import (
    CARTS,
    CUSTOMER_SEGMENTS,
    DAILY_SUMMARY,
    EVENTS,
    FUNNEL,
    IDENTITY_CHANGES,
    IDENTITY_TIES,
    SESSIONS,
    SHOPPER_EVENTS,
    USER_SEGMENTS,
    Table,
)
from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.engine import DataFrame, Engine
from clickstream_assets.ingest.money import priced, update_money
from clickstream_assets.ingest.ties import persons_of, update_ties
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.producer import ensure_topics
from clickstream_assets.stores.lake import Lake, conform
from clickstream_assets_tests.defs.pipeline import send
from clickstream_assets_tests.ingestion import Ingestion
from clickstream_assets_tests.simulator import truth
from clickstream_assets_tests.simulator.persons import (
    GAP,
    LOOKBACK_DAYS,
    WINDOW,
    acts,
    records,
    require_what_the_simulator_knows,
    set_up,
    shuffled,
    stream_of_rules,
    tied_users,
)
from clickstream_assets_tests.simulator.truth import Act


def test_the_rule_knows_who_it_was_but_where_no_id_can_tell():
    unknowable = truth.unknowable(acts(), timedelta(days=LOOKBACK_DAYS))
    assert {act.event_id for act in acts() if act.user != act.shopper} == unknowable
    # Most is known, of it much that came without a user id, on shared devices too; and something is not.
    unnamed = [act for act in acts() if not act.is_named and act.event_id not in unknowable]
    assert 0.1 * len(acts()) < len(unnamed)
    assert 0 < len(unknowable) < 0.4 * len(acts())
    users = defaultdict(set)
    for act in acts():
        if act.is_named:
            users[act.anonymous_id].add(act.shopper)
    shared = {device for device, its in users.items() if device and len(its) > 1}
    assert any(act.anonymous_id in shared for act in unnamed)
    # Visits go on over a login, and carts that are filled on one device are bought on another.
    logins, carried = 0, 0
    of_user: dict[str, Act] = {}
    added: dict[Any, str | None] = {}
    for act in acts():
        before = of_user.get(act.user)
        logins += before is not None and act.at - before.at <= GAP and act.is_named > before.is_named
        of_user[act.user] = act
        if act.kind == "add_to_cart":
            added[act.user, act.product] = act.anonymous_id
        elif act.kind == "purchase":
            carried += added.get((act.user, act.product), act.anonymous_id) != act.anonymous_id
    assert logins > 5
    assert carried > 1


def test_shops_that_are_compared_have_all_kinds_of_shoppers():
    made = stream_of_rules().made
    assert min(made.logins.values()) >= 3
    assert made.shared_devices >= 3
    assert made.devices > made.persons * 0.9
    assert made.guest_orders >= 3
    assert made.unit_orders >= 2
    assert made.foreign_orders >= 3
    assert made.by_type["refund"] >= 3


@pytest.mark.long_on_spark
@pytest.mark.parametrize(
    "arrival", [pytest.param("in order", marks=pytest.mark.long), "late, shuffled and twice"]
)
def test_tables_are_what_the_simulator_knows(
    engine: Engine, kafka: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arrival: str
):
    set_up(monkeypatch, tmp_path)
    own = {name.lower(): value for name, value in os.environ.items() if name.lower() in Settings.model_fields}
    settings = Settings(
        **kafka.model_dump()
        | own
        | {"kafka_topic": f"persons-{uuid4().hex}", "lake_path": str(tmp_path / "lake")},
        _env_file=None,
    )
    ensure_topics(settings)
    ingestion = Ingestion.of(settings, engine)
    parts = [records()] if arrival == "in order" else shuffled(3)
    before = 0
    for part in parts:
        send(settings, part)
        ingestion.run()
        update_ties(ingestion.lake, IdentityRules.of(settings))
        update_money(ingestion.lake, before, settings)
        before = ingestion.lake.snapshot(EVENTS).batch

    assert ingestion.counts()[EVENTS.name] == len(acts())
    require_what_the_simulator_knows(tables(ingestion.lake, settings))
    tied = defaultdict(set)
    for row in engine.to_arrow(ingestion.lake.read(IDENTITY_TIES)).to_pylist():
        tied[row["anonymous_id"]].add(row["user_id"])
    assert tied == tied_users()
    # Shuffled, ties come late, and change what is there.
    batches = engine.to_arrow(ingestion.lake.read(IDENTITY_CHANGES))["batch"].to_pylist()
    assert set(batches) == set(range(1, len(parts) + 1))


def tables(lake: Lake, settings: Settings) -> dict[Table, list[dict[str, Any]]]:
    """Return the rows of the tables of all days, of the lake's events."""
    engine, clock = lake.engine, ShopClock(settings.shop_time_zone)
    days = sorted({act.day for act in acts()})
    first, last = days[0], days[-1]

    def kept(df: DataFrame, table: Table) -> DataFrame:
        found[table] = conform(engine.to_arrow(df), table)
        return engine.from_arrow(found[table])

    found: dict[Table, Any] = {}
    events = kept(lake.read(EVENTS), EVENTS)
    persons = engine.persist(persons_of(lake, priced(lake, events), IdentityRules.of(settings)))
    visits = kept(sessions(persons, first, last, GAP, settings.bot_views_per_minute, clock=clock), SESSIONS)
    shoppers = kept(shopper_events(persons, visits, first, last), SHOPPER_EVENTS)
    segments = kept(user_segments(shoppers), USER_SEGMENTS)
    kept(daily_summary(shoppers, segments, events, visits, first, last), DAILY_SUMMARY)
    nobody = engine.from_arrow(CUSTOMER_SEGMENTS.arrow.empty_table())
    kept(funnel(shoppers, nobody, first, last, WINDOW, clock), FUNNEL)
    states = engine.persist(
        cart_states(engine, shoppers, CartRules.of(settings, max(act.at for act in acts())))
    )
    kept(carts(states), CARTS)
    return {table: rows.to_pylist() for table, rows in found.items()}
