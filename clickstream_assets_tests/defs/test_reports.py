"""The daily report in the pipeline: made, kept right, published, mailed once. On real servers."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from clickstream_assets.analytics.schema import DAILY_REPORT, DAILY_SUMMARY
from clickstream_assets.defs.reports.schedules import morning_report, morning_report_job
from clickstream_assets.postgres.tables import DAILY_REPORT_TABLE
from clickstream_assets.reports.document import without_time
from clickstream_assets.settings import Settings
from clickstream_assets_tests.databases import query
from clickstream_assets_tests.defs.pipeline import Pipeline
from clickstream_assets_tests.defs.test_backfill import event
from clickstream_assets_tests.mailbox import mailbox

CHECKS = {
    ("product_performance", "products_add_up_to_the_day"),
    ("category_conversion", "categories_add_up_to_the_day"),
    ("daily_summary", "users_are_those_of_the_segments"),
    ("daily_summary", "revenue_is_that_of_the_sessions"),
    ("funnel", "funnel_starts_with_all_viewers"),
    ("daily_report", "reports_say_what_the_summary_says"),
    *(
        (name, "keys_are_unique")
        for name in ("product_performance", "category_conversion", "daily_summary", "funnel", "daily_report")
    ),
}


@pytest.fixture
def pipeline(pipeline_env: Settings, instance: dg.DagsterInstance, definitions: dg.Definitions) -> Pipeline:
    return Pipeline(pipeline_env, instance, definitions)


def reports(pipeline: Pipeline) -> dict[date, dict[str, Any]]:
    """The served reports, having seen that the lake's are the same."""
    served = pipeline.served(DAILY_REPORT_TABLE)
    lake = pipeline.lake(DAILY_REPORT)
    assert [(row["report_date"], row["report"]) for row in served] == [
        (row["report_date"], row["report"]) for row in lake
    ]
    return {row["report_date"]: json.loads(row["report"]) for row in served}


def outcomes(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str], bool]:
    """Which of our checks passed."""
    found = {
        (check.asset_key.to_user_string(), check.check_name): check.passed
        for check in result.get_asset_check_evaluations()
    }
    return {name: passed for name, passed in found.items() if name in CHECKS}


def test_reports_are_made_and_those_that_compare_with_a_late_event_are_made_again(pipeline: Pipeline):
    days = [date(2024, 5, 1), date(2024, 5, 2), date(2024, 5, 8), date(2024, 5, 9)]
    pipeline.ingest(*(event(f"{day:%m-%d} 10:00", "ann") for day in days))
    assert pipeline.catch_up() == [("2024-05-01", "2024-05-02"), ("2024-05-08", "2024-05-09")]
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
    assert after[date(2024, 5, 9)] == before[date(2024, 5, 9)]
    assert pipeline.reported("daily_report", "changed_days") == ["2024-05-01", "2024-05-02", "2024-05-08"]

    # Nothing is new: the reports stay, with the time at which they were made …
    result = pipeline.refresh("2024-05-01", "2024-05-09")
    again = reports(pipeline)
    # … but for the customers, who are counted from all that is known: now from the late purchase too.
    assert after[date(2024, 5, 9)].pop("customer_segments") is None
    assert sum(again[date(2024, 5, 9)].pop("customer_segments").values()) == 1
    for day in days:
        assert without_time(again[day]) == without_time(after[day])
    assert [again[day]["generated_at"] == after[day]["generated_at"] for day in days[:3]] == [True] * 3
    # The days between were asked for too, and have nothing to tell.
    assert [report["total_events"] for day, report in again.items() if day not in days] == [0] * 5
    assert [row["report_date"] for row in pipeline.lake(DAILY_SUMMARY)] == days
    assert outcomes(result) == dict.fromkeys(CHECKS, True)


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
    assert {"sessions", "daily_report", "published_days", "report_mail"} <= {
        key.to_user_string() for key in job.asset_layer.executable_asset_keys
    }
    early = dg.build_schedule_context(scheduled_execution_time=datetime(2010, 1, 1, 2, tzinfo=UTC))
    assert isinstance(morning_report(early), dg.SkipReason)


def run_morning(pipeline: Pipeline, definitions: dg.Definitions, day: str) -> dg.ExecuteInProcessResult:
    return definitions.resolve_job_def(morning_report_job.name).execute_in_process(
        instance=pipeline.instance, partition_key=day, raise_on_error=False
    )


def test_the_morning_run_brings_the_day_up_to_date_and_mails_its_report_once_to_each(
    pipeline: Pipeline, definitions: dg.Definitions, monkeypatch: pytest.MonkeyPatch
):
    pipeline.ingest(event("05-01 10:00", "ann"), event("05-01 10:01", "ann", event_type="purchase"))
    assert run_morning(pipeline, definitions, "2024-05-01").success
    assert pipeline.reported("report_mail", "mailed") == "no: SMTP_HOST is not set"

    with mailbox() as received:
        monkeypatch.setenv("SMTP_HOST", received.host)
        monkeypatch.setenv("SMTP_PORT", str(received.port))
        monkeypatch.setenv("SMTP_TLS", "none")
        monkeypatch.setenv("REPORT_FROM", "shop@example.com")
        monkeypatch.setenv("REPORT_TO", "ann@example.com, bob@example.com")
        assert run_morning(pipeline, definitions, "2024-05-01").success
        assert pipeline.reported("report_mail", "mailed") == [
            "2024-05-01 to ann@example.com",
            "2024-05-01 to bob@example.com",
        ]
        # Somebody joins; the others have had it.
        monkeypatch.setenv("REPORT_TO", "ann@example.com, bob@example.com, eve@example.com")
        assert run_morning(pipeline, definitions, "2024-05-01").success
    assert pipeline.reported("report_mail", "mailed") == ["2024-05-01 to eve@example.com"]
    assert [to for _, to, _ in received.mails] == ["ann@example.com", "bob@example.com", "eve@example.com"]
    assert "Total Events: 2" in received.text(0)
    sent = query(pipeline.settings, "SELECT recipient, message_id FROM report_mails ORDER BY sent_at")
    assert [message_id for _, message_id in sent] == [mail["Message-ID"] for *_, mail in received.mails]


def test_today_is_reported_too(pipeline: Pipeline):
    now = datetime.now(UTC) - timedelta(minutes=1)
    pipeline.ingest(event("05-01 10:00", "ann") | {"timestamp": now.isoformat()})
    pipeline.catch_up()
    assert reports(pipeline)[now.date()]["total_events"] == 1
