"""Days, many at once or one by one, early or late: what is served is always what the events say.

On real servers, with the runs that the sensors ask for.
"""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from clickstream_assets.catalogue import (
    CAMPAIGN_ATTRIBUTION,
    CATEGORY_CONVERSION,
    DAILY_REPORT,
    DAILY_SUMMARY,
    FUNNEL,
    FUNNEL_STEPS,
    MET_PRODUCTS,
    MODEL_EVALUATION,
    POPULAR_PRODUCTS,
    PRODUCT_PERFORMANCE,
    PRODUCT_RECOMMENDATIONS,
    PUBLISHED_MODELS,
    SERVED_MODELS,
    SESSIONS,
    SHOPPER_EVENTS,
    USER_SEGMENTS,
)
from clickstream_assets.defs import partitions
from clickstream_assets.defs.models.checks import chosen_is_not_worse_than_popularity
from clickstream_assets.defs.resources import (
    ComputeResource,
    LakeResource,
    PostgresResource,
    SettingsResource,
)
from clickstream_assets.defs.serving import lists as serving
from clickstream_assets.settings import Settings
from clickstream_assets_tests.defs.pipeline import Pipeline, Rows

FIRST, LAST = "2024-05-01", "2024-05-04"
DAYS = [f"2024-05-0{day}" for day in (1, 2, 3, 4)]
DAILY = (
    SESSIONS,
    USER_SEGMENTS,
    PRODUCT_PERFORMANCE,
    CATEGORY_CONVERSION,
    DAILY_SUMMARY,
    FUNNEL,
    CAMPAIGN_ATTRIBUTION,
)
DAILY_ASSETS = [
    *(dg.AssetKey(table.name) for table in (*DAILY, SHOPPER_EVENTS)),
    dg.AssetKey("published_days"),
]
MODEL_TABLES = (
    PRODUCT_RECOMMENDATIONS,
    POPULAR_PRODUCTS,
    MODEL_EVALUATION,
    PUBLISHED_MODELS,
    SERVED_MODELS,
)


def event(
    moment: str, user: str, product: str = "p1", event_type: str = "view", **more: Any
) -> dict[str, Any]:
    """An event as a shop sends it; `moment` is like `05-01 10:00`, in 2024 and UTC."""
    timestamp = f"2024-{moment.replace(' ', 'T')}:00Z"
    return {
        "event_id": f"{user} {moment} {product} {event_type}",
        "event_type": event_type,
        "user_id": user,
        "product_id": product,
        "timestamp": timestamp,
        **more,
    }


FOUR_DAYS = [
    *(
        event(f"05-0{day} 1{hour}:00", user, f"p{day + hour + 3 * number}")
        for day in (1, 2, 3, 4)
        for hour in (0, 4)
        for number, user in enumerate(("ann", "bob", "eve"))
    ),
    event("05-02 10:05", "ann", "p2", "purchase", price="9.99", quantity=2, order_id="o1"),
    # One visit across midnight: it belongs to the day on which it starts.
    event("05-02 23:50", "owl", "p1"),
    event("05-03 00:10", "owl", "p2", "purchase", price="1.50", order_id="o2"),
    # Two visits, 50 minutes apart, until an event between them comes in.
    event("05-02 23:20", "bat", "p1"),
    event("05-03 00:10", "bat", "p3"),
]
LATE = event("05-02 23:45", "bat", "p4")


@pytest.fixture
def pipeline(pipeline_env: Settings, instance: dg.DagsterInstance, definitions: dg.Definitions) -> Pipeline:
    return Pipeline(pipeline_env, instance, definitions)


def daily_tables(pipeline: Pipeline) -> list[Rows]:
    """The daily tables as they are served, having seen that the lake's are the same."""
    for table in DAILY:
        assert pipeline.served(table) == pipeline.lake(table)
    return [pipeline.served(table) for table in DAILY]


def visits(pipeline: Pipeline, user: str) -> list[tuple[date, int]]:
    """A user's served sessions: day and number of events."""
    rows = pipeline.served(SESSIONS)
    return sorted((row["session_date"], row["total_events"]) for row in rows if row["user_id"] == user)


def summed(changes: dict[str, dict[str, dict[str, int]]]) -> dict[str, dict[str, int]]:
    """The changes of all days together, by table."""
    totals: dict[str, Counter[str]] = {}
    for of_day in changes.values():
        for table, counts in of_day.items():
            totals.setdefault(table, Counter()).update(counts)
    return {table: dict(counts) for table, counts in totals.items()}


