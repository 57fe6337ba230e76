from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from clickstream_assets.catalogue import CATEGORY_CONVERSION, PRODUCT_PERFORMANCE
from clickstream_assets_tests.api.daily_rows import STRANGE_PRODUCTS


def asked(client: FlaskClient, path: str) -> dict[str, Any]:
    answer = client.get(f"/api/{path}")
    assert answer.status_code == 200, answer.text
    return answer.json


def products(client: FlaskClient, query: str) -> list[tuple[str, str]]:
    rows = asked(client, f"products{query}")["products"]
    return [(row["report_date"][-2:], row["product_id"]) for row in rows]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?limit=2", [("31", "p1"), ("31", "p2")]),
        ("?date=2024-05-30", [("30", "p2"), ("30", "p1")]),
        ("?since=2024-05-30&sort=rank&limit=4", [("31", "p1"), ("30", "p2"), ("31", "p2"), ("30", "p1")]),
        ("?since=2024-05-30&sort=purchases&order=desc&limit=3", [("30", "p2"), ("31", "p1"), ("30", "p1")]),
        ("?category=books", [("31", "p1")]),
        ("?until=2024-05-01", []),
    ],
)
def test_products_of_days(client: FlaskClient, query: str, expected: list[tuple[str, str]]) -> None:
    assert products(client, query) == expected


def test_history_has_the_days_newest_first_and_their_totals(client: FlaskClient) -> None:
    answer = asked(client, "products/p1")
    assert [(row["report_date"], row["rank"], row["view_count"]) for row in answer["days"]] == [
        ("2024-05-31", 1, 30),
        ("2024-05-30", 2, 10),
    ]
    assert list(answer["days"][0]) == PRODUCT_PERFORMANCE.column_names
    assert answer["totals"] == {
        "days": 2,
        "view_count": 40,
        "add_to_carts": 3,
        "purchases": 3,
        "quantity": 6,
        "revenue": 0.3,
        "conversion_rate": 7.5,
    }


def test_totals_are_of_the_range_and_not_of_the_page(client: FlaskClient) -> None:
    totals = asked(client, "products/p2")["totals"]
    page = asked(client, "products/p2?limit=1&offset=1")
    assert len(page["days"]) == 1
    assert page["totals"] == totals
    assert (totals["view_count"], totals["conversion_rate"]) == (40, 7.5)

    day = asked(client, "products/p2?since=2024-05-30&until=2024-05-30")
    assert (day["totals"]["days"], day["totals"]["view_count"], day["totals"]["conversion_rate"]) == (
        1,
        20,
        15.0,
    )

    never = asked(client, "products/p2?since=2024-06-01")
    assert (never["days"], never["totals"]["days"], never["totals"]["revenue"]) == ([], 0, 0.0)
    assert never["totals"]["conversion_rate"] == 0.0


@pytest.mark.parametrize("product", STRANGE_PRODUCTS)
def test_product_id_may_hold_any_character(client: FlaskClient, product: str) -> None:
    answer = asked(client, f"products/{quote(product, safe='')}")
    assert answer["product_id"] == product
    assert [row["product_id"] for row in answer["days"]] == [product]


def test_unknown_product_is_a_problem_document(client: FlaskClient) -> None:
    answer = client.get("/api/products/nothing")
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")
    assert answer.json["code"] == "unknown_product"


def categories(client: FlaskClient, query: str) -> list[tuple[str, str]]:
    rows = asked(client, f"categories{query}")["categories"]
    return [(row["report_date"][-2:], row["category"]) for row in rows]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [("31", "toys"), ("31", "books"), ("31", "unknown")]),
        ("?sort=views&order=asc&limit=1", [("31", "toys")]),
        ("?sort=revenue&limit=1&offset=1", [("31", "books")]),
        ("?date=2024-05-30", [("30", "books")]),
        ("?since=2024-05-30&category=books&sort=views", [("31", "books"), ("30", "books")]),
        ("?category=nothing", []),
    ],
)
def test_categories_of_days(client: FlaskClient, query: str, expected: list[tuple[str, str]]) -> None:
    assert categories(client, query) == expected


def test_category_has_every_column(client: FlaskClient) -> None:
    [row] = asked(client, "categories?limit=1")["categories"]
    assert list(row) == CATEGORY_CONVERSION.column_names
    assert (row["views"], row["purchases"], row["conversion_rate"], row["revenue"]) == (20, 3, 15.0, 0.3)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("products?sort=product_id", "sort='product_id': must be one of rank, view_count"),
        ("products/p1?date=2024-05-31", "date='2024-05-31': is not a parameter of this operation"),
        ("products/p1?since=soon", "since='soon': must be a date such as 2024-05-31"),
        ("products/%00", "must not have a NUL character"),
        ("categories?limit=0", "limit='0': must be a whole number from 1 to 1000"),
    ],
)
def test_unusable_parameter_is_named_with_what_is_allowed(
    client: FlaskClient, query: str, message: str
) -> None:
    answer = client.get(f"/api/{query}")
    assert answer.status_code == 422
    assert message in answer.json["detail"]
