"""The daily report in the pipeline: made, kept right, published, mailed once. On real servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from clickstream_assets.catalogue import CUSTOMER_SEGMENTS, DAILY_REPORT, DAILY_SUMMARY, PRODUCT_PERFORMANCE
from clickstream_assets.defs.reports.assets import MailConfig, report_mail
from clickstream_assets.defs.reports.schedules import (
    morning_report,
    morning_report_job,
    report_mail_job,
    report_published,
)
from clickstream_assets.defs.resources import SettingsResource
from clickstream_assets.reports.document import DayRows, make_report
from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets_tests.databases import query
from clickstream_assets_tests.defs.pipeline import Pipeline
from clickstream_assets_tests.defs.test_backfill import event
from clickstream_assets_tests.mailbox import Mailbox, mailbox

REPORTED = dg.AssetSelection.assets("published_days").upstream()
CHECKS = {
    ("product_performance", "products_add_up_to_the_day"),
    ("category_conversion", "categories_add_up_to_the_day"),
    ("daily_summary", "users_are_those_of_the_segments"),
    ("daily_summary", "revenue_is_that_of_the_sessions"),
    ("daily_summary", "amounts_are_in_the_shops_currency"),
    ("funnel", "funnel_starts_with_all_viewers"),
    ("daily_report", "reports_say_what_the_summary_says"),
    *(
        (name, "keys_are_unique")
        for name in ("product_performance", "category_conversion", "daily_summary", "funnel", "daily_report")
    ),
}


@pytest.fixture
def pipeline(pipeline_env: Settings, instance: dg.DagsterInstance, definitions: dg.Definitions) -> Pipeline:
    return Pipeline(pipeline_env, instance, definitions, only=REPORTED)


def reports(pipeline: Pipeline) -> dict[date, dict[str, Any]]:
    """The served reports, having seen that the lake's are the same."""
    served = pipeline.served(DAILY_REPORT)
    lake = pipeline.lake(DAILY_REPORT)
    assert [(row["report_date"], row["report"]) for row in served] == [
        (row["report_date"], row["report"]) for row in lake
    ]
    return {row["report_date"]: json.loads(row["report"]) for row in served}


def outcomes(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str], bool]:
    """Return whether each of our checks passed."""
    found = {
        (check.asset_key.to_user_string(), check.check_name): check.passed
        for check in result.get_asset_check_evaluations()
    }
    return {name: passed for name, passed in found.items() if name in CHECKS}


@pytest.mark.long
def test_reports_are_made_and_those_that_compare_with_a_late_event_are_made_again(pipeline: Pipeline):
    days = [date(2024, 5, 1), date(2024, 5, 2), date(2024, 5, 8), date(2024, 5, 9)]
    pipeline.ingest(*(event(f"{day:%m-%d} 10:00", "ann") for day in days))
    assert pipeline.catch_up() == [("2024-05-08", "2024-05-09"), ("2024-05-01", "2024-05-02")]
    before = reports(pipeline)
    assert sorted(before) == days
    compared = before[date(2024, 5, 9)]["comparison"]
    assert compared["day_before"]["total_events"] == {"before": 1, "change": 0, "change_percent": 0}
    assert compared["week_before"]["date"] == "2024-05-02"
    assert before[date(2024, 5, 1)]["comparison"]["day_before"]["total_events"] is None

    pipeline.ingest(event("05-01 11:00", "bob", "p2", "purchase", price="10.00"))
    assert pipeline.catch_up() == [("2024-05-01", "2024-05-01")]
    after = reports(pipeline)
    assert after[date(2024, 5, 1)]["revenue"] == 10.0
    # The day after it and the week after it say how they compare with it now; the others stay as they were.
    for day in (date(2024, 5, 2), date(2024, 5, 8)):
        name = "day_before" if day.day == 2 else "week_before"
        assert after[day]["comparison"][name]["total_events"] == {
            "before": 2,
            "change": -1,
            "change_percent": -50.0,
        }
    # Every later day knows the customer now, also that which does not compare with the day of the purchase.
    assert [before[day]["customer_segments"] for day in days] == [None] * 4
    assert [sum(after[day]["customer_segments"].values()) for day in days] == [1] * 4
    assert pipeline.reported("daily_report", "changed_days") == [str(day) for day in days]

    # Nothing is new: the reports stay, with the time at which they were made.
    result = pipeline.refresh("2024-05-01", "2024-05-09")
    again = reports(pipeline)
    assert {day: again[day] for day in days} == after
    # The days between were asked for too, and nothing happened on them.
    assert [report["total_events"] for day, report in again.items() if day not in days] == [0] * 5
    assert [row["report_date"] for row in pipeline.lake(DAILY_SUMMARY)] == days
    assert outcomes(result) == dict.fromkeys(CHECKS, True)


