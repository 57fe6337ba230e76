"""Days renewed by persons, against the same days made whole of all events at once."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from clickstream_assets.analytics.identity import IdentityRules
from clickstream_assets.catalogue import (
    EVENTS,
    EXCHANGE_RATES,
    SESSION_INPUTS,
    SESSIONS,
    SHOPPER_EVENTS,
    SHOPPER_INPUTS,
    Table,
)
from clickstream_assets.defs import renewal
from clickstream_assets.defs.partitions import REQUEST_TAG, Days
from clickstream_assets.defs.renewal import PersonRows, Sources, renew_days
from clickstream_assets.defs.resources import ComputeResource, LakeResource, SettingsResource
from clickstream_assets.defs.sessions.assets import (
    rows_of_sessions,
    rows_of_shoppers,
    sessions,
    shopper_events,
)
from clickstream_assets.engine import DataFrame, DuckDBEngine, Engine
from clickstream_assets.ingest.reach import dirty_days
from clickstream_assets.ingest.ties import update_ties
from clickstream_assets.settings import Settings
from clickstream_assets.stores.exchange_rates import Rate, ShopMoney
from clickstream_assets.stores.lake import Lake, conform
from clickstream_assets_tests.analytics.records import day, event, event_table
from clickstream_assets_tests.analytics.who import START, random_histories

Event = dict[str, Any]
SETTINGS = Settings(
    _env_file=None,
    identity_lookback_days=2,
    identity_max_users=3,
    session_gap_minutes=180,
    bot_views_per_minute=2,
    session_cut_at_campaign=True,
    attribution_days=1,
)
FIRST, LAST = START.date() - timedelta(days=3), START.date() + timedelta(days=12)


PERSONS, WHOLE = "_renew_rows", "_renew_whole"


class Killed(Exception):
    """An error by which a test ends a run."""


class Shop:
    """Events in a lake, and the two tables of days that are made of them there."""

    def __init__(self, engine: Engine, folder: str | Path, settings: Settings = SETTINGS) -> None:
        self.lake = Lake(str(folder), engine)
        self.settings = settings
        self.reported = 0
        self.computed: list[tuple[str, int]] = []
        """Each time that rows were computed: of which table, and of how many events."""

    def ingest(self, *events: Event) -> None:
        """One batch of events, and the ties that they make."""
        batch = self.lake.snapshot(EVENTS).batch + 1
        rows = event_table(
            {**one, "batch": batch, "offset": 1000 * batch + number} for number, one in enumerate(events)
        )
        self.lake.append_batch(EVENTS, self.lake.engine.from_arrow(rows), batch)
        update_ties(self.lake, IdentityRules.of(self.settings))

    def refresh(self, *days: str, is_whole: bool = False) -> None:
        """Do what a run does of some days (default: DAYS)."""
        self.renew(Days.of(map(day, days or DAYS)), is_whole)

    def refresh_dirty(self) -> None:
        """Do what a run does of the days that events since the last one make dirty."""
        newest = self.lake.snapshot(EVENTS).batch
        self.renew(Days.of(dirty_days(self.lake, self.reported, self.settings)))
        self.reported = newest

    def renew(self, days: Days, is_whole: bool = False) -> None:
        sources = Sources.of(self.lake, self.settings)
        for rows in (rows_of_sessions(self.settings), rows_of_shoppers(self.lake)):
            renew_days(sources, self.noting(rows), days, is_whole)

    def noting(self, rows: PersonRows) -> PersonRows:
        """The same, and each call of what computes is noted."""

        def compute(events: DataFrame, first: date, last: date) -> DataFrame:
            self.computed.append((rows.table.name, self.lake.engine.to_arrow(events).num_rows))
            return rows.compute(events, first, last)

        return PersonRows(**{**vars(rows), "compute": compute})

    def rows(self, table: Table, df: DataFrame | None = None) -> list[dict[str, Any]]:
        """Rows of a table, or of what is to be it, in the order of its key."""
        found = conform(self.lake.engine.to_arrow(self.lake.read(table) if df is None else df), table)
        return found.sort_by([(name, "ascending") for name in table.key]).to_pylist()

    def assert_right(self) -> None:
        """Both tables are those of all events at once."""
        sources = Sources.of(self.lake, self.settings)
        for rows in (rows_of_sessions(self.settings), rows_of_shoppers(self.lake)):
            events = sources.settled(sources.read(FIRST, LAST))
            expected = self.rows(rows.table, rows.compute(events, FIRST, LAST))
            assert self.rows(rows.table) == expected, rows.table.name

    def took(self, act: Callable[[], None]) -> list[tuple[str, int]]:
        """Return what computing `act` takes: tables and numbers of events."""
        self.computed.clear()
        act()
        return list(self.computed)


@pytest.fixture(autouse=True)
def _days_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "LEAST_EVENTS", 1)
    monkeypatch.setattr(renewal, "MOST_SHARE", 0.5)


@pytest.fixture
def shop(duckdb_engine: DuckDBEngine, tmp_path: Path) -> Shop:
    return Shop(duckdb_engine, tmp_path)


def history(seed: int, crowds: int, size: int) -> list[Event]:
    """Events of crowds who share ids among themselves alone: visits over midnight, orders, campaigns, robots."""
    source = random.Random(seed)
    found = []
    for one in random_histories(*range(seed, seed + crowds), size=size):
        one |= {
            "event_type": source.choice(["view", "view", "view", "purchase"]),
            "campaign": source.choice([None, None, "mail", "search"]),
            "price": Decimal(source.randrange(1, 9)),
            "is_bot": source.random() < 0.02,
        }
        found.append(one)
        # Views faster than a person's, which make all of a visit a bot's.
        found += [
            one | {"event_id": f"{one['event_id']}-{n}", "event_type": "view"}
            for n in range(4 * (source.random() < 0.03))
        ]
    return found


def parts_of(events: list[Event], parts: int, seed: int) -> list[list[Event]]:
    """Events as they come: most in the order of days, and some late, so that the last parts are small."""
    source = random.Random(seed)
    ordered = sorted(events, key=lambda one: one["event_time"])
    found: list[list[Event]] = [[] for _ in range(parts)]
    for one in ordered:
        found[source.randrange(1, parts) if source.random() < 0.03 else 0].append(one)
    return [part for part in found if part]


@pytest.mark.slow
@pytest.mark.long_on_spark
def test_days_of_late_events_are_those_of_all(engine: Engine, tmp_path: Path):
    shop = Shop(engine, tmp_path)
    seen: list[int] = []
    for part in parts_of(history(3, crowds=8, size=40), 3, 3):
        shop.ingest(*part)
        seen += [count for _, count in shop.took(shop.refresh_dirty)]
        shop.assert_right()
    # Later parts were not made whole.
    assert min(seen[2:]) < max(seen[:1]) / 4


@pytest.mark.long
@given(
    seed=st.integers(0, 1_000),
    parts=st.integers(2, 6),
    killed=st.none() | st.tuples(st.integers(1, 5), st.integers(0, 4)),
    compacted=st.integers(0, 6),
    share=st.sampled_from([0.1, 0.5, 1.0]),
)
@hypothesis_settings(
    max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
def test_whatever_comes_when_days_are_those_of_all(
    duckdb_engine: DuckDBEngine,
    seed: int,
    parts: int,
    killed: tuple[int, int] | None,
    compacted: int,
    share: float,
):
    """Late events, ties, bots, several ingests before a run, files put together, and a run that is killed."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(renewal, "MOST_SHARE", share)
        shop = Shop(duckdb_engine, folder)
        for number, part in enumerate(parts_of(history(seed, crowds=6, size=40), parts, seed)):
            half = len(part) // 2
            for some in (part[:half], part[half:]):
                if some:
                    shop.ingest(*some)
            if number == compacted:
                for table in (EVENTS, SESSIONS, SHOPPER_EVENTS):
                    shop.lake.maintain(table, timedelta(0))
            if killed and number == killed[0]:
                kill_at(patched, killed[1], shop.refresh_dirty)
                if seed % 2:
                    # The run that comes next has more that is new.
                    continue
            shop.refresh_dirty()
            shop.assert_right()
        shop.refresh_dirty()
        shop.assert_right()


