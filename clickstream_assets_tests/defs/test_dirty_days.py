"""The sensor `dirty_days`, which asks for refresh runs of days: a test per transition."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from threading import Timer

import dagster as dg
import pytest
from dagster import DagsterRun, DagsterRunStatus

from clickstream_assets.defs import dirty_days
from clickstream_assets.defs.dirty_days import RefreshState, dirty_days_sensor
from clickstream_assets.defs.partitions import MORE_DAYS_TAG, REQUEST_TAG, Days
from clickstream_assets_tests.dagster_private import freeze_time
from clickstream_assets_tests.defs.history import (
    CHECKS_OF_EVENTS,
    check_events,
    end_run,
    materialize,
    start_run,
    tick,
)

SUCCESS, FAILURE, CANCELED = DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED
UP_TO_DATE = "every day is up to date"


class Refreshing:
    """A Dagster instance, its sensor's cursor, and what is done between two looks."""

    def __init__(self, instance: dg.DagsterInstance, definitions: dg.Definitions) -> None:
        self.instance = instance
        self._definitions = definitions
        # The days that were never made are looked at where a test is about them.
        self.cursor: str | None = RefreshState(filled=date.max).model_dump_json()

    def report(self, *days: str) -> None:
        """`events` reports days that its new rows make dirty, and its checks pass."""
        self.report_unchecked(*days)
        check_events(self.instance)

    def report_unchecked(self, *days: str) -> None:
        """`events` reports days; its checks are still to come."""
        materialize(self.instance, "events", dirty_days=list(days), batch=1)

    def look(self) -> dg.RunRequest | str:
        """Return the run that the sensor asks for, or why it asks for none."""
        result = tick(dirty_days_sensor, self.instance, self._definitions, self.cursor)
        self.cursor = result.cursor
        if not result.run_requests:
            assert result.skip_message
            return result.skip_message
        (request,) = result.run_requests
        return request

    def ask(self) -> dg.RunRequest:
        """A look that has to ask for a run."""
        request = self.look()
        assert isinstance(request, dg.RunRequest), request
        return request

    def start(self, request: dg.RunRequest) -> DagsterRun:
        """The daemon launches the run that was asked for."""
        return start_run(self.instance, "refresh", tags=request.tags)

    def run(self, request: dg.RunRequest, status: DagsterRunStatus = SUCCESS, seconds_ago: float = 0) -> None:
        """The run that was asked for is launched, and ends."""
        end_run(self.instance, self.start(request), status, seconds_ago)

    def pass_time(self, seconds: float) -> None:
        """Let the last request be that much older."""
        assert self.cursor
        state = RefreshState.model_validate_json(self.cursor)
        state.requested_at -= seconds
        self.cursor = state.model_dump_json()


@pytest.fixture
def refreshing(instance: dg.DagsterInstance, definitions: dg.Definitions) -> Refreshing:
    return Refreshing(instance, definitions)


def days(tags: Mapping[str, str]) -> tuple[str, str]:
    """The first and last day of a run."""
    return tags["dagster/asset_partition_range_start"], tags["dagster/asset_partition_range_end"]


def test_without_a_day_nothing_starts(refreshing: Refreshing):
    assert refreshing.look() == UP_TO_DATE
    refreshing.report()
    assert refreshing.look() == UP_TO_DATE


def test_one_day_is_a_run_with_the_models_and_what_is_served(refreshing: Refreshing):
    refreshing.report("2024-05-01")
    request = refreshing.ask()
    assert days(request.tags) == ("2024-05-01", "2024-05-01")
    # All of the job.
    assert request.asset_selection is None
    assert request.partition_key is None


RANGES = {
    "days in a row are one range, whichever batch reported them": (
        "05-03 05-01, 05-02 05-01",
        "05-01/05-03",
    ),
    "they go on over the end of a month": ("02-28 02-29 03-01", "02-28/03-01"),
    "a week-end without events does not part them": ("05-02 05-03 05-06 05-10", "05-02/05-06, 05-10"),
    "the day that has waited longest comes first, with those around it, and all others come along": (
        "05-08, 04-01 04-20 04-22 05-05 05-07 05-10 05-20",
        "05-05/05-10, 04-01, 04-20/04-22, 05-20",
    ),
}


