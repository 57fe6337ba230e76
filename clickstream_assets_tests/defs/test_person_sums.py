"""Days of sums renewed by what their changed persons count for, against the same days made whole."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from clickstream_assets.analytics.persons import between
from clickstream_assets.catalogue import (
    CATEGORY_CONVERSION,
    CUSTOMER_SEGMENT_DAYS,
    CUSTOMER_SEGMENTS,
    FUNNEL,
    SHOPPER_EVENTS,
)
from clickstream_assets.defs import person_sums, renewal
from clickstream_assets.defs.partitions import Days
from clickstream_assets.defs.person_sums import PersonSums, renew_sums
from clickstream_assets.defs.reports.assets import sums_of_categories, sums_of_funnel
from clickstream_assets.engine import DataFrame, DuckDBEngine, Engine
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake
from clickstream_assets_tests.analytics.records import day
from clickstream_assets_tests.defs import test_renewal
from clickstream_assets_tests.defs.test_renewal import (
    DAYS,
    FIRST,
    LAST,
    Event,
    crowd,
    history,
    kill_at,
    parts_of,
    visit,
)

SETTINGS = test_renewal.SETTINGS.model_copy(update={"funnel_window_minutes": 12 * 60})
NAMES = ("champions", "lost", None)


class Shop(test_renewal.Shop):
    """The two tables of persons' rows, and the tables that are sums of them."""

    def __init__(self, engine: Engine, folder: str | Path, settings: Settings = SETTINGS) -> None:
        super().__init__(engine, folder, settings)
        self.summed: list[tuple[str, int]] = []
        """Each time that sums were computed: of which table, and of how many events."""

    @property
    def sums(self) -> list[PersonSums]:
        return [sums_of_categories(), sums_of_funnel(self.settings, self.lake)]

    def renew(self, days: Days, is_whole: bool = False) -> None:
        super().renew(days, is_whole)
        for sums in self.sums:
            renew_sums(self.lake, self.noting_sums(sums), days, is_whole)

    def noting_sums(self, sums: PersonSums) -> PersonSums:
        def of_events(events: DataFrame, first: date, last: date, by: Sequence[str]) -> DataFrame:
            self.summed.append((sums.table.name, self.lake.engine.to_arrow(events).num_rows))
            return sums.of_events(events, first, last, by)

        return replace(sums, of_events=of_events)

    def score(self, customers: dict[tuple[date, str], str | None]) -> None:
        """Customers as of the end of days, and a record of what they were made from."""
        rows = [
            {
                **dict.fromkeys(("frequency", "monetary", "refunds", "net_monetary"), 1),
                **dict.fromkeys(("abandoned_carts", "abandoned_value"), 0),
                "report_date": its_day,
                "user_id": user,
                "rfm_segment": name,
            }
            for (its_day, user), name in customers.items()
        ]
        self.lake.replace_rows(CUSTOMER_SEGMENTS, pa.Table.from_pylist(rows, schema=CUSTOMER_SEGMENTS.arrow))
        made = [
            {
                "report_date": its_day,
                "as_of": None,
                "events": 1,
                "fingerprint": str(sorted(item for item in customers.items() if item[0][0] == its_day)),
            }
            for its_day in sorted({its_day for its_day, _ in customers})
        ]
        schema = pa.schema([field.with_nullable(True) for field in CUSTOMER_SEGMENT_DAYS.arrow])
        made_rows = pa.Table.from_pylist(made, schema=schema)
        as_of = pa.array([test_renewal.START] * len(made), CUSTOMER_SEGMENT_DAYS.arrow.field("as_of").type)
        place = made_rows.column_names.index("as_of")
        self.lake.replace_rows(CUSTOMER_SEGMENT_DAYS, made_rows.set_column(place, "as_of", as_of))

    def assert_right(self) -> None:
        super().assert_right()
        for sums in self.sums:
            events = between(self.lake.read(SHOPPER_EVENTS), "event_date", FIRST, LAST)
            expected = self.rows(sums.table, sums.to_rows(sums.of_events(events, FIRST, LAST, ())))
            assert self.rows(sums.table) == expected, sums.table.name

    def summed_by(self, act: Callable[[], None]) -> list[tuple[str, int]]:
        self.summed.clear()
        act()
        return list(self.summed)


