from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import csr_matrix

from clickstream_assets.recommender import repurchases
from clickstream_assets.recommender.algorithms import products_of
from clickstream_assets.recommender.interactions import interactions
from clickstream_assets_tests.recommender.shop import (
    START,
    days_of,
    event,
    events_table,
    interactions_table,
    met,
)

DAY = 86_400


def bought(user: str, product: str, *on_days: float) -> dict[str, Any]:
    first, last = (START + timedelta(days=day) for day in (min(on_days), max(on_days)))
    return met(user, product, purchases=len(on_days)) | {
        "purchase_days": len(on_days),
        "first_purchase": first,
        "last_purchase": last,
    }


def test_days_of_purchase_are_counted_once_each(engine):
    events = events_table(
        event("ann", "pen", "purchase", at=0),
        event("ann", "pen", "purchase", at=60),
        event("ann", "pen", at=DAY),
        event("ann", "pen", "purchase", at=2 * DAY),
        event("ann", "cup", at=0),
    )

    found = (
        engine.to_arrow(interactions(days_of(engine.from_arrow(events)))).sort_by("product_id").to_pylist()
    )

    assert [(row["purchase_days"], row["first_purchase"], row["last_purchase"]) for row in found] == [
        (0, None, None),
        (2, START, START + timedelta(days=2)),
    ]


def test_purchases_count_by_days_recency_and_what_repeats(engine):
    rows = [
        bought("ann", "pen", 0, 10),
        bought("bob", "pen", 20),
        bought("bob", "cup", 60),
        met("cid", "cup"),
    ]
    interactions_of_all = engine.from_arrow(interactions_table(*rows))

    model = repurchases.train(engine, interactions_of_all, products_of(engine, interactions_of_all, 30))

    # The one time between two purchases of a product is ten days.
    assert model.ageing.half_life_days == 10 * repurchases.HALF_LIFE_INTERVALS
    usual = (1 + 1) / (3 + 1)
    rates = {"pen": (1 + usual * 10) / (2 + 10), "cup": (0 + usual * 10) / (1 + 10)}
    found = dict(zip(model.products.ids.to_pylist(), model.rates, strict=True))
    assert found == pytest.approx(rates)
    aged = engine.to_arrow(model.ageing.of(interactions_of_all)).to_pylist()
    strengths = {(row["user_id"], row["product_id"]): row["strength"] for row in aged}
    expected = {("ann", "pen"): 2 * 0.5 ** (50 / 40), ("bob", "pen"): 0.5, ("bob", "cup"): 1.0}
    assert strengths == pytest.approx(expected, abs=0.0005)


def test_of_what_few_bought_the_rate_is_that_of_its_category(duckdb_engine):
    """Coffee is bought again and books are not: so it is of a coffee, and of a book, that is new."""
    rows = [bought(f"u{n}", "coffee", 0, 7, 14) for n in range(30)]
    rows += [bought(f"u{n}", "book", 5) for n in range(30)]
    rows += [bought("u1", "new coffee", 3), bought("u1", "new book", 3), bought("u1", "thing", 3)]
    of_all = duckdb_engine.from_arrow(interactions_table(*rows))
    kinds = {"coffee": "drinks", "new coffee": "drinks", "book": "books", "new book": "books"}
    categories = pa.table({"product_id": list(kinds), "product_category": list(kinds.values())})
    products = products_of(duckdb_engine, of_all, 30, duckdb_engine.from_arrow(categories))

    model = repurchases.train(duckdb_engine, of_all, products)

    found = dict(zip(model.products.ids.to_pylist(), model.rates, strict=True))
    usual = (30 + 1) / (63 + 1)
    drinks, books = (30 + usual * 10) / (31 + 10), (0 + usual * 10) / (31 + 10)
    assert found == pytest.approx(
        {
            "coffee": (30 + drinks * 10) / (30 + 10),
            "new coffee": drinks * 10 / (1 + 10),
            "book": books * 10 / (30 + 10),
            "new book": books * 10 / (1 + 10),
            "thing": usual * 10 / (1 + 10),
        }
    )
    assert found["new coffee"] > found["thing"] > found["new book"]
    assert model.usual_rate == usual


def test_only_what_was_bought_is_scored(duckdb_engine):
    rows = duckdb_engine.from_arrow(interactions_table(bought("ann", "pen", 0, 9), bought("bob", "cup", 1)))
    model = repurchases.train(duckdb_engine, rows, products_of(duckdb_engine, rows, 30))
    pen, cup = model.products.positions(model.products.ids.take([0, 1])).tolist()

    strengths = csr_matrix(np.array([[2.0, 0.0], [0.0, 0.0]]))
    scores = model.scores(strengths)

    assert scores[0, pen] == pytest.approx(2 * model.rates[pen])
    assert not scores[:, cup].any()
    assert not scores[1].any()
    [terms] = model.contributions(np.array([[pen]]), np.array([[2.0]]), np.array([[pen, cup]]))
    assert terms[:, 0].tolist() == [pytest.approx(2 * model.rates[pen]), 0]


def test_where_nobody_comes_back_nothing_ages(duckdb_engine):
    rows = duckdb_engine.from_arrow(interactions_table(bought("ann", "pen", 0), met("bob", "cup")))

    model = repurchases.train(duckdb_engine, rows, products_of(duckdb_engine, rows, 30))

    assert model.ageing.half_life_days == 0
    assert duckdb_engine.to_arrow(model.ageing.of(rows))["product_id"].to_pylist() == ["pen"]
