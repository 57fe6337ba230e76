"""Errors in a step: which are tried again, which end the run with their message, and which are a fault of ours."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from clickstream_assets.catalogue import CARTS
from clickstream_assets.defs.checks import table_check
from clickstream_assets.defs.resources import PostgresResource, SettingsResource
from clickstream_assets.defs.steps import Retry, step
from clickstream_assets.errors import ClickstreamError
from clickstream_assets.settings import Settings

AT_ONCE = Retry(times=2, seconds=0)


class Body:
    """Raises an error each time, and counts how often."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.times = 0

    def __call__(self) -> None:
        self.times += 1
        raise self.error


def run(body: Callable[[], Any], retry: Retry = AT_ONCE) -> str:
    """Return what the UI shows of a failed asset's error, its cause included."""

    @dg.asset
    def failing() -> None:
        step(lambda: body(), retry=retry)()

    result = dg.materialize([failing], raise_on_error=False)
    assert not result.success
    (failed,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    metadata = failed.user_failure_data
    return metadata.description if metadata else failed.error_display_string


@pytest.mark.parametrize(
    "error", [ClickstreamError("the server is away", retryable=True), OSError("the disk is away")]
)
def test_what_may_pass_is_tried_again_as_often_as_is_said(error: Exception):
    body = Body(error)
    assert str(error) in run(body)
    assert body.times == 1 + AT_ONCE.times


def test_a_full_disk_is_tried_again_and_named_with_its_room():
    def body() -> None:
        Path("/dev/full").write_text("x")

    assert re.search(r"No space left on device: .* has [\d,]+ bytes free\. Free some", run(body))


def test_what_a_person_has_to_mend_ends_the_run_with_its_message_alone():
    body = Body(ClickstreamError("SETTING=1 is wrong; set it to 2"))
    assert run(body) == "SETTING=1 is wrong; set it to 2"
    assert body.times == 1


def test_a_fault_of_ours_fails_at_once_and_shows_where_it_is():
    body = Body(KeyError("a column"))
    shown = run(body)
    assert "KeyError: 'a column'" in shown
    assert "test_steps.py" in shown
    assert body.times == 1


def test_a_wrong_password_is_not_tried_again(postgres: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POSTGRES_HOST", postgres.postgres_host)
    monkeypatch.setenv("POSTGRES_PORT", str(postgres.postgres_port))
    monkeypatch.setenv("POSTGRES_PASSWORD", "wrong")
    times = []

    def body() -> None:
        times.append(1)
        PostgresResource().serving()

    assert "POSTGRES_PASSWORD" in run(body)
    assert len(times) == 1


def test_a_check_explains_its_errors_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FRESHNESS_MODELS_HOURS", "never")

    @table_check(CARTS)
    def reads_the_settings(settings: Settings) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=settings.freshness_models_hours > 0)

    result = dg.materialize(
        [reads_the_settings],
        selection=dg.AssetSelection.checks(reads_the_settings),
        resources={"settings": SettingsResource()},
        raise_on_error=False,
    )
    (failed,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert failed.user_failure_data
    assert "FRESHNESS_MODELS_HOURS='never'" in (failed.user_failure_data.description or "")
