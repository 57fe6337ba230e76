from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from clickstream_assets.catalogue import FLASH_SALE_ALERTS, PRODUCT_WINDOWS
from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.publishing import publication
from clickstream_assets_tests.api.conftest import clients_of
from clickstream_assets_tests.databases import fresh_database
from clickstream_assets_tests.stores.postgres.rows import table

NOON = datetime(2024, 5, 31, 12, tzinfo=UTC)


def window(number: int, product_id: str, views: int) -> dict[str, Any]:
    start = NOON + timedelta(minutes=5 * number)
    return {
        "window_start": start,
        "window_end": start + timedelta(minutes=10),
        "window_date": start.date(),
        "product_id": product_id,
        "views": views,
        "add_to_carts": 0,
        "purchases": number,
        "total_events": views + number,
        "distinct_users": 1,
        "first_event_time": start,
        "last_event_time": start + timedelta(minutes=1),
        "is_final": number < 3,
        "batch_id": 1,
    }


def alert(number: int, product_id: str, state: str) -> dict[str, Any]:
    start = NOON + timedelta(minutes=5 * number)
    return {
        "window_start": start,
        "window_end": start + timedelta(minutes=10),
        "product_id": product_id,
        "views": 120,
        "purchases": 3,
        "alert_id": f"a{number}",
        "state": state,
        "conversion": 0.025,
        "first_window_start": start,
        "last_window_end": start + timedelta(minutes=15),
        "windows": 2,
        "is_confirmed": True,
        "resolved_at": start + timedelta(minutes=15) if state == "resolved" else None,
    }


@pytest.fixture(scope="module")
def client(postgres: Settings) -> Iterator[FlaskClient]:
    windows = [window(n, f"p{p}", 100 * p) for n in range(5) for p in (1, 2)]
    alerts = [alert(0, "p1", "resolved"), alert(1, "p2", "resolved"), alert(4, "p1", "open")]
    with fresh_database(postgres) as own:
        with publication(own) as transaction:
            transaction.publish(PRODUCT_WINDOWS, table(PRODUCT_WINDOWS, windows))
            transaction.publish(FLASH_SALE_ALERTS, table(FLASH_SALE_ALERTS, alerts))
        yield from clients_of(own)


def listed(client: FlaskClient, path: str) -> list[dict[str, Any]]:
    answer = client.get(f"/api/{path}")
    assert answer.status_code == 200, answer.text
    return answer.json[path.partition("?")[0]]


def windows(client: FlaskClient, query: str) -> list[tuple[int, str]]:
    """The windows' numbers and products."""
    return [(row["purchases"], row["product_id"]) for row in listed(client, f"windows{query}")]


def alerts(client: FlaskClient, query: str) -> list[str]:
    return [row["alert_id"] for row in listed(client, f"alerts{query}")]


def test_windows_are_listed_latest_first(client: FlaskClient) -> None:
    assert windows(client, "?limit=3") == [(4, "p1"), (4, "p2"), (3, "p1")]


def test_window_has_every_column_in_json_form(client: FlaskClient) -> None:
    [row] = listed(client, "windows?product_id=p2&state=closed&limit=1")
    assert list(row) == PRODUCT_WINDOWS.column_names
    assert (row["window_start"], row["window_end"]) == ("2024-05-31T12:10:00Z", "2024-05-31T12:20:00Z")
    assert (row["window_date"], row["views"], row["is_final"]) == ("2024-05-31", 200, True)
    assert row["product_category"] is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?state=open&product_id=p1", [(4, "p1"), (3, "p1")]),
        ("?state=closed&product_id=p1", [(2, "p1"), (1, "p1"), (0, "p1")]),
        ("?since=2024-05-31T12:10:00Z&until=2024-05-31T12:15:00Z", [(2, "p1"), (2, "p2")]),
        ("?sort=views&limit=2", [(4, "p2"), (3, "p2")]),
        ("?sort=purchases&order=asc&limit=3", [(0, "p1"), (0, "p2"), (1, "p1")]),
        ("?product_id=nothing", []),
    ],
)
def test_window_filters_and_order(client: FlaskClient, query: str, expected: list[tuple[int, str]]) -> None:
    assert windows(client, query) == expected


def test_window_pages_cover_all_once(client: FlaskClient) -> None:
    pages = [windows(client, f"?limit=3&offset={offset}&sort=views") for offset in range(0, 12, 3)]
    rows = [row for page in pages for row in page]
    assert len(rows) == len(set(rows)) == 10


def test_alerts_are_listed_latest_first_with_every_column(client: FlaskClient) -> None:
    assert alerts(client, "") == ["a4", "a1", "a0"]
    row = listed(client, "alerts")[1]
    assert list(row) == [*FLASH_SALE_ALERTS.column_names, "detected_at"]
    assert (row["state"], row["resolved_at"]) == ("resolved", "2024-05-31T12:20:00Z")
    assert row["usual_views"] is None
    assert datetime.fromisoformat(row["detected_at"]) > NOON


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?state=open", ["a4"]),
        ("?state=resolved&limit=1&offset=1", ["a0"]),
        ("?product_id=p1", ["a4", "a0"]),
        ("?since=2024-05-31T12:05:00Z", ["a4", "a1"]),
        ("?until=2024-05-31T12:05:00Z", ["a0"]),
    ],
)
def test_alert_filters(client: FlaskClient, query: str, expected: list[str]) -> None:
    assert alerts(client, query) == expected


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("windows?state=resolved", "state='resolved': must be one of open, closed"),
        ("windows?sort=product_id", "sort='product_id': must be one of window_start, views"),
        ("alerts?state=closed", "state='closed': must be one of open, resolved"),
        ("alerts?since=now", "since='now': must be a time such as 2024-05-31T12:00:00Z"),
    ],
)
def test_unusable_parameter_is_named_with_what_is_allowed(
    client: FlaskClient, query: str, message: str
) -> None:
    answer = client.get(f"/api/{query}")
    assert answer.status_code == 422
    assert message in answer.json["detail"]