def kill_at(patched: pytest.MonkeyPatch, commit: int, run: Callable[[], None]) -> None:
    """Have a run end before it makes some commit, if it makes so many."""
    done = 0

    def ending(write: Callable[..., Any]) -> Callable[..., Any]:
        def write_or_end(*given: Any, **more: Any) -> Any:
            nonlocal done
            if done == commit:
                raise Killed
            done += 1
            return write(*given, **more)

        return write_or_end

    with patched.context() as dying:
        for name in ("replace", "replace_rows", "append"):
            dying.setattr(Lake, name, ending(getattr(Lake, name)))
        try:
            run()
        except Killed:
            assert done == commit


DAYS = ("2024-05-01", "2024-05-02", "2024-05-03")


def visit(user: str | None, moment: str, **more: Any) -> Event:
    return event("view", moment, user, **{"event_id": f"{user} {moment}", **more})


def crowd(*days: str) -> list[Event]:
    """Ten persons with two events each on each day."""
    return [visit(f"u{n}", f"{its} {hour}:00") for its in days for n in range(10) for hour in (10, 11)]


@pytest.mark.slow
def test_a_late_event_computes_its_person_alone(shop: Shop):
    shop.ingest(*crowd(*DAYS))
    assert shop.took(shop.refresh) == [("sessions", 60), ("shopper_events", 60)]
    before = {row["session_id"]: row for row in shop.rows(SESSIONS)}
    shop.ingest(visit("u3", f"{DAYS[1]} 10:30", price=Decimal(5)))
    assert shop.took(shop.refresh) == [("sessions", 7), ("shopper_events", 7)]
    shop.assert_right()
    changed = [row for row in shop.rows(SESSIONS) if row != before[row["session_id"]]]
    assert [(row["user_id"], row["total_events"]) for row in changed] == [("u3", 3)]
    assert shop.took(shop.refresh) == []


