from math import sqrt
from typing import Any

import pytest

from clickstream_assets.catalogue import RELATED_PRODUCTS
from clickstream_assets.recommender.baskets import MOST_PRODUCTS, bought_together
from clickstream_assets_tests.recommender.shop import event, events_table


def order(number: int, *products: str, **fields: Any) -> list[dict[str, Any]]:
    """The lines of an order of a person of its own."""
    return [
        event(f"u{number}", product, "purchase", at=60 * number, order_id=f"o{number}", **fields)
        for product in products
    ]


def test_products_of_the_same_orders_are_ranked_by_smoothed_confidence(engine) -> None:
    events = [
        *order(1, "pen", "ink", "bag"),
        *order(2, "pen", "ink", "bag"),
        *order(3, "pen", "bag"),
        *order(4, "bag"),
        *order(5, "bag", "cup"),
        # A line that came twice is one; what is not bought does not count.
        *order(1, "pen"),
        event("u1", "cup", "view"),
        event("u2", "cup", "add_to_cart", order_id="o2"),
        # Orders without pairs, so that the bag is not in all.
        *order(6, "mug"),
        *order(7, "mug"),
        *order(8, "mug"),
    ]

    rows = bought_together(engine, engine.from_arrow(events_table(*events)), 2)

    assert rows.schema.equals(RELATED_PRODUCTS.arrow)
    found = {row["product_id"]: row for row in rows.sort_by("product_id").to_pylist()}
    # The cup was bought with the bag once, which is chance.
    assert list(found) == ["bag", "ink", "pen"]
    assert {name: row["related_ids"] for name, row in found.items()} == {
        "bag": ["pen", "ink"],
        "ink": ["pen", "bag"],
        "pen": ["ink", "bag"],
    }
    assert found["pen"]["scores"] == pytest.approx([2 / (3 * sqrt(2)), 3 / (3 * sqrt(5))], abs=1e-6)
    assert (found["pen"]["orders"], found["pen"]["together"]) == (3, [2, 3])
    assert {row["relation"] for row in found.values()} == {"bought_together"}


def test_what_is_in_orders_together_no_more_than_by_chance_is_not_related(duckdb_engine) -> None:
    # Both in half of the orders, and in a quarter together.
    events = [line for n in range(2) for line in order(n, "pen", "ink")]
    events += [line for n in range(2, 4) for line in order(n, "pen", "cup")]
    events += [line for n in range(4, 6) for line in order(n, "ink", "bag")]
    events += [line for n in range(6, 8) for line in order(n, "mug")]
    rows = bought_together(duckdb_engine, duckdb_engine.from_arrow(events_table(*events)), 5)
    related = {row["product_id"]: row["related_ids"] for row in rows.to_pylist()}
    assert related == {"pen": ["cup"], "cup": ["pen"], "ink": ["bag"], "bag": ["ink"]}


def test_an_order_of_a_retailer_and_a_shop_without_orders_relate_nothing(duckdb_engine) -> None:
    many = [f"p{n}" for n in range(MOST_PRODUCTS + 1)]
    events = events_table(*order(1, *many), *order(2, *many), *order(3, "p1", "p2"))
    assert bought_together(duckdb_engine, duckdb_engine.from_arrow(events), 5).num_rows == 0
    nothing = duckdb_engine.from_arrow(events_table(event("ann", "pen")))
    assert bought_together(duckdb_engine, nothing, 5).num_rows == 0
