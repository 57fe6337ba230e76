from math import sqrt

import pytest

from clickstream_assets.catalogue import RELATED_PRODUCTS
from clickstream_assets.recommender import neighbours
from clickstream_assets.recommender.interactions import NotEnoughInteractions
from clickstream_assets.recommender.popularity import rank_products
from clickstream_assets.recommender.ranking import Products, strength_matrix
from clickstream_assets_tests.recommender.shop import interactions_table, met


def train(engine, *interactions: dict) -> neighbours.ItemKnnModel:
    df = engine.from_arrow(interactions_table(*interactions))
    products = Products.of(engine.to_arrow(rank_products(df, 30)))
    return neighbours.train(strength_matrix(engine, df, products)[1], products)


def test_neighbours_are_ranked_by_cosine(engine):
    model = train(
        engine,
        met("ann", "pen", 3.0),
        met("ann", "ink", 4.0),
        met("bob", "pen", 1.0),
        met("bob", "ink", 2.0),
        met("bob", "cup", 5.0),
        met("cid", "mug", 1.0),
    )

    similar = neighbours.similar_products(model, 2)

    pen, ink = sqrt(3 * 3 + 1 * 1), sqrt(4 * 4 + 2 * 2)
    expected = {
        "pen": {"ink": (3 * 4 + 1 * 2) / (pen * ink), "cup": 1 / pen},
        "ink": {"pen": (3 * 4 + 1 * 2) / (pen * ink), "cup": 2 / ink},
        "cup": {"ink": 2 / ink, "pen": 1 / pen},
    }
    found = {
        row["product_id"]: list(zip(row["related_ids"], row["scores"], strict=True))
        for row in similar.to_pylist()
    }
    assert {product: [name for name, _ in others] for product, others in found.items()} == {
        product: list(others) for product, others in expected.items()
    }
    for product, others in found.items():
        assert dict(others) == pytest.approx(expected[product], abs=1e-6)
    assert [row["related_ids"] for row in neighbours.similar_products(model, 1).to_pylist()] == [
        list(expected[row["product_id"]])[:1] for row in similar.to_pylist()
    ]
    assert similar.schema.equals(RELATED_PRODUCTS.arrow)


def test_products_that_nobody_shares_have_no_neighbours(duckdb_engine):
    model = train(duckdb_engine, met("ann", "pen"), met("bob", "ink"))

    assert neighbours.similar_products(model, 5).num_rows == 0


def test_without_interactions_there_are_no_neighbours(duckdb_engine):
    with pytest.raises(NotEnoughInteractions, match="no neighbours to find"):
        train(duckdb_engine)