@pytest.mark.parametrize(("reports", "expected"), RANGES.values(), ids=RANGES)
def test_a_run_of_old_days_takes_many_ranges_at_once(refreshing: Refreshing, reports: str, expected: str):
    refreshing.cursor = RefreshState(newest_is_next=False, filled=date.max).model_dump_json()
    for report in reports.split(", "):
        refreshing.report(*(f"2024-{day}" for day in report.split()))
    tags = refreshing.ask().tags
    first, *more = ("/".join(f"2024-{day}" for day in text.split("/")) for text in expected.split(", "))
    assert "/".join(days(tags)) == first
    assert tags.get(MORE_DAYS_TAG, "") == ",".join(more)


@pytest.mark.slow
def test_the_newest_days_come_first_then_the_others_each_with_all_that_rests_on_it(refreshing: Refreshing):
    refreshing.report("2024-05-01", "2024-05-02", "2024-05-10", "2024-06-01")
    requests = []
    for expected, more in (
        (("2024-06-01", "2024-06-01"), None),
        (("2024-05-01", "2024-05-02"), "2024-05-10"),
    ):
        request = refreshing.ask()
        assert days(request.tags) == expected
        assert request.tags.get(MORE_DAYS_TAG) == more
        # With a part of the job alone, a day's report would have the carts and customers of before.
        assert request.asset_selection is None
        refreshing.run(request)
        requests.append(request)
    assert refreshing.look() == UP_TO_DATE
    assert len({request.run_key for request in requests}) == 2


def test_a_late_event_in_every_ingest_does_not_keep_today_waiting(refreshing: Refreshing):
    asked = []
    for _ in range(4):
        refreshing.report("2024-05-01", "2024-05-11")
        request = refreshing.ask()
        asked.append(days(request.tags)[0])
        refreshing.run(request)
    assert asked == ["2024-05-11", "2024-05-01", "2024-05-11", "2024-05-01"]


@pytest.mark.slow
def test_four_hundred_stray_old_days_are_four_runs_after_that_of_today(refreshing: Refreshing):
    today = date(2024, 5, 11)
    strays = [today - timedelta(days=11 * number) for number in range(1, 401)]
    refreshing.report(*map(str, strays))
    refreshing.report(str(today))
    asked = []
    while isinstance(request := refreshing.look(), dg.RunRequest):
        asked.append(list(Days.of_run(request.tags)))
        # Dagster's index of tags takes no longer ones.
        assert max(map(len, request.tags.values())) < 2_600
        refreshing.run(request)
    assert [len(its) for its in asked] == [1, 100, 100, 100, 100]
    assert asked[0] == [today]
    assert sorted(day for its in asked[1:] for day in its) == sorted(strays)


def test_stray_days_wait_for_today_no_more_than_once_each(refreshing: Refreshing):
    today = date(2024, 5, 11)
    refreshing.report(*(str(today - timedelta(days=11 * number)) for number in range(1, 150)))
    asked = []
    for _ in range(4):
        refreshing.report(str(today))
        request = refreshing.ask()
        asked.append(len(list(Days.of_run(request.tags))))
        refreshing.run(request)
    # Today is in line too, as it is dirty once more.
    assert asked == [1, 100, 1, 50]


def test_stray_days_that_fail_do_not_hold_up_the_others(refreshing: Refreshing):
    days_of_may = [f"2024-05-{day:02}" for day in range(1, 31, 5)]
    refreshing.report(*days_of_may)
    broken = date(2024, 5, 6)
    done: set[date] = set()
    runs = 0
    while len(done) < 5:
        its = set(Days.of_run((request := refreshing.ask()).tags))
        refreshing.run(request, FAILURE if broken in its else SUCCESS, seconds_ago=600)
        done |= set() if broken in its else its
        runs += 1
    assert broken not in done
    assert runs <= 12