@pytest.mark.slow
def test_a_login_moves_the_rows_of_the_visitor_to_the_user(shop: Shop):
    anonymous = [visit(None, f"{DAYS[0]} {hour}:00", anonymous_id="phone") for hour in (10, 11)]
    shop.ingest(*crowd(*DAYS), *anonymous)
    shop.refresh()
    shop.ingest(visit("u3", f"{DAYS[1]} 12:00", anonymous_id="phone"))
    # u3's two events of each day, the two of the phone, and the new one.
    assert shop.took(shop.refresh) == [("sessions", 9), ("shopper_events", 9)]
    shop.assert_right()
    assert {row["user_id"] for row in shop.rows(SHOPPER_EVENTS)} == {f"u{n}" for n in range(10)}
    # It is the same person's already: nobody else's.
    shop.ingest(visit(None, f"{DAYS[2]} 12:00", anonymous_id="phone"))
    assert [count for _, count in shop.took(shop.refresh)] == [10, 10]
    shop.assert_right()


@pytest.mark.slow
def test_a_bot_that_is_found_later_takes_its_events_of_the_next_days_along(shop: Shop):
    night = [visit("u3", f"{DAYS[0]} 23:{minute}") for minute in (10, 55)]
    shop.ingest(*crowd(*DAYS), *night, visit("u3", f"{DAYS[1]} 00:10"))
    shop.refresh()
    fast = [
        visit("u3", f"{DAYS[0]} 23:20", event_id=f"fast{n}", event_time=night[0]["event_time"])
        for n in range(4)
    ]
    shop.ingest(*fast)
    assert max(count for _, count in shop.took(shop.refresh)) < 20
    shop.assert_right()
    (found,) = (row for row in shop.rows(SESSIONS) if row["is_bot"])
    assert (found["user_id"], found["total_events"]) == ("u3", 7)
    assert f"u3 {DAYS[1]} 00:10" not in {row["event_id"] for row in shop.rows(SHOPPER_EVENTS)}


@pytest.mark.slow
def test_days_before_that_are_made_later_are_looked_at_again(shop: Shop):
    """A day's shoppers were made with older sessions of the day before: what these did not know is new to them."""
    shop.ingest(*crowd(*DAYS), visit("u3", f"{DAYS[1]} 23:55"), visit("u3", f"{DAYS[2]} 00:10"))
    shop.refresh()
    fast = [visit("u3", f"{DAYS[1]} 23:55", event_id=f"fast{n}") for n in range(4)]
    shop.ingest(*fast)
    shop.refresh(DAYS[2])
    assert f"u3 {DAYS[2]} 00:10" in {row["event_id"] for row in shop.rows(SHOPPER_EVENTS)}
    shop.refresh(DAYS[1])
    shop.refresh(DAYS[2])
    shop.assert_right()
    assert f"u3 {DAYS[2]} 00:10" not in {row["event_id"] for row in shop.rows(SHOPPER_EVENTS)}


