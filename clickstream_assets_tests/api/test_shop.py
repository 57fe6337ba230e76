"""What all figures have in common."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pytest
from flask.testing import FlaskClient

from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.settings import Settings
from clickstream_assets_tests.api.conftest import clients_of
from clickstream_assets_tests.api.shop import REPORT_DAY
from clickstream_assets_tests.databases import fresh_database, with_settings


@pytest.fixture
def client_of_empty_tables(postgres: Settings) -> Iterator[FlaskClient]:
    with fresh_database(postgres) as empty:
        yield from clients_of(empty)


def test_shop_has_its_clock_its_currency_and_its_days(settings: Settings) -> None:
    for client in clients_of(with_settings(settings, shop_time_zone="Pacific/Kiritimati")):
        before = ShopClock("Pacific/Kiritimati").today()
        answer = client.get("/api/shop").json
        assert before <= date.fromisoformat(answer.pop("today")) <= ShopClock("Pacific/Kiritimati").today()
        assert answer == {
            "time_zone": "Pacific/Kiritimati",
            "currency": "EUR",
            "first_day": str(REPORT_DAY),
            "last_day": str(REPORT_DAY),
        }


def test_before_the_first_day_there_are_neither_days_nor_a_currency(
    client_of_empty_tables: FlaskClient,
) -> None:
    answer = client_of_empty_tables.get("/api/shop").json
    assert (answer["currency"], answer["first_day"], answer["last_day"]) == (None, None, None)
    assert answer["time_zone"] == "UTC"
