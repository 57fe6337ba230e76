"""Runs that are killed at each of their writes, on copies of the same house: the next one ends in the same tables."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from dagster import RunsFilter

from clickstream_assets.definitions import defs
from clickstream_assets.defs import dirty_days, runs
from clickstream_assets.defs.dagster_private import UNFINISHED
from clickstream_assets.defs.dirty_days import dirty_days_sensor
from clickstream_assets.defs.models.sensors import untrained_interactions
from clickstream_assets.defs.raw.sensors import new_records
from clickstream_assets.local.stack import Stack
from clickstream_assets.settings import Settings, load_settings
from clickstream_assets_tests.databases import pipeline_environment
from clickstream_assets_tests.faults.account import Part, compare_tables, take_account
from clickstream_assets_tests.faults.dying import POSTGRES, Request, run
from clickstream_assets_tests.faults.plugin import Fault
from clickstream_assets_tests.proofs.shop import SMALL_MODELS
from clickstream_assets_tests.proofs.test_put_back import (
    OWN,
    House,
    copy_dagster,
    copy_lake,
    copy_postgres,
)

pytestmark = [pytest.mark.server, pytest.mark.long, pytest.mark.timeout(7200)]
SENSORS = {"ingest": new_records, "refresh": dirty_days_sensor, "train": untrained_interactions}
OF = (Part.TOPIC, Part.LAKE)
# Each process would take seconds to load the libraries.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["clickstream_assets_tests.faults.dying"])


class Killed(House):
    """A house whose next run of a job is killed, as often as there are places for it."""

    def until(self, job: str) -> Request:
        """Run what the sensors ask for until it is a run of the job; return that."""
        for name, sensor in SENSORS.items():
            if name == job:
                ((_, asked),) = self.look(sensor)
                return Request.of(job, asked)
            assert self.settle([sensor]) == []
        raise AssertionError(f"there is no job {job}")

    def run(self, request: Request, write: int) -> tuple[int | None, list[str]]:
        """Carry a run out in a process that dies at a write; return how it ended and the writes that it reached."""
        log = self.home.parent / "writes"
        log.write_text("")
        environment = dict(os.environ) | {"DAGSTER_HOME": str(self.home)}
        process = FORKS.Process(target=run, args=(request, write, log, environment, Path.cwd()))
        process.start()
        process.join()
        return process.exitcode, log.read_text().splitlines()

    def report_gone(self) -> str:
        """Have the run whose process is gone marked as failed, as Dagster's run monitoring does; return its message."""
        (gone,) = self.instance.get_runs(RunsFilter(statuses=UNFINISHED))
        return str(self.instance.report_run_failed(gone).message)


@contextmanager
def _house(stack: Stack, postgres: Settings, folder: Path) -> Iterator[Killed]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(runs, "FIRST_WAIT_SECONDS", 0)
        # Thousands: the tests' first day is years before these events.
        patch.setattr(dirty_days, "_take_in_days_never_made", lambda *_: None)
        own = {**OWN, **SMALL_MODELS, "CLICKSTREAM_HOME": str(folder)}
        with pipeline_environment(postgres, stack.env() | own, patch, folder) as settings:
            house = Killed(settings, folder, defs())
            house.come_in()
            assert house.settle(list(SENSORS.values())) == []
            yield house
            house.instance.dispose()


@pytest.fixture(scope="module")
def house(
    stack: Stack, kafka: Settings, postgres: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Killed]:
    """A house with events in all tables, and a model."""
    assert kafka
    with _house(stack, postgres, tmp_path_factory.mktemp("house")) as built:
        yield built


def copies(house: House) -> list[Any]:
    """Copy lake, PostgreSQL and Dagster's database; return what puts each back."""
    return [copy(house) for copy in (copy_lake, copy_postgres, copy_dagster)]


def kills(writes: list[str], published: bool) -> list[int]:
    """The writes to die at, counted from 1: those before or after a publication, or the others.

    Before a write is after the one before it; the last one has the end of the run after it.
    """
    near = {place + after for place, name in enumerate(writes, 1) if name == POSTGRES for after in (0, 1)}
    return [place for place in range(1, len(writes) + 1) if (place in near) is published]


@pytest.mark.parametrize(
    ("job", "published"),
    [
        pytest.param("ingest", False, marks=pytest.mark.fault("kill_ingest_run"), id="ingest"),
        pytest.param("refresh", False, marks=pytest.mark.fault("kill_refresh"), id="refresh"),
        pytest.param("train", False, marks=pytest.mark.fault("kill_train"), id="train"),
        pytest.param("refresh", True, marks=pytest.mark.fault("kill_publication"), id="published by refresh"),
        pytest.param("train", True, marks=pytest.mark.fault("kill_publication"), id="published by train"),
    ],
)
def test_a_run_killed_at_any_write_is_made_good_by_the_next(
    house: Killed, job: str, published: bool, fault: Fault
):
    house.come_in()
    request = house.until(job)
    put_back = copies(house)
    code, writes = house.run(request, 0)
    assert code == 0
    expected = house.tables()
    seconds: list[float] = []
    for place in kills(writes, published):
        for store in put_back:
            store()
        code, reached = house.run(request, place)
        assert (code, reached) == (-signal.SIGKILL, writes[:place])
        said = house.report_gone()
        began = time.monotonic()
        assert house.settle([SENSORS[job]]) == []
        seconds.append(time.monotonic() - began)
        account = compare_tables(len(house.sent_events()), expected, house.tables())
        differences = account.lost + account.doubled
        assert not differences, f"killed before write {place} of {len(writes)}, {reached[-1]}: {differences}"
    fault.saw(f"{len(seconds)} kills of {job}, each with exit code {code}: {said}")
    fault.healthy_after(seconds)
    fault.settle(take_account(load_settings(), house.sent_events(), OF))