@pytest.mark.long
def test_what_comes_in_while_a_run_is_under_way_is_in_none_of_its_tables(
    pipeline: Pipeline, definitions: dg.Definitions
):
    @dg.asset(deps=["sessions"], op_tags={"dagster/priority": "99"})
    def more() -> None:
        pipeline.ingest(event("05-01 10:10", "bob", "p2", "purchase", price="5.00"))

    pipeline.ingest(event("05-01 10:00", "ann"), event("05-01 10:05", "ann", "p2", "purchase", price="2.00"))
    assets: list[Any] = [*definitions.assets, more, *definitions.asset_checks]
    result = dg.materialize(
        assets,
        selection=(morning_report_job.selection & REPORTED) | dg.AssetSelection.assets("more"),
        resources=definitions.resources,
        instance=pipeline.instance,
        partition_key="2024-05-01",
    )
    assert outcomes(result) == dict.fromkeys(CHECKS, True)
    assert reports(pipeline)[date(2024, 5, 1)]["revenue"] == 2.0
    assert [row["total_events"] for row in pipeline.lake(DAILY_SUMMARY)] == [2]
    # It was reported, and has a run of its own.
    assert pipeline.catch_up() == [("2024-05-01", "2024-05-01")]
    assert reports(pipeline)[date(2024, 5, 1)]["revenue"] == 7.0


@pytest.mark.long
def test_sums_that_differ_keep_a_day_from_being_published(pipeline: Pipeline, definitions: dg.Definitions):
    pipeline.ingest(event("05-01 10:00", "ann"), event("05-01 10:05", "ann", "p2", "purchase", price="2.00"))
    pipeline.catch_up()
    pipeline.ingest(event("05-01 11:00", "bob", "p2", "purchase", price="5.00"))
    # Of the tables that are made of it only one is made anew: with the others it does not agree any more.
    job = definitions.resolve_implicit_global_asset_job_def()
    made = [
        dg.AssetKey(name)
        for name in ("shopper_events", "product_performance", "daily_report", "published_days")
    ]
    result = job.execute_in_process(
        instance=pipeline.instance, asset_selection=made, partition_key="2024-05-01", raise_on_error=False
    )
    assert not result.success
    assert outcomes(result)["product_performance", "products_add_up_to_the_day"] is False
    assert reports(pipeline)[date(2024, 5, 1)]["revenue"] == 2.0
    assert [row["revenue"] for row in pipeline.served(PRODUCT_PERFORMANCE) if row["purchases"]] == [2]


@pytest.mark.long
def test_a_purchase_after_midnight_is_in_the_funnel_of_the_day_before(pipeline: Pipeline):
    pipeline.ingest(
        event("05-01 23:20", "owl"),
        event("05-01 23:30", "owl", event_type="add_to_cart"),
        event("05-02 12:00", "ann"),
    )
    pipeline.catch_up()
    assert [step["users"] for step in reports(pipeline)[date(2024, 5, 1)]["funnel"]] == [1, 1, 0]
    # 45 minutes later: another session, but within the funnel's window of the view.
    pipeline.ingest(event("05-02 00:15", "owl", event_type="purchase"))
    pipeline.catch_up()
    assert [step["users"] for step in reports(pipeline)[date(2024, 5, 1)]["funnel"]] == [1, 1, 1]


def test_the_schedule_asks_for_the_day_before_at_two(definitions: dg.Definitions):
    assert (morning_report.cron_schedule, morning_report.execution_timezone) == ("0 2 * * *", "UTC")
    context = dg.build_schedule_context(scheduled_execution_time=datetime(2024, 5, 2, 2, tzinfo=UTC))
    request = morning_report(context)
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == "2024-05-01"
    job = definitions.resolve_job_def(morning_report_job.name)
    made = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
    assert {"sessions", "daily_report", "published_days", "published_shoppers"} <= made
    # A mail server can keep it waiting for an hour, and the tables must not.
    assert "report_mail" not in made
    early = dg.build_schedule_context(scheduled_execution_time=datetime(2010, 1, 1, 2, tzinfo=UTC))
    assert isinstance(morning_report(early), dg.SkipReason)


def run_morning(pipeline: Pipeline, definitions: dg.Definitions, day: str) -> dg.ExecuteInProcessResult:
    return definitions.resolve_job_def(morning_report_job.name).execute_in_process(
        instance=pipeline.instance, partition_key=day
    )


def run_mail(pipeline: Pipeline, definitions: dg.Definitions, day: str) -> Any:
    """Return what the run mails that `report_published` asks for after the morning's."""
    run = run_morning(pipeline, definitions, day)
    context = dg.build_run_status_sensor_context(
        sensor_name=report_published.name,
        dagster_event=run.get_run_success_event(),
        dagster_instance=pipeline.instance,
        dagster_run=run.dagster_run,
    )
    request = report_published(context)
    assert isinstance(request, dg.RunRequest)
    assert request.run_config["ops"] == {"report_mail": {"config": {"days": [day]}}}
    definitions.resolve_job_def(report_mail_job.name).execute_in_process(
        instance=pipeline.instance, run_config=request.run_config
    )
    return pipeline.reported("report_mail", "mailed")


