import numpy as np
import pyarrow as pa
import pytest

from clickstream_assets.recommender.ranking import Products, top_n


def slow_top_n(scores: np.ndarray, n: int) -> list[int]:
    finite = [index for index, score in enumerate(scores) if np.isfinite(score)]
    return sorted(finite, key=lambda index: (-scores[index], index))[:n]


@pytest.mark.parametrize("n", [1, 3, 10, 50, 60])
def test_the_best_n_come_in_order_with_ties_by_index(n):
    random = np.random.default_rng(n)
    for _ in range(100):
        scores = random.integers(0, 8, 50).astype(float)
        scores[random.random(50) < 0.3] = -np.inf
        assert top_n(scores, n).tolist() == slow_top_n(scores, n)


def test_where_all_is_met_nothing_is_left():
    assert top_n(np.full(5, -np.inf), 3).tolist() == []


def test_products_are_ordered_by_rank_and_unknown_ones_have_no_position():
    popular = pa.table({"rank": [2, 1], "product_id": ["cup", "pen"], "users": [3, 5], "score": [6.0, 10.0]})

    products = Products.of(popular)

    assert products.ids.to_pylist() == ["pen", "cup"]
    assert products.positions(pa.array(["cup", "nib", "pen"])).tolist() == [1, -1, 0]
    assert products.mean_strength == 2.0
