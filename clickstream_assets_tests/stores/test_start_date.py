"""First day of the partitions: set, kept with the lake, or that of the year before."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from clickstream_assets.catalogue import RAW_EVENTS
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.errors import InputError
from clickstream_assets.ingest.first_look import look_at
from clickstream_assets.ingest.replay import run_replay
from clickstream_assets.settings import Settings, load_settings
from clickstream_assets.simulator.run import SimulationOptions, run_simulation
from clickstream_assets.stores import start_date as module
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.start_date import keep_start_date, start_date


class House:
    """A lake, and the day that a process reads which starts in some year."""

    def __init__(self, folder: Path, engine: DuckDBEngine, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.lake = Lake(str(folder), engine)
        self._patch = patch
        patch.setenv("LAKE_PATH", str(folder))
        patch.delenv("EVENTS_START_DATE")

    def read(self, year: int) -> date:
        """Return the first day as a process has it that starts in a year."""

        class Clock(module.datetime):
            @classmethod
            def now(cls, tz=None):
                return cls(year, 6, 1, tzinfo=tz)

        with self._patch.context() as patch:
            patch.setattr(module, "datetime", Clock)
            return start_date(load_settings())

    def ingest(self, year: int) -> None:
        """An ingest of that year."""
        keep_start_date(self.lake, self.read(year))


@pytest.fixture
def house(tmp_path: Path, duckdb_engine: DuckDBEngine, monkeypatch: pytest.MonkeyPatch) -> House:
    return House(tmp_path / "lake", duckdb_engine, monkeypatch)


def test_it_is_the_first_of_january_of_the_year_before_the_first_ingest_also_years_later(house: House):
    assert house.read(2026) == date(2025, 1, 1)
    # Reading it makes no lake.
    assert not house.folder.exists()
    # Nothing has come in yet.
    assert house.read(2027) == date(2026, 1, 1)
    house.ingest(2026)
    house.ingest(2028)
    assert [house.read(year) for year in (2026, 2028, 2040)] == [date(2025, 1, 1)] * 3


def test_an_earlier_day_that_is_set_is_kept_and_a_later_one_counts_while_it_is_set(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    house.ingest(2026)
    for text, kept in (("2019-10-01", date(2019, 10, 1)), ("2026-03-01", date(2019, 10, 1))):
        monkeypatch.setenv("EVENTS_START_DATE", text)
        assert house.read(2026) == date.fromisoformat(text)
        house.ingest(2026)
        monkeypatch.delenv("EVENTS_START_DATE")
        assert house.read(2026) == kept


def test_it_comes_back_with_a_backup_of_the_lake(house: House, tmp_path: Path):
    house.ingest(2026)
    shutil.copytree(house.folder, tmp_path / "backup")
    shutil.rmtree(house.folder)
    assert house.read(2028) == date(2027, 1, 1)
    shutil.copytree(tmp_path / "backup", house.folder)
    assert house.read(2028) == date(2025, 1, 1)


def test_runs_that_keep_it_at_once_keep_the_same(house: House):
    house.lake.snapshot(RAW_EVENTS)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: keep_start_date(house.lake, date(2025, 1, 1)), range(4)))
    assert house.read(2040) == date(2025, 1, 1)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings that name no running server."""
    monkeypatch.setenv("EVENTS_START_DATE", "2025-01-01")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    return load_settings()


@pytest.mark.parametrize("timestamp", ['"2019-10-01T00:00:00Z"', "1569888000", "1569888000000"])
def test_a_file_of_older_events_is_refused_before_any_is_sent(
    offline: Settings, tmp_path: Path, timestamp: str
):
    file = tmp_path / "old.jsonl"
    file.write_text(
        f'{{"user_id": "u1", "product_id": "p1", "event_type": "view", "timestamp": {timestamp}}}\n{{broken\n'
    )
    with pytest.raises(InputError) as refused:
        run_replay(offline, file)
    assert "old.jsonl begins on 2019-10-01, before 2025-01-01" in str(refused.value)
    assert "Set EVENTS_START_DATE=2019-10-01 for Dagster" in str(refused.value)
    # The daily files take any.
    assert run_replay(offline, file, kafka=False).sent == 2


@pytest.mark.parametrize(("stray", "first"), [(2, "2025-03-01"), (3, "1999-12-31")])
def test_one_wrong_clock_in_a_hundred_does_not_make_a_file_an_old_one(
    offline: Settings, stray: int, first: str
):
    event = '{{"user_id": "u1", "product_id": "p1", "event_type": "view", "timestamp": "{}T00:00:00Z"}}'
    days = ["1999-12-31"] * stray + ["2025-03-01", *["2025-03-02"] * 249]
    look = look_at(offline, [(None, event.format(day).encode()) for day in days])
    assert look.first_day == date.fromisoformat(first)


def test_a_simulated_span_of_older_days_is_refused(offline: Settings):
    options = SimulationOptions(events=10, start=datetime(2024, 12, 31, tzinfo=UTC), days=1)
    with pytest.raises(InputError, match="the simulated span begins on 2024-12-31, before 2025-01-01"):
        run_simulation(offline, options)
