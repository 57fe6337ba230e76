"""Carts, customers, cohorts and attribution through the pipeline: late events repair what was published.

On real servers, with the runs that the sensors ask for.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from dagster import AssetCheckEvaluation
from deltalake import DeltaTable, write_deltalake

from clickstream_assets.catalogue import (
    CAMPAIGN_ATTRIBUTION,
    CARTS,
    COHORT_RETENTION,
    CUSTOMER_SEGMENT_DAYS,
    CUSTOMER_SEGMENTS,
    SESSIONS,
    USER_SEGMENTS,
    Table,
)
from clickstream_assets.defs.resources import ComputeResource, LakeResource, SettingsResource
from clickstream_assets.defs.segments import assets as segments
from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets_tests.defs.pipeline import Pipeline
from clickstream_assets_tests.defs.test_plots import SVG, picture_of

OURS = [
    dg.AssetKey(name)
    for name in (
        "sessions",
        "shopper_events",
        "carts",
        "user_segments",
        "customer_segments",
        "cohort_retention",
        "campaign_touches",
        "campaign_attribution",
        "daily_summary",
        "published_shoppers",
    )
]
SERVED = (CARTS, CUSTOMER_SEGMENTS, CUSTOMER_SEGMENT_DAYS, COHORT_RETENTION)


def event(moment: str, user: str, kind: str = "view", product: str = "p1", **more: Any) -> dict[str, Any]:
    """An event as a shop sends it; `moment` is like `05-01 10:00`, in 2024 and UTC."""
    return {
        "event_id": f"{user} {moment} {product} {kind}",
        "event_type": kind,
        "user_id": user,
        "product_id": product,
        "timestamp": f"2024-{moment.replace(' ', 'T')}:00Z",
        **more,
    }


MAY = [
    event("05-01 10:00", "ann", campaign="mail", session_id="s1"),
    event("05-01 10:05", "ann", "add_to_cart", price="4.00", session_id="s1"),
    event("05-02 09:00", "ann", "purchase", price="4.00", order_id="o1"),
    event("05-01 12:00", "bob", "add_to_cart", price="9.00"),
    event("05-10 12:00", "bob", "add_to_cart", "p2", price="1.00"),
    event("05-10 12:01", "bob", "remove_from_cart", "p1"),
    event("05-12 08:00", "cat", "purchase", "p3", price="30.00", quantity=2),
    event("05-12 20:00", "ann"),
]
LATE = [
    event("05-11 10:00", "bob", "purchase", "p2", price="1.00"),
    event("05-11 23:50", "cat", campaign="search"),
]


CONSENT = [
    event("05-01 10:00", "ann", "purchase", price="4.00", order_id="a1", consent=True),
    event("05-01 11:00", "bob", "purchase", price="9.00", order_id="b1"),
    event("05-01 12:00", "cat", "purchase", price="5.00", order_id="c1", consent=False),
    event("05-02 10:00", "bob", consent=False),
    event("05-03 10:00", "ann"),
    event("05-03 11:00", "bob"),
    event("05-03 12:00", "cat"),
]


@pytest.fixture
def pipeline(pipeline_env: Settings, instance: dg.DagsterInstance, definitions: dg.Definitions) -> Pipeline:
    return Pipeline(pipeline_env, instance, definitions)


@pytest.fixture
def lake(pipeline_env: Settings) -> LakeResource:
    settings = SettingsResource()
    return LakeResource(settings=settings, compute=ComputeResource(settings=settings))


def refresh(pipeline: Pipeline) -> dg.ExecuteInProcessResult:
    """Bring the days that `events` reported last up to date; all checks have to pass."""
    days = pipeline.reported("events", "dirty_days")
    result = pipeline.refresh(min(days), max(days), OURS)
    checks = result.get_asset_check_evaluations()
    assert len(checks) >= 10
    assert [(check.check_name, check.metadata) for check in checks if not check.passed] == []
    for table in SERVED:
        assert pipeline.served(table) == pipeline.lake(table), table.name
    return result


def states(pipeline: Pipeline) -> dict[str, list[tuple[str, Decimal]]]:
    """State and value of each user's carts."""
    found: dict[str, list[tuple[str, Decimal]]] = {}
    for row in sorted(pipeline.lake(CARTS), key=lambda row: row["opened_at"]):
        found.setdefault(row["user_id"], []).append((row["state"], row["value"]))
    return found