@pytest.mark.slow
def test_what_is_only_new_is_added_and_put_together_when_it_is_many_files(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(renewal, "MOST_FILES", 3)
    monkeypatch.setattr(renewal, "MOST_SHARE", 1)
    shop.ingest(*crowd(DAYS[0]))
    shop.refresh(DAYS[0])
    numbers = []
    for hour in (12, 13, 14, 15):
        shop.ingest(visit("u3", f"{DAYS[0]} {hour}:00"), visit("new", f"{DAYS[0]} {hour}:00"))
        if hour == 15:
            # Before it is said what the day was made from: the same is not added twice.
            kill_at(monkeypatch, 3, lambda: shop.refresh(DAYS[0]))
        shop.refresh(DAYS[0])
        numbers.append(shop.lake.snapshot(SHOPPER_EVENTS).files.num_rows)
    assert numbers == [2, 3, 1, 1]
    shop.assert_right()


@pytest.mark.slow
def test_what_another_run_adds_meanwhile_is_there_once(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    shop.ingest(*crowd(DAYS[0]))
    shop.refresh(DAYS[0])
    shop.ingest(visit("u3", f"{DAYS[0]} 12:00"))
    append = Lake.append

    def append_second(lake: Lake, table: Table, df: DataFrame) -> int:
        append(lake, table, df)
        return append(lake, table, df)

    with monkeypatch.context() as racing:
        racing.setattr(Lake, "append", append_second)
        shop.refresh(DAYS[0])
    shop.assert_right()


@pytest.mark.slow
def test_files_that_are_put_together_leave_a_day_as_it_was_made(shop: Shop):
    shop.ingest(*crowd(DAYS[0]))
    shop.ingest(*crowd(DAYS[1]))
    shop.refresh()
    shop.ingest(visit("u1", f"{DAYS[1]} 12:00"))
    for table in (EVENTS, SESSIONS, SHOPPER_EVENTS):
        shop.lake.maintain(table, timedelta(0))
    assert [count for _, count in shop.took(shop.refresh)] == [5, 5]
    shop.assert_right()


@pytest.mark.slow
@pytest.mark.parametrize(
    "which",
    [
        "settings",
        *(
            pytest.param(which, marks=pytest.mark.long)
            for which in ("rates", "version", "asked", "many", "few")
        ),
    ],
)
def test_days_are_made_whole_where_other_than_events_is_new(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, which: str
):
    shop.ingest(*crowd(*DAYS))
    shop.refresh()
    late = [visit("u3", f"{DAYS[1]} 10:30")]
    is_whole = which == "asked"
    if which == "settings":
        shop.settings = SETTINGS.model_copy(update={"session_gap_minutes": 20})
    elif which == "rates":
        money = ShopMoney("EUR", (Rate("USD", day(DAYS[0]), Decimal(2)),))
        shop.lake.replace(EXCHANGE_RATES, shop.lake.engine.from_arrow(money.table()))
    elif which == "version":
        monkeypatch.setattr(renewal, "version", lambda _: "another")
    elif which == "many":
        late = [visit(f"u{n}", f"{DAYS[1]} 10:30") for n in range(10)]
    elif which == "few":
        monkeypatch.setattr(renewal, "LEAST_EVENTS", 1_000)
    shop.ingest(*late)
    took = shop.took(lambda: shop.refresh(is_whole=is_whole))
    assert took == [("sessions", 60 + len(late)), ("shopper_events", 60 + len(late))]
    shop.assert_right()


@pytest.mark.slow
def test_a_rate_of_later_days_leaves_a_day_as_it_was_made(shop: Shop):
    shop.ingest(*crowd(*DAYS))
    shop.lake.replace(EXCHANGE_RATES, shop.lake.engine.from_arrow(ShopMoney("EUR", ()).table()))
    shop.refresh()
    later = ShopMoney("EUR", (Rate("USD", day("2024-05-05"), Decimal(2)),))
    shop.lake.replace(EXCHANGE_RATES, shop.lake.engine.from_arrow(later.table()))
    shop.ingest(visit("u3", f"{DAYS[1]} 10:30"))
    assert [count for _, count in shop.took(shop.refresh)] == [7, 7]


@pytest.mark.slow
def test_a_killed_run_of_other_settings_leaves_no_record_of_rows_that_are_gone(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    shop.ingest(*crowd(*DAYS))
    shop.refresh()
    shop.ingest(visit("u3", f"{DAYS[1]} 10:30"))
    shop.settings = SETTINGS.model_copy(update={"session_gap_minutes": 20})
    # After the sessions are written, and before it is said what from.
    kill_at(monkeypatch, 2, shop.refresh)
    shop.settings = SETTINGS
    shop.refresh()
    shop.assert_right()


@pytest.mark.long
@pytest.mark.parametrize("table", [EVENTS, SESSIONS, SHOPPER_EVENTS], ids=lambda table: table.name)
def test_a_table_that_was_put_back_has_its_days_made_whole(shop: Shop, table: Table):
    shop.ingest(*crowd(*DAYS))
    shop.refresh()
    version = shop.lake.version(table)
    # The row that it changes stays one row.
    lost = visit("u3", f"{DAYS[1]} 11:00", event_id="other")
    shop.ingest(lost)
    shop.refresh()
    put_back(shop.lake, table, version)
    if table is EVENTS:
        # What comes again comes in another batch, and with more.
        shop.ingest(visit("u4", f"{DAYS[1]} 11:00", event_id="another"), lost)
    shop.refresh()
    shop.assert_right()


def put_back(lake: Lake, table: Table, version: int) -> None:
    """A table's folder is as a backup of a version has it."""
    log = Path(DeltaTable(lake.path(table)).table_uri.removeprefix("file://")) / "_delta_log"
    for commit in sorted(log.glob("*.json")):
        if int(commit.stem) > version:
            commit.unlink()


@pytest.mark.slow
def test_runs_of_the_sensor_take_persons_and_those_of_a_person_whole_days(
    duckdb_engine: DuckDBEngine,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    monkeypatch.setenv("LAKE_PATH", str(tmp_path))
    shop = Shop(duckdb_engine, tmp_path, Settings(_env_file=None))
    settings = SettingsResource()
    resources = {
        "settings": settings,
        "lake": LakeResource(settings=settings, compute=ComputeResource(settings=settings)),
    }

    def made(**tags: str) -> list[str]:
        found: list[str] = []

        def noted(name: str) -> Callable[..., None]:
            method = getattr(renewal._Chunk, name)

            def note(*given: Any) -> None:
                found.append(name)
                method(*given)

            return note

        with monkeypatch.context() as noting:
            for name in (PERSONS, WHOLE):
                noting.setattr(renewal._Chunk, name, noted(name))
            dg.materialize(
                [sessions, shopper_events], resources=resources, instance=instance, partition_key=DAYS[0], tags=tags
            )  # fmt: skip
        return found

    shop.ingest(*crowd(DAYS[0]))
    asked = {REQUEST_TAG: "a request"}
    assert made(**asked) == [WHOLE, WHOLE]
    assert made(**asked) == []
    shop.ingest(visit("u3", f"{DAYS[0]} 10:30"))
    assert made(**asked) == [PERSONS, PERSONS]
    assert made() == [WHOLE, WHOLE]
    shop.assert_right()
    inputs = [shop.lake.rows(table).to_pylist() for table in (SESSION_INPUTS, SHOPPER_INPUTS)]
    assert [[row["events_batch"] for row in rows] for rows in inputs] == [[2], [2]]


def test_a_table_of_few_rows_is_read_and_replaced_alike_on_both_engines(engine: Engine, tmp_path: Path):
    lake = Lake(str(tmp_path), engine)
    row = {
        "report_date": day(DAYS[0]),
        "events_batch": 1,
        "ties_batch": 1,
        "events": "e",
        "rules": "r",
        "version": 1,
        "rows": 1,
    }
    assert lake.rows(SESSION_INPUTS).num_rows == 0
    for rows in ([row, row | {"report_date": day(DAYS[1])}], [row | {"events_batch": 2}], []):
        lake.replace_rows(SESSION_INPUTS, pa.Table.from_pylist(rows, schema=SESSION_INPUTS.arrow))
        assert lake.rows(SESSION_INPUTS).to_pylist() == rows
