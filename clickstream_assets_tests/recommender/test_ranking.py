from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from clickstream_assets.recommender.ranking import Ageing, Products, top_n_of_rows
from clickstream_assets_tests.recommender.shop import START, interactions_table, met


def slow_top_n(scores: np.ndarray, n: int) -> list[int]:
    finite = [index for index, score in enumerate(scores) if np.isfinite(score)]
    return sorted(finite, key=lambda index: (-scores[index], index))[:n]


@pytest.mark.parametrize("n", [1, 3, 10, 50, 60])
def test_the_best_n_come_in_order_with_ties_by_index(n):
    random = np.random.default_rng(n)
    for _ in range(100):
        scores = random.integers(0, 8, 50).astype(float)
        scores[random.random(50) < 0.3] = -np.inf
        picked = top_n_of_rows(scores[None, :], n).products[0]
        assert picked[picked >= 0].tolist() == slow_top_n(scores, n)


@pytest.mark.parametrize("levels", [3, 1000])
def test_the_best_of_many_products_are_those_of_a_full_sort(levels):
    random = np.random.default_rng(levels)
    scores = random.integers(0, levels, (40, 2011)).astype(np.float32)
    scores[random.random(scores.shape) < 0.2] = -np.inf
    # Nearly all left out, all of one score, and all left out.
    scores[0, 7:], scores[1], scores[2] = -np.inf, 1, -np.inf

    picks = top_n_of_rows(scores, 20)

    for row, products, best_scores in zip(scores, *picks, strict=True):
        expected = slow_top_n(row, 20)
        assert [product for product in products if product >= 0] == expected
        assert best_scores[: len(expected)].tolist() == row[expected].tolist()
        assert not np.isfinite(best_scores[len(expected) :]).any()


@pytest.mark.parametrize("half_life_days", [0, 2])
def test_strengths_halve_with_each_half_life_and_never_vanish(engine, half_life_days):
    day = timedelta(days=1)
    found = [
        met("ann", "pen", 8.0) | {"last_time": START},
        met("ann", "cup", 8.0) | {"last_time": START + 2 * day},
        met("bob", "pen", 1.0) | {"last_time": START + 4 * day},
        met("cid", "pen", 8.0) | {"last_time": START - 400 * day},
    ]
    interactions = engine.from_arrow(interactions_table(*found))
    ageing = Ageing.until_last(engine, interactions, half_life_days)
    # Newer than what was trained on: no more than new.
    later = interactions_table(met("bob", "cup", 3.0) | {"last_time": START + 9 * day})

    aged = engine.to_arrow(ageing.of(interactions.unionByName(engine.from_arrow(later))))

    strengths = {(row["user_id"], row["product_id"]): row["strength"] for row in aged.to_pylist()}
    expected = [2.0, 4.0, 1.0, 0.001, 3.0] if half_life_days else [8.0, 8.0, 1.0, 8.0, 3.0]
    pairs = [("ann", "pen"), ("ann", "cup"), ("bob", "pen"), ("cid", "pen"), ("bob", "cup")]
    assert strengths == dict(zip(pairs, expected, strict=True))
    assert aged.schema.field("strength").type == pa.float64()


def test_where_all_is_met_nothing_is_left():
    assert top_n_of_rows(np.full((1, 5), -np.inf), 3).products.tolist() == [[-1, -1, -1]]


def test_products_are_ordered_by_rank_and_unknown_ones_have_no_position():
    popular = pa.table(
        {
            "rank": [2, 1],
            "product_id": ["cup", "pen"],
            "users": [3, 5],
            "score": [6.0, 10.0],
            "recent_users": [0, 3],
            "product_category": [None, "office"],
        }
    )

    products = Products.of(popular)

    assert products.ids.to_pylist() == ["pen", "cup"]
    assert products.categories.tolist() == [0, -1]
    assert products.positions(pa.array(["cup", "nib", "pen"])).tolist() == [1, -1, 0]