@contextmanager
def mails_to(
    monkeypatch: pytest.MonkeyPatch, *recipients: str, refused: tuple[str, ...] = ()
) -> Iterator[Mailbox]:
    """A mail server that the settings name."""
    with mailbox(refused=refused) as received:
        for name, value in {
            "SMTP_HOST": received.host,
            "SMTP_PORT": received.port,
            "SMTP_TLS": "none",
            "REPORT_FROM": "shop@example.com",
            "REPORT_TO": ", ".join(recipients),
        }.items():
            monkeypatch.setenv(name, str(value))
        yield received


@pytest.mark.long
def test_the_morning_brings_the_day_up_to_date_and_mails_its_report_once_to_each(
    pipeline: Pipeline, definitions: dg.Definitions, monkeypatch: pytest.MonkeyPatch
):
    pipeline.ingest(event("05-01 10:00", "ann"), event("05-01 10:01", "ann", event_type="purchase"))
    assert run_mail(pipeline, definitions, "2024-05-01") == "no: SMTP_HOST is not set"
    # The run brings along what rests on no day, too.
    assert [row["user_id"] for row in pipeline.served(CUSTOMER_SEGMENTS)] == ["ann"]

    with mails_to(monkeypatch, "ann@example.com", "bob@example.com") as received:
        assert run_mail(pipeline, definitions, "2024-05-01") == [
            "2024-05-01 to ann@example.com",
            "2024-05-01 to bob@example.com",
        ]
        # Somebody joins; the others have had it.
        monkeypatch.setenv("REPORT_TO", "ann@example.com, bob@example.com, eve@example.com")
        assert run_mail(pipeline, definitions, "2024-05-01") == ["2024-05-01 to eve@example.com"]
    assert [to for _, to, _ in received.mails] == ["ann@example.com", "bob@example.com", "eve@example.com"]
    assert "Total Events: 2" in received.text(0)
    sent = query(pipeline.settings, "SELECT recipient, message_id FROM report_mails ORDER BY sent_at")
    assert [message_id for _, message_id in sent] == [mail["Message-ID"] for *_, mail in received.mails]


def test_the_day_before_is_mailed_unless_days_are_named_and_a_busy_server_is_tried_for_an_hour(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    now = datetime.now(UTC)
    yesterday, before = (now.date() - timedelta(days=number) for number in (1, 2))
    with connect(pipeline.settings) as connection:
        for day in (before, yesterday):
            connection.execute(
                "INSERT INTO daily_report (report_date, generated_at, report) VALUES (%s, now(), %s)",
                [day, json.dumps(make_report(day, DayRows(), {}, now))],
            )
    settings = SettingsResource()

    def mail(*days: str) -> Any:
        dg.materialize(
            [report_mail],
            instance=pipeline.instance,
            resources={"settings": settings},
            run_config=dg.RunConfig({"report_mail": MailConfig(days=list(days))}),
        )
        return pipeline.reported("report_mail", "mailed")

    busy = "busy@example.com"
    with mails_to(monkeypatch, busy, "ann@example.com", refused=(busy,)) as received:
        with pytest.raises(dg.RetryRequested) as raised:
            report_mail(MailConfig(), settings=settings)
        assert 3000 <= raised.value.max_retries * raised.value.seconds_to_wait <= 4500
        received.refused = ()
        assert mail() == [f"{yesterday} to {busy}"]
        assert mail(str(before), str(yesterday)) == [f"{before} to {busy}", f"{before} to ann@example.com"]
        with pytest.raises(dg.Failure, match=r"days=\['yesterday'\]: .*; write each as 2026-01-31"):
            report_mail(MailConfig(days=["yesterday"]), settings=settings)
    assert [to for _, to, _ in received.mails] == ["ann@example.com", busy, busy, "ann@example.com"]


def test_no_report_is_mailed_where_the_mail_server_is_there_for_incidents_alone(
    monkeypatch: pytest.MonkeyPatch,
):
    with mails_to(monkeypatch) as received:
        monkeypatch.setenv("INCIDENT_TO", "ops@example.com")
        # Dagster's type says nothing of what a step yields.
        results: Any = report_mail(MailConfig(days=["2024-05-01"]), settings=SettingsResource())
        (made,) = results
    assert made.metadata == {"mailed": "no: REPORT_TO is not set"}
    assert received.mails == []


@pytest.mark.long
def test_today_is_reported_too(pipeline: Pipeline):
    now = datetime.now(UTC) - timedelta(minutes=1)
    pipeline.ingest(event("05-01 10:00", "ann") | {"timestamp": now.isoformat()})
    pipeline.catch_up()
    assert reports(pipeline)[now.date()]["total_events"] == 1
