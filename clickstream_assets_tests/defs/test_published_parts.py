"""Days that are published again, against the lake's rows; on a real PostgreSQL."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clickstream_assets.catalogue import CARTS
from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.defs.serving import parts
from clickstream_assets.defs.serving.parts import publish_days, withdraw_old_days
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake, conform
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets.stores.postgres.publishing import Keyed, Publication, Published, Rows, publication
from clickstream_assets_tests.databases import fresh_database, with_settings
from clickstream_assets_tests.defs.test_renewal import put_back

DAYS = [date(2024, 5, 1) + timedelta(days=number) for number in range(4)]
SIZES = [30, 2, 25, 20]
"""Carts of each day at first: of two or three days so many that a day is large."""
Carts = dict[str, tuple[date, int]]
"""Day and value of each cart, by its id."""


@pytest.fixture(scope="module")
def settings(postgres: Settings) -> Iterator[Settings]:
    with fresh_database(postgres) as own:
        yield own


class Shop:
    """Carts in a lake, and what PostgreSQL has of them."""

    def __init__(self, lake: Lake, settings: Settings) -> None:
        self.lake, self.settings = lake, settings
        self.carts: Carts = {}
        self.written: dict[date, Carts] = {}
        with connect(settings) as connection:
            connection.execute("TRUNCATE carts, published_parts")

    def write(self) -> None:
        """Write the days that are others than before, a commit each."""
        for day in DAYS:
            of_day = {name: cart for name, cart in self.carts.items() if cart[0] == day}
            if of_day != self.written.get(day, {}):
                self.lake.replace(CARTS, self.lake.engine.from_arrow(table(of_day)), days=(day, day))
                self.written[day] = of_day

    def publish(self, **more: Any) -> dict[date, Published]:
        with publication(self.settings) as transaction:
            return publish_days(self.lake, self.settings, transaction, CARTS, **more)

    def served(self) -> pa.Table:
        with publication(self.settings) as transaction:
            return transaction.read(CARTS).sort_by("cart_id")

    def assert_right(self) -> None:
        there = conform(self.lake.engine.to_arrow(self.lake.read(CARTS)), CARTS).sort_by("cart_id")
        assert there.num_rows == len(self.carts)
        assert self.served().to_pylist() == there.to_pylist()


def table(carts: Carts) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                **dict.fromkeys(CARTS.column_names),
                "cart_id": name,
                "user_id": name,
                "state": "open",
                "opened_at": datetime(2024, 5, 1, tzinfo=UTC),
                "last_activity_at": datetime(day.year, day.month, day.day, 12, tzinfo=UTC),
                "last_activity_date": day,
                "items": value,
                "quantity": Decimal(value),
                "value": Decimal(value),
                "product_ids": ["p, 1", f"p{value}"],
            }
            for name, (day, value) in carts.items()
        ],
        schema=CARTS.arrow,
    )


@pytest.fixture
def shop(
    duckdb_engine: DuckDBEngine, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Shop:
    monkeypatch.setattr(parts, "LEAST_ROWS", 15)
    shop = Shop(Lake(str(tmp_path), duckdb_engine), settings)
    for day, size in zip(DAYS, SIZES, strict=True):
        shop.carts |= {f"{day}-{number}": (day, 1) for number in range(size)}
    shop.write()
    shop.publish()
    shop.assert_right()
    return shop


@pytest.fixture
def scopes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, int]]:
    """A list that gets, at each publication of carts, whether it is of keys, and how many rows were sent."""
    found: list[tuple[bool, int]] = []
    publish_by = Publication.publish_by

    def noted(self: Publication, of: Any, rows: Rows, scope: Any = None) -> dict[Any, Published]:
        if of is CARTS:
            rows = list(rows.to_batches() if isinstance(rows, pa.Table) else rows)
            found.append((isinstance(scope, Keyed), sum(batch.num_rows for batch in rows)))
        return publish_by(self, of, rows, scope)

    monkeypatch.setattr(Publication, "publish_by", noted)
    return found


def change(shop: Shop, source: random.Random, times: int) -> None:
    for number in range(times):
        name = source.choice(sorted(shop.carts))
        day, value = shop.carts[name]
        what = source.randrange(4)
        if what == 0:
            shop.carts[name] = (source.choice(DAYS), value)
        elif what == 1:
            shop.carts[name] = (day, value + 1)
        elif what == 2:
            del shop.carts[name]
        else:
            shop.carts[f"{source.random()}-{number}"] = (day, 1)


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.long) for n in range(1, 5))])
def test_what_is_published_is_what_the_lake_has(shop: Shop, monkeypatch: pytest.MonkeyPatch, seed: int):
    """Rows that change, come, go, and move between large and small days; and runs without a publication."""
    source = random.Random(seed)
    monkeypatch.setattr(parts, "MOST_DIFFERING", source.choice((3, 1_000)))
    for _ in range(6):
        change(shop, source, source.randrange(1, 7))
        shop.write()
        if source.random() < 0.3:
            # Two versions of a day at once.
            shop.lake.append(CARTS, shop.lake.engine.from_arrow(CARTS.arrow.empty_table()))
        if source.random() < 0.2:
            continue
        shop.publish()
        shop.assert_right()


def test_of_a_large_day_only_the_rows_that_differ_are_sent(shop: Shop, scopes: list[tuple[bool, int]]):
    first, _, third, _ = DAYS
    shop.carts[f"{first}-3"] = (third, 5)
    shop.carts[f"{third}-4"] = (third, 7)
    del shop.carts[f"{first}-5"]
    shop.write()
    found = shop.publish()
    # The moved one is a row of the third day, and neither gone nor new.
    assert found[first] == Published(rows=28, inserted=0, updated=0, deleted=1)
    assert found[third] == Published(rows=26, inserted=0, updated=2, deleted=0)
    assert scopes == [(True, 2)]
    shop.assert_right()
    assert [its.rows for its in shop.publish(days=DAYS).values()] == [28, 2, 26, 20]
    assert scopes == [(True, 2)]


def test_other_days_than_those_that_are_asked_for_stay_as_they_are(shop: Shop):
    shop.carts = {name: (day, value + 1) for name, (day, value) in shop.carts.items()}
    shop.write()
    assert list(shop.publish(days=DAYS[1:3])) == DAYS[1:3]
    values = {row["cart_id"]: row["items"] for row in shop.served().to_pylist()}
    assert {day: {values[f"{day}-{n}"] for n in range(2)} for day in DAYS} == {
        day: {2 if day in DAYS[1:3] else 1} for day in DAYS
    }
    shop.publish(days=DAYS)
    shop.assert_right()


@pytest.mark.parametrize("which", ["asked", "old", "files are gone", "put back"])
def test_a_day_is_published_whole_where_the_version_of_before_may_be_another(
    shop: Shop, scopes: list[tuple[bool, int]], which: str
):
    more: dict[str, Any] = {}
    if which == "asked":
        more = {"is_whole": True}
        with connect(shop.settings) as connection:
            # Somebody has changed what nobody but the publication is to change.
            connection.execute("DELETE FROM carts WHERE cart_id LIKE '%-7'")
    elif which in ("old", "files are gone"):
        with connect(shop.settings) as connection:
            connection.execute("UPDATE published_parts SET published_at = now() - INTERVAL '8 days'")
    elif which == "put back":
        version = shop.lake.version(CARTS)
        shop.carts[f"{DAYS[0]}-1"] = (DAYS[0], 9)
        shop.write()
        shop.publish()
        scopes.clear()
        put_back(shop.lake, CARTS, version)
        shop.written[DAYS[0]] = {}
    shop.carts[f"{DAYS[0]}-3"] = (DAYS[0], 5)
    shop.write()
    if which == "files are gone":
        shop.lake.maintain(CARTS, timedelta(0))
    shop.publish(**more)
    assert scopes
    assert not any(is_keyed for is_keyed, _ in scopes)
    shop.assert_right()


def served_for(shop: Shop, days: int) -> Settings:
    """Settings that serve the last of DAYS, and some before it."""
    since = ShopClock(shop.settings.shop_time_zone).today() - DAYS[-1]
    return with_settings(shop.settings, served_persons_retention_days=since.days + days)


def test_days_past_their_retention_are_withdrawn_and_come_back_with_a_longer_one(
    shop: Shop, scopes: list[tuple[bool, int]]
):
    def served() -> list[int]:
        by_day = Counter(row["last_activity_date"] for row in shop.served().to_pylist())
        return [by_day[day] for day in DAYS]

    all_days = shop.settings
    two = served_for(shop, 2)
    assert withdraw_old_days(shop.lake, all_days) == {}
    assert withdraw_old_days(shop.lake, two) == {"carts": 32}
    assert served() == [0, 0, 25, 20]
    # Nothing of them was read from the lake.
    assert [rows for _, rows in scopes] == [0, 0]
    assert withdraw_old_days(shop.lake, two) == {}
    # A late event of such a day publishes nothing, and one of another day that day.
    shop.settings = two
    shop.carts["late"] = (DAYS[0], 7)
    shop.carts["new"] = (DAYS[3], 7)
    shop.write()
    counts = shop.publish()
    assert {day: its.rows for day, its in counts.items()} == {DAYS[3]: 21}
    assert shop.publish(days=[DAYS[0]]) == {DAYS[0]: Published()}
    assert shop.publish(days=DAYS[:1], is_whole=True) == {DAYS[0]: Published()}
    assert served() == [0, 0, 25, 21]
    shop.settings = served_for(shop, 3)
    shop.publish()
    assert served() == [0, 2, 25, 21]
    shop.settings = all_days
    shop.publish()
    shop.assert_right()


def test_a_withdrawal_that_is_interrupted_leaves_whole_days_and_is_made_up_for(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    one = served_for(shop, 1)
    with monkeypatch.context() as killed:
        publish_by = Publication.publish_by

        def kill(self: Publication, of: Any, rows: Rows, scope: Any = None) -> dict[Any, Published]:
            if of is CARTS and scope.values == (DAYS[1],):
                raise KeyboardInterrupt
            return publish_by(self, of, rows, scope)

        killed.setattr(Publication, "publish_by", kill)
        with pytest.raises(KeyboardInterrupt):
            withdraw_old_days(shop.lake, one)
    assert shop.served().num_rows == sum(SIZES[1:])
    assert withdraw_old_days(shop.lake, one) == {"carts": 27}
    assert shop.served().num_rows == SIZES[3]
