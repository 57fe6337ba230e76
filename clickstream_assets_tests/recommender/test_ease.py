import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import csr_matrix

from clickstream_assets.recommender import ease
from clickstream_assets.recommender.interactions import NotEnoughInteractions
from clickstream_assets.recommender.ranking import Products
from clickstream_assets_tests.recommender.shop import PARAMETERS

SIZE = 12


def products() -> Products:
    shoppers = np.ones(SIZE, int)
    return Products(
        pa.array([f"p{n}" for n in range(SIZE)]), shoppers, np.ones(SIZE), shoppers, np.full(SIZE, -1)
    )


def strengths(seed: int = 1) -> csr_matrix:
    random = np.random.default_rng(seed)
    return csr_matrix(np.where(random.random((60, SIZE)) < 0.3, random.integers(1, 9, (60, SIZE)), 0.0))


def test_each_product_is_foretold_by_the_ridge_regression_on_all_others():
    met = strengths()
    penalty = 3.0

    model = ease.train(met, products(), dataclasses.replace(PARAMETERS, ease_regularization=penalty))

    scaled = met.toarray() / met.data.mean()
    absolute = penalty * np.mean((scaled**2).sum(axis=0))
    for product in range(SIZE):
        others = [other for other in range(SIZE) if other != product]
        inputs = scaled[:, others]
        expected = np.linalg.solve(
            inputs.T @ inputs + absolute * np.eye(SIZE - 1), inputs.T @ scaled[:, product]
        )
        np.testing.assert_allclose(model.weights[others, product], expected, rtol=1e-3, atol=1e-5)
        assert model.weights[product, product] == 0
    np.testing.assert_allclose(model.scores(met), np.maximum(scaled @ model.weights, 0), rtol=1e-4, atol=1e-5)


def test_the_contributions_of_what_was_met_add_up_to_the_score():
    met = strengths()
    model = ease.train(met, products(), PARAMETERS)
    shopper = int(np.diff(met.indptr).argmax())
    own, its = met[shopper].indices[None], met[shopper].data[None]
    picked = np.array([np.setdiff1d(np.arange(SIZE), own[0])])

    [terms] = model.contributions(own, its, picked)

    assert terms.shape == (picked.size, own.size)
    expected = model.scores(met[[shopper]])[0, picked[0]]
    assert expected.any()
    np.testing.assert_allclose(np.maximum(terms.sum(axis=1), 0), expected, rtol=1e-4, atol=1e-6)


def test_only_what_most_speaks_for_is_learnt():
    but_one = strengths().toarray()
    but_one[:, 5] = 0
    met = csr_matrix(but_one)
    fewer = dataclasses.replace(PARAMETERS, ease_products=SIZE - 1)

    model, alone = ease.train(met, products(), fewer), ease.train(met, products(), PARAMETERS)

    assert model.known[5] == -1
    assert model.weights.shape == (SIZE - 1, SIZE - 1)
    assert not model.scores(met)[:, 5].any()
    # The mean of the penalty is over one product less.
    assert np.corrcoef(model.scores(met).ravel(), alone.scores(met).ravel())[0, 1] > 0.99
    [terms] = model.contributions(np.array([[5, 0]]), np.ones((1, 2)), np.array([[5, 1]]))
    assert terms[0].tolist() == [0, 0]
    assert terms[1, 0] == 0
    assert terms[1, 1] != 0


def test_without_interactions_there_is_nothing_to_learn():
    with pytest.raises(NotEnoughInteractions, match="nothing to train EASE on"):
        ease.train(csr_matrix((0, 0)), products(), PARAMETERS)
