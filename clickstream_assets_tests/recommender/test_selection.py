from typing import Any

import pyarrow as pa
import pytest

from clickstream_assets.catalogue import INTERACTIONS, PRODUCT_RECOMMENDATIONS
from clickstream_assets.recommender.algorithms import TrainingSet, fit
from clickstream_assets.recommender.evaluation import TARGETS
from clickstream_assets.recommender.parameters import Parameters
from clickstream_assets.recommender.selection import met_products, recommend
from clickstream_assets_tests.recommender.shop import (
    interactions_in,
    interactions_table,
    met,
    random_events,
    rows,
)

PARAMETERS = Parameters(factors=8, iterations=5, regularization=0.1, alpha=5.0, seed=42)


def lists(engine, algorithm: str, table: pa.Table, n: int = 10, since: tuple = ()) -> list[dict]:
    """Recommendations of a model of `table`, for its shoppers and those `since`."""
    model = fit(algorithm, TrainingSet.of(engine, engine.from_arrow(table), PARAMETERS))
    everything = engine.from_arrow(
        pa.concat_tables([table.cast(INTERACTIONS.arrow), interactions_table(*since)])
    )
    return rows(engine.to_arrow(recommend(engine, model, everything, n, "v7")), "user_id", "rank")


@pytest.mark.long_on_spark
@pytest.mark.parametrize("algorithm", TARGETS["next"])
def test_nobody_is_shown_what_they_have_met_and_everybody_gets_a_list(engine, algorithm):
    events = engine.from_arrow(random_events())
    table = engine.to_arrow(interactions_in(events))

    found = lists(engine, algorithm, table, n=30)

    already = {(row["user_id"], row["product_id"]) for row in table.to_pylist()}
    products = {product for _, product in already}
    by_user: dict[str, list[dict[str, Any]]] = {}
    popularity = dict.fromkeys(products, 0.0)
    for row in table.to_pylist():
        popularity[row["product_id"]] += row["strength"]
    for row in found:
        by_user.setdefault(row["user_id"], []).append(row)
    for user, listed in by_user.items():
        unmet = products - {product for other, product in already if other == user}
        assert {row["product_id"] for row in listed} <= unmet
        assert len({row["product_id"] for row in listed}) == len(listed) == min(30, len(unmet))
        assert [row["rank"] for row in listed] == list(range(1, len(listed) + 1))
        # What the model has to say comes first, and what fills the list up after it; each by its own score.
        order = [(row["algorithm"] == "popularity", -row["confidence_score"]) for row in listed]
        assert order == sorted(order)
        for row in listed:
            if row["algorithm"] == "popularity":
                assert row["confidence_score"] == pytest.approx(popularity[row["product_id"]])
            else:
                assert row["confidence_score"] > 0
        assert {row["model_version"] for row in listed} == {"v7"}
        for row in listed:
            assert (row["reason_product_id"] is None) == (row["algorithm"] == "popularity")
            if row["reason_product_id"]:
                assert (user, row["reason_product_id"]) in already
    assert set(by_user) == {user for user, _ in already}


def test_all_that_a_shopper_has_met_is_gathered(engine):
    table = interactions_table(met("bob", "pen"), met("ann", "pen"), met("bob", "cup"), met("bob", "ink"))

    found = engine.to_arrow(met_products(engine.from_arrow(table)))

    assert rows(found, "user_id") == [
        {"user_id": "ann", "product_ids": ["pen"]},
        {"user_id": "bob", "product_ids": ["cup", "ink", "pen"]},
    ]


@pytest.mark.parametrize("algorithm", ["item_knn", "popularity"])
def test_both_engines_make_the_same_lists(duckdb_engine, spark_engine, algorithm):
    table = duckdb_engine.to_arrow(interactions_in(duckdb_engine.from_arrow(random_events())))

    duckdb, spark = (lists(engine, algorithm, table) for engine in (duckdb_engine, spark_engine))

    for rows_of in (duckdb, spark):
        for row in rows_of:
            row["confidence_score"] = pytest.approx(row["confidence_score"])
    assert duckdb == spark


SHOP = interactions_table(
    met("ann", "pen", 11.0, views=1, purchases=1),
    met("ann", "cup", 1.0),
    met("bob", "pen", 1.0),
    met("bob", "ink", 4.0, add_to_carts=1),
    met("cid", "cup", 1.0),
    met("cid", "mug", 1.0),
    met("dee", "jar", 1.0),
)


def test_reasons_name_the_shoppers_own_product_and_what_they_did(duckdb_engine):
    found = {(row["user_id"], row["product_id"]): row for row in lists(duckdb_engine, "item_knn", SHOP)}

    def reason(user: str, product: str) -> tuple:
        row = found[user, product]
        return row["algorithm"], row["reason"], row["reason_product_id"]

    assert reason("ann", "ink") == ("item_knn", "Because you bought pen", "pen")
    assert reason("ann", "mug") == ("item_knn", "Because you viewed cup", "cup")
    assert reason("bob", "cup") == ("item_knn", "Because you viewed pen", "pen")
    # Nobody who met these met anything of bob's.
    assert reason("bob", "mug") == ("popularity", "Popular with 1 shopper", None)
    assert reason("dee", "pen") == ("popularity", "Popular with 2 shoppers", None)


def test_a_product_in_the_cart_is_a_reason_in_its_own_words(duckdb_engine):
    table = interactions_table(met("ann", "pen", 4.0, add_to_carts=1), met("bob", "pen"), met("bob", "ink"))

    ann = lists(duckdb_engine, "item_knn", table)[0]

    assert (ann["product_id"], ann["reason"]) == ("ink", "Because you added pen to your cart")


@pytest.mark.long_on_spark
@pytest.mark.parametrize("algorithm", TARGETS["next"])
def test_shoppers_who_came_after_training_are_served(engine, algorithm):
    found = lists(
        engine, algorithm, SHOP, since=(met("eve", "pen"), met("fay", "brand new"), met("eve", "brand new"))
    )

    eve, fay = ([row for row in found if row["user_id"] == user] for user in ("eve", "fay"))
    assert {row["product_id"] for row in eve} == {"cup", "ink", "mug", "jar"}
    assert {row["product_id"] for row in fay} == {"pen", "cup", "ink", "mug", "jar"}
    # No product has a category here.
    is_personal = algorithm not in ("category", "trending", "popularity")
    assert eve[0]["algorithm"] == (algorithm if is_personal else "popularity")
    # The model knows nothing of fay's only product.
    assert {row["algorithm"] for row in fay} == {"popularity"}
    assert fay[0]["product_id"] == "pen"


@pytest.mark.long_on_spark
def test_who_has_met_everything_gets_nothing(engine):
    found = lists(
        engine, "popularity", interactions_table(met("ann", "pen"), met("ann", "cup"), met("bob", "cup"))
    )

    assert [(row["user_id"], row["product_id"]) for row in found] == [("bob", "pen")]


@pytest.mark.long_on_spark
def test_rows_have_the_tables_schema(engine):
    interactions = engine.from_arrow(SHOP)
    model = fit("popularity", TrainingSet.of(engine, interactions, PARAMETERS))

    found = engine.to_arrow(recommend(engine, model, interactions, 3, "v1"))

    assert [(field.name, field.type) for field in found.schema] == [
        (field.name, field.type) for field in PRODUCT_RECOMMENDATIONS.arrow
    ]