def owed(pipeline: Pipeline, day: str) -> dict[str, Decimal]:
    """Return the revenue that the linear model owes to campaigns on a day."""
    return {
        row["campaign"]: row["revenue"]
        for row in pipeline.lake(CAMPAIGN_ATTRIBUTION)
        if row["model"] == "linear" and row["report_date"] == date.fromisoformat(day)
    }


@pytest.mark.long
def test_late_events_repair_carts_customers_and_attribution(pipeline: Pipeline):
    pipeline.ingest(*MAY)
    refresh(pipeline)
    assert states(pipeline) == {"ann": [("converted", Decimal(4))], "bob": [("abandoned", Decimal(1))]}
    assert owed(pipeline, "2024-05-02") == {"mail": Decimal(4)}
    assert owed(pipeline, "2024-05-12") == {"(direct)": Decimal(60)}
    assert pipeline.reported("customer_segments", "replaced_from") == "2024-05-01"
    (first_visit,) = (row for row in pipeline.lake(SESSIONS) if row["client_session_ids"])
    assert (first_visit["campaign"], first_visit["furthest_step"]) == ("mail", "add_to_cart")

    pipeline.ingest(*LATE)
    assert pipeline.reported("events", "dirty_days") == ["2024-05-11", "2024-05-12"]
    refresh(pipeline)
    assert states(pipeline)["bob"] == [("recovered", Decimal(1))]
    assert owed(pipeline, "2024-05-12") == {"search": Decimal(60)}
    assert pipeline.reported("customer_segments", "replaced_from") == "2024-05-11"
    # The days before it were not even looked at.
    changes = pipeline.reported("published_shoppers", "changes")
    assert (changes["carts"]["rows"], changes["carts"]["updated"]) == (1, 1)
    assert changes["customer_segments"]["rows"] == len(
        [row for row in pipeline.lake(CUSTOMER_SEGMENTS) if row["report_date"] >= date(2024, 5, 11)]
    )

    repaired = [pipeline.lake(table) for table in (CUSTOMER_SEGMENTS, CUSTOMER_SEGMENT_DAYS)]
    for table in (CUSTOMER_SEGMENTS, CUSTOMER_SEGMENT_DAYS):
        DeltaTable(f"{pipeline.settings.lake}/{table.name}").delete()
    assert pipeline.materialize("customer_segments").success
    assert pipeline.reported("customer_segments", "replaced_from") == "2024-05-01"
    assert [pipeline.lake(table) for table in (CUSTOMER_SEGMENTS, CUSTOMER_SEGMENT_DAYS)] == repaired


@pytest.mark.long
def test_a_late_campaign_reaches_the_orders_of_the_thirty_days_after_it(pipeline: Pipeline):
    pipeline.ingest(*MAY)
    pipeline.ingest(event("04-20 10:00", "cat", campaign="radio"), event("04-10 10:00", "cat", campaign="tv"))
    assert pipeline.reported("events", "dirty_days") == ["2024-04-10", "2024-04-20", "2024-05-12"]


