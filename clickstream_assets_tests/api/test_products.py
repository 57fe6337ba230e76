from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from clickstream_assets.catalogue import PRODUCT_PERFORMANCE, PRODUCTS
from clickstream_assets_tests.api.shop import STRANGE_PRODUCTS


def asked(client: FlaskClient, path: str) -> dict[str, Any]:
    answer = client.get(f"/api/{path}")
    assert answer.status_code == 200, answer.text
    return answer.json


def test_history_has_the_days_newest_first_and_their_totals(client: FlaskClient) -> None:
    answer = asked(client, "products/p1")
    assert [(row["report_date"], row["rank"], row["view_count"]) for row in answer["days"]] == [
        ("2024-05-31", 1, 30),
        ("2024-05-30", 2, 10),
    ]
    assert list(answer["days"][0]) == [*PRODUCT_PERFORMANCE.column_names, "name", "image"]
    assert answer["totals"] == {
        "days": 2,
        "view_count": 40,
        "add_to_carts": 3,
        "purchases": 3,
        "quantity": 6,
        "revenue": 0.3,
        "refunds": 0.1,
        "net_revenue": 0.2,
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


def test_a_product_says_what_it_is_whether_anybody_met_it_or_not(client: FlaskClient) -> None:
    product = asked(client, "products/p1")["product"]
    assert list(product) == PRODUCTS.column_names
    assert (product["name"], product["price"], product["currency"], product["available"]) == (
        "Product p1",
        9.99,
        "EUR",
        True,
    )
    never_met = asked(client, "products/p9")
    assert (never_met["product"]["brand"], never_met["days"], never_met["totals"]["days"]) == ("Ajax", [], 0)
    assert asked(client, "products/50%25")["product"] is None


def test_the_catalogue_can_be_asked_for_some_products(client: FlaskClient) -> None:
    found = asked(client, "catalogue?product_id=p9&product_id=nothing&product_id=p1")["catalogue"]
    assert [(row["product_id"], row["name"]) for row in found] == [("p1", "Product p1"), ("p9", "Product p9")]
    assert asked(client, "catalogue?product_id=p9&available=true")["catalogue"] == []
    too_many = client.get("/api/catalogue", query_string={"product_id": [f"p{n}" for n in range(101)]})
    assert too_many.status_code == 422
    assert "must not have more than 100 products" in too_many.text


def test_totals_of_products_are_of_the_days_asked_for_in_the_order_asked_for(client: FlaskClient) -> None:
    def totals(query: str) -> list[tuple[Any, ...]]:
        rows = asked(client, f"product-totals?{query}")["products"]
        return [(row["product_id"], row["name"], row["days"], row["view_count"]) for row in rows]

    assert totals("limit=2") == [("p1", "Product p1", 2, 40), ("p2", "Product p2", 2, 40)]
    assert totals("until=2024-05-30") == [("p2", "Product p2", 1, 20), ("p1", "Product p1", 1, 10)]
    assert totals("since=2024-05-31&limit=1&offset=1") == [("p2", "Product p2", 1, 20)]
    assert totals("date=2024-05-30&order=asc") == [("p1", "Product p1", 1, 10), ("p2", "Product p2", 1, 20)]
    assert {row[:2] for row in totals("limit=1000")} >= {(product, None) for product in STRANGE_PRODUCTS}
    [p1] = asked(client, "product-totals?sort=purchases&limit=1")["products"]
    assert (p1["purchases"], p1["revenue"], p1["refunds"], p1["conversion_rate"]) == (3, 0.3, 0.1, 7.5)


def test_days_products_and_alerts_have_the_names_of_products(client: FlaskClient) -> None:
    [p1] = asked(client, "products?date=2024-05-31&limit=1")["products"]
    assert (p1["product_id"], p1["image"]) == ("p1", "https://a.example/1.png")
    names = {
        row["product_id"]: row["name"]
        for row in asked(client, "products?date=2024-05-31&limit=100")["products"]
    }
    assert (names["p1"], names["p2"]) == ("Product p1", "Product p2")
    assert {names[product] for product in STRANGE_PRODUCTS} == {None}
