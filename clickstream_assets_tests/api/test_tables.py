"""The lists of one table each: columns, filters and sorts over all of them, and rows counted by hand."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from flask.testing import FlaskClient

from clickstream_assets.catalogue import (
    CAMPAIGN_ATTRIBUTION,
    CARTS,
    CATEGORY_CONVERSION,
    COHORT_RETENTION,
    DAILY_SUMMARY,
    FLASH_SALE_ALERTS,
    FUNNEL,
    HOURLY_SUMMARY,
    PERSON_PREDICTIONS,
    PRODUCT_PERFORMANCE,
    PRODUCT_WINDOWS,
    PRODUCTS,
    RECORD_DAYS,
    REJECTED_COUNTS,
    REJECTED_SAMPLES,
    SESSIONS,
    Column,
    Table,
)
from clickstream_assets_tests.api.shop import NOON

Row = dict[str, Any]


class List(NamedTuple):
    """A list: its address, its table, and the parameters with which it has all rows."""

    path: str
    table: Table
    everything: dict[str, str] = {}


ALL_DAYS = {"since": "2024-05-01"}
LISTS = [
    List("/sessions", SESSIONS, {"include_bots": "true"}),
    List("/api/carts", CARTS),
    List("/api/windows", PRODUCT_WINDOWS),
    List("/api/alerts", FLASH_SALE_ALERTS),
    List("/api/days", DAILY_SUMMARY, ALL_DAYS),
    List("/api/hours", HOURLY_SUMMARY, ALL_DAYS),
    List("/api/funnel", FUNNEL, ALL_DAYS),
    List("/api/attribution", CAMPAIGN_ATTRIBUTION, ALL_DAYS),
    List("/api/cohorts", COHORT_RETENTION),
    List("/api/products", PRODUCT_PERFORMANCE, ALL_DAYS),
    List("/api/catalogue", PRODUCTS),
    List("/api/categories", CATEGORY_CONVERSION, ALL_DAYS),
    List("/api/rejected", REJECTED_COUNTS),
    List("/api/predictions", PERSON_PREDICTIONS),
    List("/api/rejected/samples", REJECTED_SAMPLES),
    List("/api/records", RECORD_DAYS),
]
# include_bots and a window's state have other values than their columns; they are tested by hand.
OTHER_VALUES = {"is_bot", "is_final"}


def columns_that(wanted: Callable[[Column], object]) -> list[Any]:
    """Return the cases of a test: each list with each of its columns that are wanted."""
    return [
        pytest.param(each, column, id=f"{each.path}-{column.name}")
        for each in LISTS
        for column in each.table.columns
        if wanted(column) and column.name not in OTHER_VALUES
    ]


def listed(client: FlaskClient, path: str, query: dict[str, str] | None = None) -> list[Row]:
    answer = client.get(path, query_string=query)
    assert answer.status_code == 200, answer.text
    return answer.json[path.partition("?")[0].rpartition("/")[2]]


def everything(client: FlaskClient, each: List, **query: str) -> list[Row]:
    rows = listed(client, each.path, {"limit": "1000", **each.everything, **query})
    assert rows or query
    return rows


@pytest.mark.parametrize("each", LISTS, ids=lambda each: each.path)
def test_rows_have_every_column_in_order(client: FlaskClient, each: List) -> None:
    # PostgreSQL alone has an alert's detected_at; products are named as they are now.
    more = {FLASH_SALE_ALERTS: ["detected_at", "name", "image"], PRODUCT_PERFORMANCE: ["name", "image"]}
    for row in everything(client, each):
        assert list(row) == [*each.table.column_names, *more.get(each.table, [])]


@pytest.mark.parametrize(("each", "column"), columns_that(lambda column: column.filter))
def test_filter_lists_the_rows_with_the_value(client: FlaskClient, each: List, column: Column) -> None:
    rows = everything(client, each)
    values = column.values or {*(row[column.name] for row in rows if row[column.name] is not None)}
    assert values
    for value in values:
        expected = [row for row in rows if row[column.name] == value]
        asked = str(value).lower() if isinstance(value, bool) else value
        assert everything(client, each, **{column.parameter or "": asked}) == expected
    if pa.types.is_string(column.type) and not column.values:
        assert everything(client, each, **{column.parameter or "": "nothing"}) == []


@pytest.mark.parametrize(("each", "column"), columns_that(lambda column: column.range))
def test_range_includes_its_first_value_and_the_last_day(
    client: FlaskClient, each: List, column: Column
) -> None:
    rows = everything(client, each)
    for bound in {row[column.name] for row in rows}:
        later = [row for row in rows if row[column.name] >= bound]
        assert everything(client, each, since=bound) == later
        included = {bound} if pa.types.is_date(column.type) else set()
        earlier = [row for row in rows if row[column.name] < bound or row[column.name] in included]
        assert everything(client, each, until=bound) == earlier


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize(("each", "column"), columns_that(lambda column: column.sort))
def test_sort_orders_equals_by_the_key_the_newest_first(
    client: FlaskClient, each: List, column: Column, order: str
) -> None:
    rows = everything(client, each)
    for name in reversed(each.table.key):
        rows.sort(key=lambda row: row[name], reverse=each.table.by_name[name].range)
    rows.sort(key=lambda row: row[column.name], reverse=order == "desc")
    assert everything(client, each, sort=column.name, order=order) == rows


IDENTITIES: dict[str, Callable[[Row], object]] = {
    "/sessions": lambda row: row["session_id"],
    "/api/carts": lambda row: row["cart_id"],
    # By their number.
    "/api/windows": lambda row: (row["purchases"], row["product_id"]),
    "/api/alerts": lambda row: row["alert_id"],
    "/api/funnel": lambda row: (row["report_date"][-2:], row["value"], row["step"], row["users"]),
    "/api/attribution": lambda row: (row["report_date"][-2:], row["model"], row["campaign"]),
    "/api/cohorts": lambda row: (row["cohort_week"], row["weeks_since"]),
    "/api/products": lambda row: (row["report_date"][-2:], row["product_id"]),
    "/api/catalogue": lambda row: (row["product_id"], row["available"]),
    "/api/categories": lambda row: (row["report_date"][-2:], row["category"]),
    "/api/rejected": lambda row: (row["rule"], row["field"], row["records"], row["share"]),
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        # People's sessions, those with the most events first; equals by id.
        ("/sessions", ["other-day", "s06", "s13", "s05", "s12", "s04", "s11", "s03", "s10", "s02"]),
        ("/sessions?include_bots=true&limit=1", ["robot"]),
        ("/sessions?user_id=u2&date=2024-05-31", ["s05", "s11", "s02", "s08", "s14"]),
        ("/sessions?user_id=u1&until=2024-05-31", ["s13", "s04", "s10", "s01", "s07"]),
        ("/sessions?since=2024-05-31&until=2024-06-01&furthest_step=purchase&limit=1", ["other-day"]),
        ("/sessions?campaign=spring", ["s03", "s02"]),
        ("/sessions?campaign=spring&furthest_step=none", []),
        ("/api/carts", ["c4", "c3", "c2", "c1", "c0"]),
        ("/api/carts?user_id=u2&state=open", ["c2"]),
        # By last activity: all of them were opened at noon.
        ("/api/carts?since=2024-05-31T15:00:00%2B02:00&until=2024-05-31T14:00:00Z", ["c1"]),
        ("/api/carts?sort=value", ["c1", "c3", "c4", "c0", "c2"]),
        ("/api/carts?sort=value&order=asc&limit=2&offset=2", ["c3", "c4"]),
        ("/api/windows?limit=3", [(4, "p1"), (4, "p2"), (3, "p1")]),
        ("/api/windows?state=open&product_id=p1", [(4, "p1"), (3, "p1")]),
        ("/api/windows?state=closed&product_id=p1", [(2, "p1"), (1, "p1"), (0, "p1")]),
        ("/api/windows?since=2024-05-31T12:10:00Z&until=2024-05-31T12:15:00Z", [(2, "p1"), (2, "p2")]),
        ("/api/windows?sort=views&limit=2", [(4, "p2"), (3, "p2")]),
        ("/api/alerts", ["a4", "a1", "a0"]),
        ("/api/alerts?state=resolved&limit=1&offset=1", ["a0"]),
        ("/api/alerts?product_id=p1&since=2024-05-31T12:00:00Z&until=2024-05-31T12:05:00Z", ["a0"]),
        # Without a day, the newest one.
        (
            "/api/funnel",
            [
                *[("31", "books", "view", 5), ("31", "books", "add_to_cart", 2)],
                *[("31", "books", "purchase", 0), ("31", "all", "view", 10)],
                *[("31", "all", "add_to_cart", 4), ("31", "all", "purchase", 3)],
                *[("31", "buyer", "view", 3), ("31", "buyer", "add_to_cart", 3)],
                ("31", "buyer", "purchase", 3),
            ],
        ),
        (
            "/api/funnel?since=2024-05-30&dimension=overall&limit=4&offset=2",
            [
                *[("31", "all", "purchase", 3), ("30", "all", "view", 8)],
                *[("30", "all", "add_to_cart", 4), ("30", "all", "purchase", 1)],
            ],
        ),
        ("/api/funnel?dimension=segment&value=buyer&limit=1", [("31", "buyer", "view", 3)]),
        ("/api/funnel?date=2024-05-30&dimension=category", []),
        ("/api/funnel?until=2024-05-29", []),
        (
            "/api/attribution",
            [("31", "last_touch", "(direct)"), ("31", "last_touch", "spring"), ("31", "linear", "spring")],
        ),
        ("/api/attribution?date=2024-05-30", [("30", "last_touch", "spring")]),
        (
            "/api/attribution?since=2024-05-30&until=2024-05-31&model=last_touch&campaign=spring",
            [("31", "last_touch", "spring"), ("30", "last_touch", "spring")],
        ),
        ("/api/cohorts", [("2024-05-27", 0), ("2024-05-20", 0), ("2024-05-20", 1)]),
        (
            "/api/rejected?limit=4",
            [
                *[("mapper_parsing_exception", "price", 1, 0.5), ("missing", "product_id", 5, 2.5)],
                *[("missing", "user_id", 2, 1.0), ("not_json", "(record)", 2, 1.0)],
            ],
        ),
        ("/api/rejected?rule=missing&sort=records&order=asc&limit=1", [("missing", "user_id", 2, 1.0)]),
        (
            "/api/rejected?since=2024-05-31T00:00:00Z&until=2024-05-31T13:00:00Z",
            [("unknown", "event_type", 3, 1.5)],
        ),
        ("/api/rejected?rejected_by=elasticsearch", [("mapper_parsing_exception", "price", 1, 0.5)]),
        ("/api/cohorts?since=2024-05-20&until=2024-05-26", [("2024-05-20", 0), ("2024-05-20", 1)]),
        ("/api/products?limit=2", [("31", "p1"), ("31", "p2")]),
        ("/api/products?date=2024-05-30", [("30", "p2"), ("30", "p1")]),
        (
            "/api/products?since=2024-05-30&sort=rank&limit=4",
            [("31", "p1"), ("30", "p2"), ("31", "p2"), ("30", "p1")],
        ),
        (
            "/api/products?since=2024-05-30&sort=purchases&order=desc&limit=3",
            [("30", "p2"), ("31", "p1"), ("30", "p1")],
        ),
        ("/api/products?category=books", [("31", "p1")]),
        ("/api/products?until=2024-05-01", []),
        ("/api/catalogue", [("p1", True), ("p2", False), ("p9", None)]),
        ("/api/catalogue?category=books&sort=price&order=desc", [("p9", None), ("p1", True)]),
        ("/api/catalogue?available=true", [("p1", True)]),
        ("/api/catalogue?product_id=p9&product_id=p1&product_id=nothing", [("p1", True), ("p9", None)]),
        ("/api/catalogue?brand=Ajax", [("p9", None)]),
        ("/api/categories", [("31", "toys"), ("31", "books"), ("31", "unknown")]),
        ("/api/categories?date=2024-05-30", [("30", "books")]),
        ("/api/categories?sort=revenue&limit=1&offset=1", [("31", "books")]),
        ("/api/categories?since=2024-05-30&category=books&sort=views", [("31", "books"), ("30", "books")]),
    ],
)
def test_rows_counted_by_hand(client: FlaskClient, path: str, expected: list[object]) -> None:
    identity = IDENTITIES[path.partition("?")[0]]
    assert [identity(row) for row in listed(client, path)] == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            "/sessions?limit=1&offset=1",
            {
                "total_events": 6,
                "session_date": "2024-05-31",
                "start_time": "2024-05-31T12:00:00Z",
                "end_time": "2024-05-31T12:01:30Z",
                "revenue": 19.99,
                "bot_reason": None,
                "client_session_ids": ["x", "y"],
            },
        ),
        (
            "/api/carts?limit=1&offset=1",
            {
                "opened_at": "2024-05-31T12:00:00Z",
                "last_activity_at": "2024-05-31T15:00:00Z",
                "value": 7.5,
                "product_ids": ["p1", 'p"2,'],
            },
        ),
        (
            "/api/windows?product_id=p2&state=closed&limit=1",
            {
                "window_start": "2024-05-31T12:10:00Z",
                "window_end": "2024-05-31T12:20:00Z",
                "window_date": "2024-05-31",
                "views": 200,
                "is_final": True,
                "product_category": None,
            },
        ),
        (
            "/api/alerts?limit=1&offset=1",
            {
                "state": "resolved",
                "resolved_at": "2024-05-31T12:20:00Z",
                "conversion_rate": 2.5,
                "usual_views": None,
            },
        ),
        (
            "/api/funnel?dimension=overall&limit=1",
            {"conversion_from_previous": None, "conversion_from_first": 100.0},
        ),
        (
            "/api/funnel?dimension=overall&offset=2",
            {"step_number": 3, "conversion_from_previous": 75.0, "conversion_from_first": 30.0},
        ),
        # Parts of orders are kept.
        ("/api/attribution?model=linear", {"orders": 0.3333, "revenue": 1.6667}),
        (
            "/api/cohorts?until=2024-05-20&offset=1",
            {"users": 10, "active_users": 9, "retention_rate": 90.0},
        ),
        (
            "/api/categories?limit=1",
            {"views": 20, "purchases": 3, "conversion_rate": 15.0, "revenue": 0.3},
        ),
    ],
)
def test_values_have_their_json_form(client: FlaskClient, path: str, expected: Row) -> None:
    [row] = listed(client, path)
    assert {name: row[name] for name in expected} == expected


def test_alert_says_when_it_was_detected(client: FlaskClient) -> None:
    for row in listed(client, "/api/alerts"):
        assert datetime.fromisoformat(row["detected_at"]) > NOON