@pytest.mark.long
def test_customers_of_some_days_at_a_time_are_those_of_all_at_once(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    pipeline.ingest(*MAY)
    refresh(pipeline)
    at_once = pipeline.lake(CUSTOMER_SEGMENTS)
    DeltaTable(f"{pipeline.settings.lake}/{CUSTOMER_SEGMENT_DAYS.name}").delete()
    monkeypatch.setattr(segments, "ORDERS_PER_CHUNK", 4)
    assert pipeline.materialize("customer_segments").success
    assert pipeline.lake(CUSTOMER_SEGMENTS) == at_once
    assert len({row["report_date"] for row in at_once}) == 11


@pytest.mark.long
def test_another_setting_changes_every_day(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    pipeline.ingest(*MAY)
    refresh(pipeline)
    assert pipeline.materialize("customer_segments").success
    assert pipeline.reported("customer_segments", "replaced_from") == "no day has changed"
    monkeypatch.setenv("RFM_DAYS", "2")
    assert pipeline.materialize("customer_segments").success
    assert pipeline.reported("customer_segments", "replaced_from") == "2024-05-01"
    assert {row["recency_days"] for row in pipeline.lake(CUSTOMER_SEGMENTS)} == {None, 0, 1}


@pytest.mark.long
def test_a_publication_makes_up_for_one_that_failed(pipeline: Pipeline):
    pipeline.ingest(*MAY)
    refresh(pipeline)
    with connect(pipeline.settings) as connection:
        connection.execute("DELETE FROM customer_segments WHERE report_date = '2024-05-05'")
        connection.execute("DELETE FROM customer_segment_days WHERE report_date = '2024-05-05'")
        connection.execute("DELETE FROM carts WHERE last_activity_date = '2024-05-02'")
        connection.execute("DELETE FROM published_parts WHERE table_name = 'carts' AND day = '2024-05-02'")
        connection.execute(
            "DELETE FROM published_parts WHERE table_name = 'customer_segments' AND day = '2024-05-05'"
        )
    assert pipeline.served(CUSTOMER_SEGMENTS) != pipeline.lake(CUSTOMER_SEGMENTS)
    assert pipeline.materialize("published_shoppers").success
    assert pipeline.reported("published_shoppers", "customers_from") == "2024-05-05"
    assert pipeline.served(CUSTOMER_SEGMENTS) == pipeline.lake(CUSTOMER_SEGMENTS)
    assert pipeline.served(CARTS) == pipeline.lake(CARTS)
    assert pipeline.reported("published_shoppers", "changes")["carts"]["inserted"] == 1


@pytest.mark.long
def test_without_events_the_tables_are_empty(pipeline: Pipeline):
    for asset in ("carts", "customer_segments", "cohort_retention", "published_shoppers"):
        assert pipeline.materialize(asset).success, asset
    assert [pipeline.served(table) for table in SERVED] == [[]] * len(SERVED)


@pytest.mark.long
def test_settings_cut_sessions_at_midnight_and_at_campaigns(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SESSION_CUT_AT_MIDNIGHT", "true")
    monkeypatch.setenv("SESSION_CUT_AT_CAMPAIGN", "true")
    pipeline.ingest(
        event("05-01 23:50", "owl"),
        event("05-02 00:05", "owl"),
        event("05-02 00:06", "owl", campaign="mail"),
    )
    refresh(pipeline)
    assert sorted((row["session_date"].day, row["campaign"] or "") for row in pipeline.lake(SESSIONS)) == [
        (1, ""),
        (2, ""),
        (2, "mail"),
    ]


def overwrite(pipeline: Pipeline, table: Table, rows: list[dict[str, Any]]) -> None:
    data = pa.Table.from_pylist(rows, schema=table.arrow)
    write_deltalake(f"{pipeline.settings.lake}/{table.name}", data, mode="overwrite")


class RunCheck:
    """Carries out the checks of the code location, one at a time."""

    def __init__(self, definitions: dg.Definitions, lake: LakeResource) -> None:
        self._definitions = definitions
        self._lake = lake

    def __call__(self, asset: str, check: str, *days: str) -> AssetCheckEvaluation:
        """Return what a check says of all days, or as in a run of these."""
        key = dg.AssetCheckKey(dg.AssetKey(asset), check)
        (of_key,) = [checks for checks in self._definitions.asset_checks or () if key in checks.check_keys]
        names = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
        with dg.DagsterInstance.ephemeral() as instance:
            run = dg.materialize(
                [of_key],
                selection=dg.AssetSelection.checks(key),
                instance=instance,
                resources={"settings": self._lake.settings, "lake": self._lake},
                tags=dict(zip(names, days, strict=False)),
                raise_on_error=False,
            )
        (evaluation,) = run.get_asset_check_evaluations()
        return evaluation


@pytest.fixture
def run_check(definitions: dg.Definitions, lake: LakeResource) -> RunCheck:
    return RunCheck(definitions, lake)


@pytest.mark.long
def test_checks_name_what_is_wrong(pipeline: Pipeline, run_check: RunCheck):
    pipeline.ingest(*MAY)
    refresh(pipeline)

    carts = pipeline.lake(CARTS)
    sold = next(row for row in carts if row["purchased_at"])
    overwrite(
        pipeline, CARTS, [*carts, {**sold, "purchased_at": sold["purchased_at"] + timedelta(seconds=1)}]
    )
    twice = run_check("carts", "keys_are_unique")
    assert not twice.passed
    assert twice.metadata["sample_keys"].value == [{"cart_id": sold["cart_id"]}]
    overwrite(pipeline, CARTS, [{**sold, "product_ids": ["never bought"]}])
    unsold = run_check("carts", "bought_carts_have_their_purchase")
    assert not unsold.passed
    assert unsold.metadata["sample_keys"].value == [sold["cart_id"]]

    visits = pipeline.lake(SESSIONS)
    overwrite(pipeline, SESSIONS, [*visits, visits[0]])
    assert run_check("sessions", "session_ids_are_unique").metadata["actual"].value == len(visits)
    # What is wrong on one day is not made up for by another.
    (first, *_, last) = sorted(visits, key=lambda row: row["start_time"])
    changed = {first["session_id"]: 1, last["session_id"]: -1}
    overwrite(
        pipeline,
        SESSIONS,
        [{**row, "revenue": row["revenue"] + changed.get(row["session_id"], 0)} for row in visits],
    )
    wrong = [
        "2024-05-01 revenue: 0.0000 expected, 1.0000 found",
        "2024-05-12 revenue: 60.0000 expected, 59.0000 found",
    ]
    assert run_check("sessions", "sessions_hold_all_events").metadata["sample_days"].value == wrong
    # A run looks at its own days.
    assert (
        run_check("sessions", "sessions_hold_all_events", "2024-05-02", "2024-05-12")
        .metadata["sample_days"]
        .value
        == wrong[1:]
    )
    assert run_check("sessions", "sessions_hold_all_events", "2024-05-02", "2024-05-11").passed
    assert not run_check("daily_summary", "revenue_is_that_of_the_sessions").passed
    overwrite(pipeline, SESSIONS, visits)

    shares = pipeline.lake(CAMPAIGN_ATTRIBUTION)
    overwrite(pipeline, CAMPAIGN_ATTRIBUTION, [row for row in shares if row["model"] != "linear"])
    missing = run_check("campaign_attribution", "each_model_shares_out_all_revenue")
    assert not missing.passed
    assert missing.metadata["sample_days"].value == [
        "2024-05-02 linear: 4.0000 expected, 0 found",
        "2024-05-12 linear: 60.0000 expected, 0 found",
    ]
    assert run_check("campaign_attribution", "each_model_shares_out_all_orders").metadata[
        "sample_days"
    ].value == [
        "2024-05-02 linear: 1 expected, 0 found",
        "2024-05-12 linear: 1 expected, 0 found",
    ]

    customers = pipeline.lake(CUSTOMER_SEGMENTS)
    overwrite(pipeline, CUSTOMER_SEGMENTS, [*customers, customers[0]])
    assert not run_check("customer_segments", "keys_are_unique").passed
    twelfth = [row for row in customers if row["report_date"] == date(2024, 5, 12) and row["frequency"]]
    (ann, cat) = sorted(twelfth, key=lambda row: row["net_monetary"])
    overwrite(pipeline, CUSTOMER_SEGMENTS, [ann, {**cat, "user_id": "dan", "rfm_segment": None}, cat])
    assert run_check("customer_segments", "scores_follow_behaviour").metadata["sample_keys"].value == [
        "2024-05-12: no segment"
    ]
    overwrite(
        pipeline, CUSTOMER_SEGMENTS, [{**ann, "m_score": 5}, cat, {**cat, "user_id": "dan", "r_score": 1}]
    )
    assert run_check("customer_segments", "scores_follow_behaviour").metadata["sample_keys"].value == [
        "2024-05-12: r_score",
        "2024-05-12: m_score",
    ]
    overwrite(pipeline, CUSTOMER_SEGMENTS, [ann, cat])
    assert run_check("customer_segments", "scores_follow_behaviour").passed

    cohorts = pipeline.lake(COHORT_RETENTION)
    overwrite(pipeline, COHORT_RETENTION, [row for row in cohorts if row["weeks_since"]])
    lost = run_check("cohort_retention", "cohorts_hold_every_user")
    assert not lost.passed
    assert (lost.metadata["expected"].value, lost.metadata["actual"].value) == (5, 2)


@pytest.mark.long
def test_a_plot_is_a_picture_of_its_figures(pipeline: Pipeline):
    pipeline.ingest(*MAY)
    refresh(pipeline)
    as_of = datetime.fromtimestamp(pipeline.reported("carts", "as_of"), UTC)
    picture = picture_of(pipeline.reported("carts", "carts_by_state"))
    assert [text.text for text in picture.iter(f"{SVG}text")] == [
        f"Carts by state, as of {as_of:%Y-%m-%d %H:%M} UTC",
        *("carts", "abandoned", "1", "converted", "1"),
    ]


def of_days(rows: list[dict[str, Any]]) -> set[tuple[str, int]]:
    return {(row["user_id"], row["report_date"].day) for row in rows}


@pytest.mark.slow
def test_who_refuses_to_be_profiled_is_in_no_segment(pipeline: Pipeline):
    """Not even of days before; and who agrees again is in those from then on."""
    ours = [*OURS, *(dg.AssetKey(name) for name in ("interaction_days", "published_days"))]

    def come_in(*events: dict[str, Any]) -> None:
        pipeline.ingest(*events)
        days = pipeline.reported("events", "dirty_days")
        pipeline.refresh(min(days), max(days), ours)

    everybody = {(user, day) for user in ("ann", "bob") for day in (1, 2, 3)}
    come_in(*CONSENT)
    assert of_days(pipeline.lake(CUSTOMER_SEGMENTS)) == everybody - {("bob", 2), ("bob", 3)}
    assert of_days(pipeline.served(CUSTOMER_SEGMENTS)) == {("ann", 1), ("ann", 2), ("ann", 3)}
    assert of_days(pipeline.served(USER_SEGMENTS)) == {("ann", 1), ("ann", 3)}
    # The only buyer of these days who may be scored is the best and the worst.
    scores = {row["report_date"].day: row["m_score"] for row in pipeline.lake(CUSTOMER_SEGMENTS)}
    assert scores[2] == scores[3] == 3

    come_in(event("05-04 10:00", "cat", consent=True))
    assert of_days(pipeline.served(CUSTOMER_SEGMENTS)) == {("ann", day) for day in (1, 2, 3, 4)} | {
        ("cat", 4)
    }
    assert of_days(pipeline.served(USER_SEGMENTS)) == {("ann", 1), ("ann", 3), ("cat", 4)}
    # Late: she had agreed two days before, and not refused since.
    come_in(event("05-02 12:00", "cat", consent=True))
    assert of_days(pipeline.served(USER_SEGMENTS)) == {
        ("ann", 1),
        ("ann", 3),
        ("cat", 2),
        ("cat", 3),
        ("cat", 4),
    }
    assert of_days(pipeline.lake(CUSTOMER_SEGMENTS)) == {
        *(("ann", day) for day in (1, 2, 3, 4)),
        ("bob", 1),
        *(("cat", day) for day in (2, 3, 4)),
    }
    # A late no of hers, before these: what was said of the first day goes.
    come_in(event("05-01 12:30", "ann", consent=False), event("05-01 12:40", "ann", consent=True))
    assert ("ann", 1) in of_days(pipeline.served(USER_SEGMENTS))
    come_in(event("05-04 12:00", "ann", consent=False))
    assert {user for user, _ in of_days(pipeline.served(USER_SEGMENTS))} == {"cat"}
    assert {user for user, _ in of_days(pipeline.served(CUSTOMER_SEGMENTS))} == {"cat"}
