"""Persons, from the topic to the served tables."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from clickstream_assets.catalogue import (
    CAMPAIGN_ATTRIBUTION,
    CARTS,
    EVENTS,
    FUNNEL,
    IDENTITIES,
    INTERACTIONS,
    SESSIONS,
    SHOPPER_EVENTS,
    USER_SEGMENTS,
)
from clickstream_assets.defs.resources import ComputeResource, LakeResource, SettingsResource
from clickstream_assets.defs.sessions.checks import ids_are_of_one_person
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake
from clickstream_assets_tests.analytics.records import at, event, event_table
from clickstream_assets_tests.defs.pipeline import Pipeline

MADE = (
    *("sessions", "shopper_events", "carts", "user_segments", "customer_segments", "funnel"),
    *("daily_summary", "campaign_touches", "campaign_attribution", "interaction_days", "interactions"),
    "published_shoppers",
)


@pytest.fixture
def pipeline(pipeline_env: Settings, instance: dg.DagsterInstance, definitions: dg.Definitions) -> Pipeline:
    return Pipeline(pipeline_env, instance, definitions, dg.AssetSelection.assets(*MADE))


def sent(number: str, moment: str, kind: str, **more: Any) -> dict[str, Any]:
    """An event of the visit of case 09, as a shop with anonymous ids sends it; `moment` is like `02 10:00`."""
    return {
        "event_id": number,
        "event_type": kind,
        "timestamp": f"2024-05-{moment.replace(' ', 'T')}:00Z",
        "product_id": "P-1",
        "price": "12.50",
        **more,
    }


VISIT = [
    sent("l1", "02 10:00", "view", anonymous_id="anon-7c1", session_id="s1", campaign="spring"),
    sent("l2", "02 10:01", "add_to_cart", anonymous_id="anon-7c1", session_id="s1", quantity=2),
]
WHO = {"anonymous_id": "anon-7c1", "user_id": "u-55"}
LOGIN = sent("l3", "02 10:05", "purchase", **WHO, session_id="s1", quantity=2, order_id="O-1")


@pytest.mark.long
def test_a_login_mends_the_days_before_it(pipeline: Pipeline):
    early = sent("l0", "01 23:50", "view", anonymous_id="anon-7c1", consent=True)
    pipeline.ingest(early, *VISIT)
    pipeline.catch_up()
    assert {row["user_id"] for row in pipeline.lake(SHOPPER_EVENTS)} == {"anonymous:anon-7c1"}
    assert [row["state"] for row in pipeline.lake(CARTS)] == ["open"]
    assert pipeline.served(IDENTITIES) == []

    # Hours later, on another day: who it is, and a purchase elsewhere.
    login = sent("i1", "03 09:00", "view", **WHO)
    elsewhere = LOGIN | {"anonymous_id": "phone", "session_id": "s2"}
    pipeline.ingest(login, elsewhere)
    assert pipeline.reported("events", "dirty_days") == ["2024-05-01", "2024-05-02", "2024-05-03"]
    pipeline.catch_up()
    is_right(pipeline, days=3)
    assert pipeline.served(IDENTITIES) == [
        {"anonymous_id": id_, "user_id": "u-55", "first_tied_at": at(moment), "is_latest": True}
        for id_, moment in (("anon-7c1", "2024-05-03 09:00"), ("phone", "2024-05-02 10:05"))
    ]
    # What a known visitor does later changes no day but its own.
    pipeline.ingest(sent("l9", "03 10:00", "view", anonymous_id="anon-7c1"))
    assert pipeline.reported("events", "dirty_days") == ["2024-05-03"]


@pytest.mark.long
def test_other_rules_of_who_is_who_change_every_day(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    pipeline.ingest(*VISIT, sent("i1", "03 09:00", "view", **WHO))
    pipeline.ingest()
    assert pipeline.reported("events", "dirty_days") == []
    monkeypatch.setenv("IDENTITY_LOOKBACK_DAYS", "0")
    pipeline.ingest()
    assert pipeline.reported("events", "dirty_days") == ["2024-05-02", "2024-05-03"]
    pipeline.ingest()
    assert pipeline.reported("events", "dirty_days") == []


def is_right(pipeline: Pipeline, days: int = 1) -> None:
    """The right values of case 09: one user, one session, one converted cart of 25.00, one way through the funnel."""
    pipeline.train()
    assert {row["user_id"] for row in pipeline.lake(SHOPPER_EVENTS)} == {"u-55"}
    (visit,) = (row for row in pipeline.lake(SESSIONS) if str(row["session_date"]) == "2024-05-02")
    assert (visit["user_id"], visit["total_events"], visit["furthest_step"]) == ("u-55", 3, "purchase")
    assert len(pipeline.lake(SESSIONS)) == days
    (cart,) = pipeline.lake(CARTS)
    assert (cart["user_id"], cart["state"], cart["value"]) == ("u-55", "converted", Decimal(25))
    of_day = [row for row in pipeline.lake(FUNNEL) if str(row["report_date"]) == "2024-05-02"]
    assert {row["step"]: row["users"] for row in of_day if row["dimension"] == "overall"} == dict.fromkeys(
        ("view", "add_to_cart", "purchase"), 1
    )
    segments = [(row["user_id"], row["segment"]) for row in pipeline.lake(USER_SEGMENTS)]
    assert segments.count(("u-55", "buyer")) == 1
    assert len(segments) == days
    assert [(row["user_id"], row["purchases"]) for row in pipeline.lake(INTERACTIONS)] == [("u-55", 1)]
    owed = {row["campaign"] for row in pipeline.lake(CAMPAIGN_ATTRIBUTION)}
    assert owed == {"spring"}


@pytest.mark.slow
def test_an_id_of_more_events_than_one_person_has_is_warned_of(
    duckdb_engine: DuckDBEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("LAKE_PATH", str(tmp_path))
    first, second = "2024-05-01 10:00", "2024-05-02 10:00"
    others = [event("view", first, f"u{number}") for number in range(18_000)]
    unknown = [event("view", first, "undefined", session_id=f"s{number}") for number in range(1_001)]
    # A robot is known by itself; and a small day has busy shoppers.
    robot = [event("view", first, "robot", is_bot=True) for _ in range(1_500)]
    of_one = [event("view", second, "ann", anonymous_id="x") for _ in range(1_000)]
    Lake(str(tmp_path), duckdb_engine).replace(
        EVENTS, duckdb_engine.from_arrow(event_table([*others, *unknown, *robot, *of_one]))
    )

    def check() -> dg.AssetCheckEvaluation:
        settings = SettingsResource()
        lake = LakeResource(settings=settings, compute=ComputeResource(settings=settings))
        result = dg.Definitions(
            asset_checks=[ids_are_of_one_person], jobs=[dg.define_asset_job("c", dg.AssetSelection.all_asset_checks())],
            resources={"settings": settings, "lake": lake},
        ).resolve_job_def("c").execute_in_process()  # fmt: skip
        (found,) = result.get_asset_check_evaluations()
        return found

    assert check().passed
    more = [*unknown, event("view", first, "undefined")]
    lake = Lake(str(tmp_path), duckdb_engine)
    lake.replace(EVENTS, duckdb_engine.from_arrow(event_table([*more, *of_one, *others[:15_000]])))
    found = check()
    assert not found.passed
    assert found.metadata["sample_keys"].value == ["2024-05-01 user_id undefined: 6.26 %"]