@pytest.fixture(autouse=True)
def _days_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (renewal, person_sums):
        monkeypatch.setattr(module, "LEAST_EVENTS", 1)
    monkeypatch.setattr(renewal, "MOST_SHARE", 1)
    monkeypatch.setattr(person_sums, "MOST_SHARE", 0.5)


@pytest.fixture
def shop(duckdb_engine: DuckDBEngine, tmp_path: Path) -> Shop:
    return Shop(duckdb_engine, tmp_path)


def shopping(seed: int, crowds: int, size: int) -> list[Event]:
    """A history in which persons fill carts, buy and send back, of some categories and in two currencies."""
    source = random.Random(seed)
    kinds = ("view", "view", "add_to_cart", "purchase", "refund")
    return [
        one
        | {
            # A robot's views stay so many.
            "event_type": one["event_type"] if "-" in one["event_id"][8:] else source.choice(kinds),
            "product_category": source.choice(
                (None, "hats", "shoes", "shoes", f"rare{source.randrange(40)}")
            ),
            "price": Decimal(source.randrange(1, 9)) / 4,
            "currency": source.choice((None, "EUR", "USD")),
        }
        for one in history(seed, crowds, size)
    ]


def customers_at(seed: int) -> dict[tuple[date, str], str | None]:
    source = random.Random(seed)
    days = [FIRST + timedelta(days=number) for number in range((LAST - FIRST).days)]
    return {
        (its_day, f"{user}{crowd_seed}"): source.choice(NAMES)
        for its_day in days
        for user in "abcd"
        for crowd_seed in range(seed, seed + 3)
    }


@pytest.mark.long_on_spark
def test_days_of_late_events_are_those_of_all(engine: Engine, tmp_path: Path):
    shop = Shop(engine, tmp_path)
    shop.score(customers_at(3))
    seen: list[list[int]] = []
    for part in parts_of(shopping(3, crowds=5, size=40), 3, 3):
        shop.ingest(*part)
        seen.append([count for _, count in shop.summed_by(shop.refresh_dirty)])
        shop.assert_right()
    # Later parts were not made whole.
    assert max(seen[-1]) < max(seen[0]) / 2