@pytest.mark.long
def test_a_range_in_one_run_is_the_same_as_parts_of_it_in_any_order(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    pipeline.ingest(*FOUR_DAYS)
    # Less than a day's events, so that the range is worked through in several chunks.
    monkeypatch.setattr(partitions, "ROWS_PER_CHUNK", 20)
    pipeline.refresh(FIRST, LAST, DAILY_ASSETS)
    at_once = daily_tables(pipeline)
    assert visits(pipeline, "owl") == [(date(2024, 5, 2), 2)]
    assert sum(row["total_events"] for row in at_once[0]) == len(FOUR_DAYS)
    assert [(row["report_date"], row["user_id"]) for row in at_once[1] if row["segment"] == "buyer"] == [
        (date(2024, 5, 2), "ann"),
        (date(2024, 5, 3), "owl"),
    ]

    for table in (*DAILY, SHOPPER_EVENTS):
        shutil.rmtree(Path(pipeline.settings.lake) / table.name)
    for first, last in ((DAYS[2], DAYS[3]), (DAYS[0], DAYS[0]), (DAYS[1], DAYS[1])):
        pipeline.refresh(first, last, DAILY_ASSETS)
    assert daily_tables(pipeline) == at_once


@pytest.mark.long
def test_new_events_are_served_a_late_one_repairs_them_and_running_again_changes_no_row(pipeline: Pipeline):
    pipeline.ingest(*FOUR_DAYS)
    assert pipeline.catch_up() == [(FIRST, LAST)]
    pipeline.train()
    served = daily_tables(pipeline)
    assert visits(pipeline, "bat") == [(date(2024, 5, 2), 1), (date(2024, 5, 3), 1)]
    recommended = pipeline.served(PRODUCT_RECOMMENDATIONS)
    assert {row["user_id"] for row in recommended} == {"ann", "bob", "eve", "owl", "bat"}

    pipeline.ingest(LATE)
    # Its own day, and those that a visit that goes on after midnight can change.
    assert pipeline.catch_up() == [("2024-05-02", "2024-05-04")]
    repaired = daily_tables(pipeline)
    assert repaired != served
    assert visits(pipeline, "bat") == [(date(2024, 5, 2), 3)]
    changes = pipeline.reported_by_day("published_days", "changes")
    assert list(changes) == DAYS[1:]
    # The visit that was in the night after the second day is no longer one of the third.
    assert [changes[day]["clickstream_sessions"] for day in DAYS[1:]] == [
        {"rows": 8, "inserted": 0, "updated": 1, "deleted": 0},
        {"rows": 6, "inserted": 0, "updated": 0, "deleted": 1},
        {"rows": 6, "inserted": 0, "updated": 0, "deleted": 0},
    ]
    assert summed(changes) == {
        # The visit on 2 May is longer, and the one on 3 May is part of it.
        "clickstream_sessions": {"rows": 20, "inserted": 0, "updated": 1, "deleted": 1},
        "user_segments": {"rows": 13, "inserted": 0, "updated": 1, "deleted": 0},
        # The event is of a product that nobody met that day; four with as many views come after it now.
        "product_performance": {"rows": 21, "inserted": 1, "updated": 4, "deleted": 0},
        "category_conversion": {"rows": 3, "inserted": 0, "updated": 1, "deleted": 0},
        # A visit less on the day after.
        "daily_summary": {"rows": 3, "inserted": 0, "updated": 2, "deleted": 0},
        # Ann is a customer from the second of the three days on, so that there are five groups by RFM segment.
        "funnel": {"rows": 45, "inserted": 0, "updated": 0, "deleted": 0},
        # Two days with an order, three models, no campaign.
        "campaign_attribution": {"rows": 6, "inserted": 0, "updated": 0, "deleted": 0},
        "daily_report": {"rows": 3, "inserted": 0, "updated": 3, "deleted": 0},
    }
    # A refresh does not train.
    assert pipeline.served(PRODUCT_RECOMMENDATIONS) == recommended
    pipeline.train()
    anew = pipeline.served(PRODUCT_RECOMMENDATIONS)
    assert anew != recommended
    # Lists that say the same stay as they were.
    alike = [user for user, its in lists(anew).items() if its == lists(recommended).get(user)]
    first, second = ({row["user_id"]: row["model_version"] for row in rows} for rows in (recommended, anew))
    now = pipeline.reported("als_model", "model_version")
    assert second == {user: first[user] if user in alike else now for user in second}
    assert len(pipeline.served(PUBLISHED_MODELS)) == 2

    # Nothing is new: running again writes no row.
    pipeline.refresh(FIRST, LAST)
    pipeline.train()
    assert daily_tables(pipeline) == repaired
    for changes in (
        *summed(pipeline.reported_by_day("published_days", "changes")).values(),
        pipeline.reported("product_recommendations", "changes"),
    ):
        assert changes.pop("rows") > 0
        assert changes == {"inserted": 0, "updated": 0, "deleted": 0}


@pytest.mark.long
def test_metadata_of_a_range_says_for_each_day_what_is_that_days(pipeline: Pipeline):
    pipeline.ingest(*FOUR_DAYS)
    pipeline.refresh(FIRST, LAST)
    published: Counter[str] = Counter()
    for table in (*DAILY, DAILY_REPORT):
        rows = Counter(str(row[str(table.day)]) for row in pipeline.lake(table))
        per_day = {day: rows[day] for day in DAYS}
        assert pipeline.reported_by_day(table.name, "dagster/partition_row_count") == per_day
        assert pipeline.reported(table.name, "dagster/row_count") == rows.total()
        published += rows
    assert pipeline.reported_by_day("published_days", "dagster/partition_row_count") == dict(published)
    for asset, name in (
        ("sessions", "sessions_by_step"),
        ("user_segments", "users_by_segment"),
        ("product_performance", "most_viewed_products"),
        ("category_conversion", "conversion_by_category"),
        ("daily_summary", "events_by_day"),
        ("funnel", "users_by_step"),
        ("daily_report", "report"),
    ):
        shown = pipeline.reported_by_day(asset, name)
        assert list(shown) == DAYS
        assert all(day in text for day, text in shown.items())
        assert len(set(shown.values())) == len(DAYS)
    # Numbers, of which Dagster draws plots over the days.
    summaries = {str(row["report_date"]): row for row in pipeline.lake(DAILY_SUMMARY)}
    for name in ("revenue", "orders", "sessions", "conversion_rate", "users"):
        expected = {day: float(row[name]) for day, row in summaries.items()}
        assert pipeline.reported_by_day("daily_summary", name) == expected
    buyers = {day: row["buyer_count"] for day, row in summaries.items()}
    assert pipeline.reported_by_day("daily_summary", "buyers") == buyers
    for step in FUNNEL_STEPS:
        reached = {
            str(row["report_date"]): row["users"]
            for row in pipeline.lake(FUNNEL)
            if (row["dimension"], row["step"]) == ("overall", step)
        }
        assert pipeline.reported_by_day("funnel", f"funnel_{step}") == reached
    # Only two of the days have an order.
    assert list(pipeline.reported_by_day("campaign_attribution", "revenue_by_campaign")) == DAYS[1:3]


@pytest.mark.long
def test_days_far_apart_are_one_run_which_touches_none_between(pipeline: Pipeline):
    strays = ["2024-03-01", "2024-04-10", "2024-05-20"]
    pipeline.ingest(*(event(f"{day[5:]} 10:00", "ann") for day in [*strays, "2024-06-20"]))
    assert pipeline.catch_up() == [("2024-06-20", "2024-06-20"), (strays[0], strays[0])]
    daily_tables(pipeline)
    assert sorted(str(row["session_date"]) for row in pipeline.served(SESSIONS)) == [*strays, "2024-06-20"]
    assert [str(row["report_date"]) for row in pipeline.served(DAILY_REPORT)] == [*strays, "2024-06-20"]
    for key in (*DAILY_ASSETS, dg.AssetKey("daily_report")):
        assert pipeline.instance.get_materialized_partitions(key) == {*strays, "2024-06-20"}
        assert list(pipeline.reported_by_day(key.path[-1], "dagster/partition_row_count")) == strays
    assert pipeline.reported_by_day("sessions", "dagster/partition_row_count") == dict.fromkeys(strays, 1)


@pytest.mark.long
def test_a_model_that_is_served_again_is_the_one_that_is_served(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    def served_with(seed: int) -> Any:
        monkeypatch.setenv("MODEL_SEED", str(seed))
        pipeline.train()
        version = pipeline.reported("als_model", "model_version")
        served = {row["answers"]: row["model_version"] for row in pipeline.served(SERVED_MODELS)}
        assert served == {
            "recommendations": version,
            "next_product": pipeline.reported("next_product_models", "model_version"),
        }
        return version

    pipeline.ingest(event("05-01 10:00", "ann"), event("05-01 11:00", "bob", "p2"))
    pipeline.refresh("2024-05-01", "2024-05-01")
    first, second, third = (served_with(seed) for seed in (1, 2, 1))
    assert first == third != second
    assert [row["model_version"] for row in pipeline.served(PUBLISHED_MODELS)] == sorted([first, second])
    serving = PostgresResource().serving()
    assert serving is not None
    assert serving[0] == "popularity"
    assert pipeline.served(MET_PRODUCTS) == [
        {"user_id": "ann", "product_ids": ["p1"]},
        {"user_id": "bob", "product_ids": ["p2"]},
    ]


@pytest.mark.long
def test_days_far_apart_are_all_served_with_what_rests_on_them(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(serving, "USERS_PER_CHUNK", 1)
    pipeline.ingest(event("05-01 10:00", "ann"), event("06-20 10:00", "bob", "p2"))
    assert pipeline.catch_up() == [("2024-06-20", "2024-06-20"), ("2024-05-01", "2024-05-01")]
    pipeline.train()
    sessions, segments, *_ = daily_tables(pipeline)
    assert [row["session_date"] for row in sorted(sessions, key=lambda row: row["session_date"])] == [
        date(2024, 5, 1),
        date(2024, 6, 20),
    ]
    assert len(segments) == 2
    assert {row["user_id"] for row in pipeline.served(PRODUCT_RECOMMENDATIONS)} == {"ann", "bob"}
    (model,) = pipeline.served(PUBLISHED_MODELS)
    assert (model["users"], model["rows"], model["interactions"]) == (2, 2, 2)
    assert (model["first_day"], model["last_day"]) == (date(2024, 5, 1), date(2024, 6, 20))


@pytest.mark.long
def test_days_of_a_lake_that_was_made_anew_are_reported_again(pipeline: Pipeline):
    pipeline.ingest(event("05-01 10:00", "ann"))
    shutil.rmtree(pipeline.settings.lake)
    pipeline.ingest()
    assert pipeline.reported("events", "dirty_days") == ["2024-05-01"]


@pytest.mark.long
def test_days_that_a_killed_run_did_not_report_are_reported_by_the_next(
    pipeline: Pipeline, definitions: dg.Definitions
):
    # The events are in the lake; the report of this run is lost with its instance.
    killed = Pipeline(pipeline.settings, dg.DagsterInstance.ephemeral(), definitions)
    killed.ingest(event("05-01 10:00", "ann"))
    pipeline.ingest()
    assert pipeline.reported("events", "new_events") == 0
    assert pipeline.reported("events", "dirty_days") == ["2024-05-01"]


@pytest.mark.long
def test_a_model_that_is_worse_than_popularity_is_not_published(pipeline: Pipeline):
    pipeline.ingest(*FOUR_DAYS)
    pipeline.refresh(FIRST, LAST)
    pipeline.train()
    served = [pipeline.served(table) for table in MODEL_TABLES]
    check = chosen_is_not_worse_than_popularity(lake_resource())
    assert isinstance(check, dg.AssetCheckResult)
    assert check.passed

    rewrite_evaluation(pipeline, als=0.1, popularity=0.2, chosen="als")
    check = chosen_is_not_worse_than_popularity(lake_resource())
    assert isinstance(check, dg.AssetCheckResult)
    assert not check.passed
    assert check.description == (
        "als is chosen with nDCG 0.1000, and popularity has 0.2000: not to be published"
    )
    # Alone the asset is not behind the check, and refuses by itself.
    result = pipeline.materialize("product_recommendations")
    assert not result.success
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert "not to be published" in failed.step_failure_data.error_display_string
    assert [pipeline.served(table) for table in MODEL_TABLES] == served


def lake_resource() -> LakeResource:
    settings = SettingsResource()
    return LakeResource(settings=settings, compute=ComputeResource(settings=settings))


def rewrite_evaluation(pipeline: Pipeline, chosen: str, **ndcg: float) -> None:
    """Let the evaluation say this of the algorithms."""
    path = f"{pipeline.settings.lake}/{MODEL_EVALUATION.name}"
    row = DeltaTable(path).to_pyarrow_table().to_pylist()[0]
    rows = [
        {
            **row,
            "target": "next",
            "is_served": False,
            "algorithm": algorithm,
            "ndcg": figure,
            "chosen": algorithm == chosen,
        }
        for algorithm, figure in ndcg.items()
    ]
    write_deltalake(path, pa.Table.from_pylist(rows, schema=MODEL_EVALUATION.arrow), mode="overwrite")


def lists(rows: list[dict[str, Any]]) -> dict[str, list[tuple[Any, ...]]]:
    """Each user's list, without scores and versions."""
    found: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row["user_id"], row["rank"])):
        found[row["user_id"]].append(
            tuple(row[name] for name in ("product_id", "algorithm", "reason", "reason_product_id"))
        )
    return found
