import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import csr_matrix

from clickstream_assets.catalogue import ITEM_FACTORS, USER_FACTORS
from clickstream_assets.recommender import als
from clickstream_assets.recommender.algorithms import TrainingSet, fit
from clickstream_assets.recommender.als import AlsModel
from clickstream_assets.recommender.evaluation import evaluate
from clickstream_assets.recommender.interactions import NotEnoughInteractions
from clickstream_assets.recommender.parameters import Parameters
from clickstream_assets.recommender.popularity import rank_products
from clickstream_assets.recommender.ranking import Products
from clickstream_assets.recommender.selection import recommend
from clickstream_assets_tests.recommender.shop import (
    PARAMETERS,
    interactions_table,
    kind_of,
    met,
    planted_taste,
)


def train(engine, table: pa.Table, parameters: Parameters = PARAMETERS) -> tuple[Products, als.Factors]:
    interactions = engine.from_arrow(table)
    products = Products.of(engine.to_arrow(rank_products(interactions, 30)))
    return products, als.train(engine, interactions, products, parameters)


def vectors(factors: pa.Table) -> np.ndarray:
    return np.array(factors["factors"].to_pylist())


@pytest.mark.long_on_spark
def test_planted_taste_is_found_and_popularity_is_beaten(engine):
    past, future = (engine.from_arrow(table) for table in planted_taste())

    by_name = {
        evaluation.algorithm: evaluation
        for evaluation in evaluate(engine, past, future, PARAMETERS, k=10, algorithms=["als", "popularity"])
    }

    assert by_name["als"].users == 80
    assert by_name["als"].mean("ndcg") > 1.3 * by_name["popularity"].mean("ndcg")


@pytest.mark.long_on_spark
def test_recommendations_follow_the_shoppers_kind(engine):
    past, _ = planted_taste()
    interactions = engine.from_arrow(past)

    lists = engine.to_arrow(
        recommend(engine, fit("als", TrainingSet.of(engine, interactions, PARAMETERS)), interactions, 5, "v1")
    ).to_pylist()

    alike = [kind_of(row["product_id"]) == int(row["user_id"][1:]) % 2 for row in lists]
    assert len(alike) == 80 * 5
    explained = [kind_of(row["product_id"]) == kind_of(row["reason_product_id"]) for row in lists]
    # One in thirteen of what a shopper met is of the other kind; by chance it would be one in two.
    assert np.mean(alike) > 0.9
    assert np.mean(explained) > 0.9


@pytest.mark.long_on_spark
def test_the_seed_alone_decides(engine):
    past, _ = planted_taste()
    shuffled = past.take(np.random.default_rng(1).permutation(past.num_rows))

    (_, first), (_, again), (_, other) = (
        train(engine, past),
        train(engine, shuffled),
        train(engine, past, dataclasses.replace(PARAMETERS, seed=43)),
    )

    np.testing.assert_array_equal(vectors(first.user_factors), vectors(again.user_factors))
    np.testing.assert_array_equal(vectors(first.item_factors), vectors(again.item_factors))
    assert not np.allclose(vectors(first.item_factors), vectors(other.item_factors))


@pytest.mark.long_on_spark
def test_factors_come_as_tables_in_order_of_the_ids(engine):
    _, factors = train(engine, interactions_table(met("bob", "pen"), met("ann", "cup"), met("ann", "ink")))

    assert factors.user_factors.schema.equals(USER_FACTORS.arrow)
    assert factors.item_factors.schema.equals(ITEM_FACTORS.arrow)
    assert factors.user_factors["user_id"].to_pylist() == ["ann", "bob"]
    assert factors.item_factors["product_id"].to_pylist() == ["cup", "ink", "pen"]
    assert vectors(factors.item_factors).shape == (3, 8)


@pytest.mark.long_on_spark
@pytest.mark.parametrize(
    "table",
    [
        interactions_table(met("ann", "pen")),
        interactions_table(met("ann", "pen"), met("ann", "cup")),
        interactions_table(met("ann", "pen"), met("bob", "pen")),
    ],
    ids=["one of each", "one user", "one product"],
)
def test_a_shop_smaller_than_the_factors_trains(engine, table):
    _, factors = train(engine, table)

    assert np.isfinite(vectors(factors.user_factors)).all()
    assert np.isfinite(vectors(factors.item_factors)).all()


def test_without_interactions_there_is_nothing_to_train(engine):
    with pytest.raises(NotEnoughInteractions, match="nothing to train ALS on"):
        train(engine, interactions_table())


@pytest.fixture
def model() -> AlsModel:
    random = np.random.default_rng(3)
    ids = pa.array([f"p{number}" for number in range(9)])
    products = Products(ids, np.full(9, 4), np.full(9, 10.0), np.full(9, 4), np.full(9, -1))
    return AlsModel(products, random.normal(size=(9, 4)).astype(np.float32), 0.3, 1.7)


# Fewer than the four factors, and more.
@pytest.mark.parametrize("own", [[1, 4, 6], [0, 1, 4, 5, 6, 8]])
def test_a_shoppers_scores_solve_the_papers_equation(model, own):
    strengths = np.linspace(0.5, 5, len(own))
    confidence, preference = np.ones(9), np.zeros(9)
    confidence[own], preference[own] = 1 + 1.7 * strengths, 1
    items = model.item_factors.astype(float)
    # Equation 4 of Hu et al., written out over all products.
    user = np.linalg.solve(
        items.T @ np.diag(confidence) @ items + 0.3 * len(own) * np.eye(4),
        items.T @ np.diag(confidence) @ preference,
    )

    scores = model.scores(csr_matrix((strengths, own, [0, len(own), len(own)]), shape=(2, 9)))

    estimates = items @ user
    assert min(estimates) < 0 < max(estimates)
    np.testing.assert_allclose(scores[0], np.maximum(estimates, 0), rtol=1e-4, atol=1e-6)
    assert not scores[1].any()


@pytest.mark.parametrize("own", [[1, 4, 6], [0, 1, 4, 5, 6, 8]])
def test_the_contributions_of_what_was_met_add_up_to_the_score(model, own):
    own, picked = np.array(own), np.array([2, 3, 7])
    strengths = np.linspace(0.5, 5, len(own))

    [contributions] = model.contributions(own[None], strengths[None], picked[None])

    scores = model.scores(csr_matrix((strengths, own, [0, len(own)]), shape=(1, 9)))[0]
    np.testing.assert_allclose(np.maximum(contributions.sum(axis=1), 0), scores[picked], rtol=1e-4, atol=1e-6)
    assert scores[picked].any()


def test_products_without_a_vector_score_nothing():
    two = np.array([2, 1])
    products = Products(pa.array(["pen", "nib"]), two, np.array([4.0, 1.0]), two, np.full(2, -1))
    factors = pa.Table.from_pylist(
        [{"product_id": "gone", "factors": [9.0, 9.0]}, {"product_id": "pen", "factors": [1.0, 2.0]}],
        schema=ITEM_FACTORS.arrow,
    )

    model = AlsModel.of(products, factors, PARAMETERS, 1.0)

    assert model.item_factors.tolist() == [[1.0, 2.0], [0.0, 0.0]]