def test_days_that_were_never_made_are_asked_for_once_a_day_when_all_else_is_done(
    refreshing: Refreshing, definitions: dg.Definitions, monkeypatch: pytest.MonkeyPatch
):
    graph = definitions.resolve_asset_graph()
    daily_assets = [
        key for key in graph.materializable_asset_keys if graph.get(key).partitions_def is not None
    ]
    shop = dg.DailyPartitionsDefinition(start_date="2024-05-01", timezone="UTC", end_offset=1)
    monkeypatch.setattr(dirty_days, "daily", lambda: shop)
    refreshing.cursor = None
    with freeze_time(datetime(2024, 5, 9, 12, tzinfo=UTC)):
        # A house without an event has nothing to make.
        assert refreshing.look() == UP_TO_DATE
        # With tomorrow, into which a visit of today can reach: it waits, and keeps no other waiting.
        refreshing.report("2024-05-04", "2024-05-07", "2024-05-10")
        request = refreshing.ask()
        made = list(Days.of_run(request.tags))
        assert made == [date(2024, 5, day) for day in (4, 5, 6, 7)]
        for asset in daily_assets:
            for day in made:
                metadata = {"lake_version": 4, "dagster/row_count": 9}
                refreshing.instance.report_runless_asset_event(
                    dg.AssetMaterialization(asset, partition=str(day), metadata=metadata)
                )
        refreshing.run(request)
        # Recommendations do not wait for thousands of days without events, nor these for trainings that fail.
        assert refreshing.look() == "1 days wait for their time to come"
        training = start_run(refreshing.instance, "train")
        assert refreshing.look() == "1 days wait for their time to come"
        end_run(refreshing.instance, training, FAILURE)
        # Before the first event, and after the newest.
        asked: list[date] = []
        while isinstance(more := refreshing.look(), dg.RunRequest):
            asked += Days.of_run(more.tags)
            refreshing.run(more)
        assert {day.day for day in asked} >= {1, 2, 3, 8, 9}
        assert refreshing.look() == "1 days wait for their time to come"


def test_a_day_that_fails_each_time_does_not_keep_another_waiting(refreshing: Refreshing):
    refreshing.report("2024-05-01", "2024-05-11")
    refreshing.run(refreshing.ask(), FAILURE, seconds_ago=11)
    request = refreshing.ask()
    assert days(request.tags) == ("2024-05-01", "2024-05-01")
    refreshing.run(request)
    assert days(refreshing.ask().tags) == ("2024-05-11", "2024-05-11")


def test_a_report_is_not_acted_on_before_its_checks(refreshing: Refreshing):
    refreshing.report_unchecked("2024-05-01")
    for check in CHECKS_OF_EVENTS:
        assert refreshing.look() == f"check {check} of events has not been carried out yet; 1 days wait"
        check_events(refreshing.instance, only=check)
    assert days(refreshing.ask().tags) == ("2024-05-01", "2024-05-01")


def test_checks_of_an_earlier_report_say_nothing_of_a_new_one(refreshing: Refreshing):
    refreshing.report("2024-05-01")
    refreshing.report_unchecked("2024-05-02")
    assert refreshing.look() == "check counts_close of events has not been carried out yet; 2 days wait"


def test_a_failed_check_holds_all_days_up_and_is_named(refreshing: Refreshing):
    refreshing.report("2024-05-01")
    refreshing.report_unchecked("2024-05-02")
    check_events(refreshing.instance)
    check_events(refreshing.instance, passed=False, only="event_ids_are_unique")
    for _ in range(2):
        assert refreshing.look() == "check event_ids_are_unique of events failed; 2 days wait"
    # A person has mended the table, and carried the check out again.
    check_events(refreshing.instance, only="event_ids_are_unique")
    assert days(refreshing.ask().tags) == ("2024-05-01", "2024-05-02")


