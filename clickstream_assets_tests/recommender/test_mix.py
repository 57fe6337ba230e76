import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from clickstream_assets.recommender.algorithms import BLEND, TrainingSet, fit, products_of
from clickstream_assets.recommender.mix import Mix
from clickstream_assets_tests.recommender.shop import PARAMETERS, planted_taste

PARTS = dataclasses.replace(PARAMETERS, ease_share=0.25, category_weight=0.5, trend_exponent=2)


@pytest.fixture(scope="module")
def data(duckdb_engine) -> TrainingSet:
    past, _ = planted_taste()
    interactions = duckdb_engine.from_arrow(past)
    ids = [f"p{number}" for number in range(60)]
    categories = pa.table({"product_id": ids, "product_category": [f"c{n % 7}" for n in range(60)]})
    products = products_of(duckdb_engine, interactions, 30, duckdb_engine.from_arrow(categories))
    # A trend of its own for each product.
    recent = np.arange(len(products)) % 5
    products = dataclasses.replace(products, recent_shoppers=recent)
    return TrainingSet.of(duckdb_engine, interactions, PARTS, products)


def test_shares_are_of_the_highest_scores_and_the_trend_multiplies_the_sum(data: TrainingSet):
    blend = fit(BLEND, data)

    assert isinstance(blend, Mix)
    met = data.strengths
    expected = np.zeros(met.shape)
    for share, model in [(0.5, data.category[1]), (0.75, data.als), (0.25, data.ease)]:
        scores = model.scores(met).astype(float)
        height = np.mean([max(row[own.toarray().ravel() == 0]) for row, own in zip(scores, met, strict=True)])
        expected += share / height * scores
    expected *= data.products.trend**2
    assert expected.any()
    np.testing.assert_allclose(blend.scores(met), expected, rtol=1e-4, atol=1e-6)


def test_the_contributions_of_all_parts_add_up_to_the_score(data: TrainingSet):
    blend = fit(BLEND, data)
    met = data.strengths[[3]]
    scores = blend.scores(met)[0]
    picked = np.argsort(-scores)[:8]

    [terms] = blend.contributions(met.indices[None], met.data[None], picked[None])

    # What a part has against a product counts for nothing in its score, so the score is never lower.
    assert (scores[picked] >= terms.sum(axis=1) - 1e-5).all()
    assert np.corrcoef(terms.sum(axis=1), scores[picked])[0, 1] > 0.9


@pytest.mark.parametrize(("share", "name"), [(0.0, "als"), (1.0, "ease")])
def test_a_blend_of_one_ranks_as_that_does(data: TrainingSet, share: float, name: str):
    alone = dataclasses.replace(PARAMETERS, ease_share=share)
    only = TrainingSet.of(data.engine, data.interactions, alone, data.products)

    scores, expected = (fit(algorithm, only).scores(only.strengths) for algorithm in (BLEND, name))

    np.testing.assert_array_equal(np.argsort(scores, axis=1)[:, -5:], np.argsort(expected, axis=1)[:, -5:])