@pytest.mark.long
@given(
    seed=st.integers(0, 1_000),
    parts=st.integers(2, 6),
    killed=st.none() | st.tuples(st.integers(1, 5), st.integers(0, 9)),
    compacted=st.integers(0, 6),
    scored=st.integers(0, 6),
    share=st.sampled_from([0.5, 2.0]),
)
@hypothesis_settings(
    max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
def test_whatever_comes_when_days_are_those_of_all(
    duckdb_engine: DuckDBEngine,
    seed: int,
    parts: int,
    killed: tuple[int, int] | None,
    compacted: int,
    scored: int,
    share: float,
):
    """Late events, logins, bots, customers of other segments, files put together, and a run that is killed."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(person_sums, "MOST_SHARE", share)
        shop = Shop(duckdb_engine, folder)
        shop.score(customers_at(seed))
        for number, part in enumerate(parts_of(shopping(seed, crowds=5, size=40), parts, seed)):
            shop.ingest(*part)
            if number == compacted:
                for table in (SHOPPER_EVENTS, FUNNEL, CATEGORY_CONVERSION):
                    shop.lake.maintain(table, timedelta(0))
            if number == scored:
                shop.score(customers_at(seed + 1))
                shop.refresh(*(str(FIRST + timedelta(days=number)) for number in range(16)))
            if killed and number == killed[0]:
                kill_at(patched, killed[1], shop.refresh_dirty)
            shop.refresh_dirty()
            shop.assert_right()


def test_a_late_event_counts_its_person_alone(shop: Shop):
    shop.ingest(*crowd(*DAYS))
    assert shop.summed_by(shop.refresh) == [("category_conversion", 60), ("funnel", 60)]
    shop.ingest(visit("u3", f"{DAYS[1]} 10:30", event_type="add_to_cart", price=Decimal(5)))
    # What the person counted for before, and now: of the day; and of the day before, which goes on in it.
    assert shop.summed_by(shop.refresh) == [
        ("category_conversion", 2 + 3),
        ("funnel", 4 + 5),
        ("funnel", 4 + 5),
    ]
    shop.assert_right()
    assert shop.summed_by(shop.refresh) == []


def test_a_login_that_takes_rows_away_is_followed(shop: Shop):
    anonymous = [visit(None, f"{DAYS[0]} {hour}:00", anonymous_id="phone") for hour in (10, 11)]
    shop.ingest(*crowd(*DAYS), *anonymous)
    shop.refresh()
    shop.ingest(visit("u3", f"{DAYS[0]} 12:00", anonymous_id="phone"))
    # Two events of the phone and two of u3 before, and five of u3 now; and for the funnel u3's two of the next day.
    assert shop.summed_by(shop.refresh) == [("category_conversion", 4 + 5), ("funnel", 6 + 7)]
    shop.assert_right()


def test_a_group_that_may_be_gone_has_its_day_made_whole(shop: Shop):
    rare = [visit("u3", f"{DAYS[0]} 10:00", event_id="rare", product_category="rare")]
    shop.ingest(*crowd(*DAYS), *rare)
    shop.refresh()
    assert "rare" in {row["category"] for row in shop.rows(CATEGORY_CONVERSION)}
    shop.ingest(*(visit("u3", f"{DAYS[0]} 10:00", event_id=f"faster{n}") for n in range(3)))
    shop.refresh()
    shop.assert_right()
    assert "rare" not in {row["category"] for row in shop.rows(CATEGORY_CONVERSION)}


@pytest.mark.parametrize(
    "which",
    [
        "settings",
        "customers",
        "many",
        *(pytest.param(which, marks=pytest.mark.long) for which in ("asked", "few", "another writer")),
    ],
)
def test_days_are_made_whole_where_other_than_events_is_new(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, which: str
):
    customers = {(day(DAYS[0]), f"u{n}"): "lost" for n in range(10)}
    shop.score(customers)
    shop.ingest(*crowd(*DAYS))
    shop.refresh()
    late = [visit("u3", f"{DAYS[1]} 10:30")]
    if which == "settings":
        shop.settings = SETTINGS.model_copy(update={"funnel_window_minutes": 20})
    elif which == "customers":
        shop.score(customers | {(day(DAYS[0]), "u4"): "champions"})
    elif which == "few":
        monkeypatch.setattr(person_sums, "LEAST_EVENTS", 1_000)
    elif which == "many":
        late += [visit(f"u{n}", f"{DAYS[1]} 10:30") for n in range(4, 10)]
    elif which == "another writer":
        lake = shop.lake
        lake.replace(FUNNEL, lake.read(FUNNEL))
    shop.ingest(*late)
    counts = [
        count
        for name, count in shop.summed_by(lambda: shop.refresh(is_whole=which == "asked"))
        if name == "funnel"
    ]
    assert max(counts) >= 20
    shop.assert_right()


def test_what_another_run_writes_meanwhile_leaves_no_record(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    shop.ingest(*crowd(*DAYS))
    shop.refresh()
    replace_ = Lake.replace

    def replace_twice(lake: Lake, *given: Any, **more: Any) -> None:
        replace_(lake, *given, **more)
        if given[0] is FUNNEL:
            replace_(lake, *given, **more)

    shop.ingest(visit("u3", f"{DAYS[1]} 10:30"))
    with monkeypatch.context() as racing:
        racing.setattr(Lake, "replace", replace_twice)
        shop.refresh()
    shop.ingest(visit("u3", f"{DAYS[1]} 10:40"))
    assert max(count for name, count in shop.summed_by(shop.refresh) if name == "funnel") > 20
    shop.assert_right()