def test_days_that_are_reported_during_an_evaluation_are_asked_for_by_it(
    refreshing: Refreshing, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SENSOR_INTERVAL_SECONDS", "0.1")
    Timer(0.15, refreshing.report, ["2024-05-01"]).start()
    request = refreshing.ask()
    assert days(request.tags) == ("2024-05-01", "2024-05-01")
    refreshing.run(request)
    monkeypatch.setenv("SENSOR_INTERVAL_SECONDS", "5")
    assert refreshing.look() == UP_TO_DATE


def test_a_second_run_does_not_start_while_one_is_under_way(refreshing: Refreshing):
    refreshing.report("2024-05-01")
    run = refreshing.start(refreshing.ask())
    refreshing.report("2024-05-05")
    # The days that wait survive in the cursor, look after look.
    for _ in range(2):
        assert refreshing.look() == f"run {run.run_id} is under way; 1 days wait"
    end_run(refreshing.instance, run, SUCCESS)
    assert days(refreshing.ask().tags) == ("2024-05-05", "2024-05-05")


def test_a_run_that_a_person_started_is_waited_for(refreshing: Refreshing):
    refreshing.report("2024-05-01")
    run = start_run(refreshing.instance, "refresh")
    assert refreshing.look() == f"run {run.run_id} is under way; 1 days wait"


def test_days_of_a_run_that_succeeded_are_not_asked_for_again(refreshing: Refreshing):
    refreshing.report("2024-05-01")
    refreshing.run(refreshing.ask())
    assert refreshing.look() == UP_TO_DATE


def test_days_of_a_failed_run_come_back_after_the_wait(refreshing: Refreshing):
    refreshing.report("2024-05-01", "2024-05-02")
    request = refreshing.ask()
    run = refreshing.start(request)
    refreshing.report("2024-05-03")
    end_run(refreshing.instance, run, FAILURE, seconds_ago=11)
    again = refreshing.ask()
    assert days(again.tags) == ("2024-05-01", "2024-05-03")
    assert again.run_key != request.run_key


def test_a_failing_run_is_not_started_in_every_tick(refreshing: Refreshing):
    refreshing.report("2024-05-01")
    refreshing.run(refreshing.ask(), FAILURE)
    reason = refreshing.look()
    assert isinstance(reason, str)
    assert reason.startswith("the last run failed; trying again in ")
    assert RefreshState.model_validate_json(refreshing.cursor or "").pending == [datetime(2024, 5, 1).date()]


def test_days_of_a_canceled_run_are_not_lost(refreshing: Refreshing):
    refreshing.report("2024-05-01")
    refreshing.run(refreshing.ask(), CANCELED)
    assert days(refreshing.ask().tags) == ("2024-05-01", "2024-05-01")


def test_days_that_are_dirty_again_while_they_are_computed_are_computed_again(refreshing: Refreshing):
    refreshing.report("2024-05-01")
    run = refreshing.start(refreshing.ask())
    refreshing.report("2024-05-01")
    assert refreshing.look() == f"run {run.run_id} is under way; 1 days wait"
    end_run(refreshing.instance, run, SUCCESS)
    request = refreshing.ask()
    assert days(request.tags) == ("2024-05-01", "2024-05-01")
    refreshing.run(request)
    assert refreshing.look() == UP_TO_DATE


def test_a_request_whose_run_never_came_to_be_is_made_again(refreshing: Refreshing):
    refreshing.report("2024-05-01")
    first = refreshing.ask()
    second = refreshing.ask()
    assert days(second.tags) == days(first.tags)
    # Dagster drops a request whose key it has seen.
    assert second.run_key != first.run_key
    assert second.tags[REQUEST_TAG] != first.tags[REQUEST_TAG]


def test_a_lost_cursor_starts_again_from_all_reports(refreshing: Refreshing):
    refreshing.report("2024-05-01")
    refreshing.run(refreshing.ask())
    refreshing.report("2024-05-02")
    refreshing.cursor = None
    assert days(refreshing.ask().tags) == ("2024-05-01", "2024-05-02")


def test_more_reports_than_one_look_reads_are_read_by_the_next(
    refreshing: Refreshing, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dirty_days, "REPORTS_READ_PER_TICK", 2)
    for day in ("2024-05-01", "2024-05-02", "2024-05-03"):
        refreshing.report(day)
    request = refreshing.ask()
    assert days(request.tags) == ("2024-05-01", "2024-05-02")
    refreshing.run(request)
    assert days(refreshing.ask().tags) == ("2024-05-03", "2024-05-03")


def test_a_day_that_is_still_to_come_waits_and_holds_up_no_other(refreshing: Refreshing):
    today = datetime.now(UTC).date()
    # Two days on, so that a midnight during the test does not matter.
    to_come = today + timedelta(days=2)
    refreshing.report("2024-05-01", to_come.isoformat())
    request = refreshing.ask()
    assert days(request.tags) == ("2024-05-01", "2024-05-01")
    assert request.asset_selection is None
    refreshing.run(request)
    assert refreshing.look() == "1 days wait for their time to come"


def test_today_does_not_wait_for_its_end(refreshing: Refreshing):
    today = datetime.now(UTC).date().isoformat()
    refreshing.report(today)
    assert days(refreshing.ask().tags) == (today, today)


def test_refreshes_keep_the_interval_that_is_set(refreshing: Refreshing, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REFRESH_INTERVAL_SECONDS", "3600")
    refreshing.report("2024-05-01")
    # The first does not wait.
    refreshing.run(refreshing.ask())
    refreshing.report("2024-05-02", "2024-05-14")
    reason = refreshing.look()
    assert isinstance(reason, str)
    assert reason.startswith("REFRESH_INTERVAL_SECONDS leaves 3")
    assert reason.endswith("; 2 days wait")
    refreshing.pass_time(3601)
    assert days(refreshing.ask().tags) == ("2024-05-02", "2024-05-02")
