from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import csr_matrix

from clickstream_assets.analytics.money import as_sent
from clickstream_assets.analytics.products import product_performance
from clickstream_assets.recommender.popularity import (
    CategoryModel,
    latest_categories,
    popular_products,
    rank_products,
    with_trends,
)
from clickstream_assets.recommender.ranking import Products
from clickstream_assets_tests.recommender.shop import (
    START,
    event,
    events_table,
    interactions_in,
    interactions_table,
    met,
    random_events,
    rows,
)

DAY = 86_400


def test_products_rank_by_strength_and_ties_by_id(engine):
    found = interactions_table(
        met("ann", "cup", 1.1),
        met("bob", "cup", 2.2),
        met("cid", "cup", 3.3),
        met("ann", "pen", 10.0, purchases=2),
        met("cid", "ink", 3.3),
        met("ann", "ink", 2.2),
        met("bob", "ink", 1.1),
    )
    events = events_table(
        event("ann", "cup", at=1, product_category="old"),
        event("ann", "cup", at=DAY + 1, product_category="older"),
        event("ann", "cup", at=DAY + 2, product_category="kitchen"),
        event("ann", "cup", at=2 * DAY),
        event("ann", "pen", at=1, product_category="office"),
        event("ann", "pen", at=DAY),
    )
    product_days = product_performance(as_sent(engine.from_arrow(events)))

    ranked = engine.to_arrow(popular_products(engine.from_arrow(found), latest_categories(product_days), 30))

    # 1.1 + 2.2 + 3.3 and 3.3 + 2.2 + 1.1 differ as doubles, and tie here.
    expected = [
        (1, "pen", "office", 10.0, 1, 1, 2),
        (2, "cup", "kitchen", 6.6, 3, 3, 0),
        (3, "ink", None, 6.6, 3, 3, 0),
    ]
    names = ("rank", "product_id", "product_category", "score", "users", "recent_users", "purchases")
    assert [tuple(row[name] for name in names) for row in rows(ranked, "rank")] == expected


def test_both_engines_rank_products_alike(duckdb_engine, spark_engine):
    table = random_events(hours=80)

    def ranked(engine) -> list:
        events = engine.from_arrow(table)
        product_days = product_performance(as_sent(events))
        return rows(
            engine.to_arrow(popular_products(interactions_in(events), latest_categories(product_days), 30)),
            "rank",
        )

    assert len(ranked(duckdb_engine)) > 30
    assert ranked(duckdb_engine) == ranked(spark_engine)


@pytest.mark.long_on_spark
def test_without_interactions_nothing_is_popular(engine):
    nothing: pa.Table = interactions_table()
    product_days = product_performance(as_sent(engine.from_arrow(events_table(event("ann", "pen")))))

    assert (
        engine.to_arrow(
            popular_products(engine.from_arrow(nothing), latest_categories(product_days), 30)
        ).num_rows
        == 0
    )


def test_the_trend_is_the_share_of_recent_shoppers_over_the_share_of_all(engine):
    day = timedelta(days=1)
    found = [
        met("ann", "pen") | {"last_time": START},
        met("bob", "pen") | {"last_time": START + 3 * day},
        # As old as the window is long: the last that is recent.
        met("cid", "cup") | {"last_time": START + 2 * day},
        met("dee", "cup") | {"last_time": START + 4 * day},
        met("ann", "ink") | {"last_time": START + 2 * day - timedelta(seconds=1)},
    ]

    ranked = engine.to_arrow(rank_products(engine.from_arrow(interactions_table(*found)), 2))

    by_id = {row["product_id"]: row for row in ranked.to_pylist()}
    recent = {name: (row["users"], row["recent_users"]) for name, row in by_id.items()}
    assert recent == {"pen": (2, 1), "cup": (2, 2), "ink": (1, 0)}
    products = Products.of(ranked)
    # Three of five pairs are recent; each product has one usual shopper more.
    expected = {
        "pen": (1 + 1) / (2 * 0.6 + 1),
        "cup": (2 + 1) / (2 * 0.6 + 1),
        "ink": (0 + 1) / (1 * 0.6 + 1),
    }
    assert dict(zip(products.ids.to_pylist(), products.trend, strict=True)) == pytest.approx(expected)


def test_products_are_ranked_by_trend_beside_their_rank() -> None:
    popular = pa.table(
        {
            "rank": [1, 2, 3],
            "product_id": ["old", "new", "mid"],
            "score": [10.0, 6.0, 5.0],
            "users": [10, 6, 5],
            "recent_users": [0, 6, 1],
        }
    )
    # A third of the pairs are recent.
    trends = {"old": 1 / (10 / 3 + 1), "new": 7 / 3, "mid": 2 / (5 / 3 + 1)}

    for exponent, order in ((0, ["old", "new", "mid"]), (1, ["new", "mid", "old"])):
        found = with_trends(popular, exponent).to_pylist()
        assert [row["product_id"] for row in found] == order
        assert [row["rank"] for row in found] == [1, 2, 3]
        assert {row["product_id"]: row["trend"] for row in found} == pytest.approx(trends)
        by_trend = sorted(found, key=lambda row: row["trending_rank"])
        assert [row["product_id"] for row in by_trend] == ["new", "mid", "old"]
    assert with_trends(popular.slice(0, 0), 1).num_rows == 0


@pytest.mark.long_on_spark
def test_a_category_that_came_later_is_not_known(engine):
    days = pa.table(
        {
            "report_date": [date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 2)],
            "product_id": ["pen", "pen", "cup"],
            "product_category": ["office", "gifts", "kitchen"],
        }
    )

    found = latest_categories(engine.from_arrow(days), date(2026, 3, 1))

    assert engine.to_arrow(found).to_pylist() == [{"product_id": "pen", "product_category": "office"}]


def test_what_is_popular_in_the_shoppers_categories_is_a_chance():
    ids = pa.array(["pen", "cup", "ink", "mug", "odd"])
    shoppers = np.array([4, 4, 2, 2, 1])
    products = Products(ids, shoppers, np.array([6.0, 5, 3, 1, 1]), shoppers, np.array([0, 1, 0, 1, -1]))
    model = CategoryModel(products)
    # Two thirds of what the first met is of office; the second met nothing, the third what has no category.
    strengths = csr_matrix(np.array([[2.0, 1, 0, 0, 0], [0] * 5, [0, 0, 0, 0, 3]]))

    scores = model.scores(strengths)

    office, kitchen = 2 / 3, 1 / 3
    expected = [office * 6 / 9, kitchen * 5 / 6, office * 3 / 9, kitchen * 1 / 6, 0]
    np.testing.assert_allclose(scores[0], expected, rtol=1e-6)
    assert not scores[1:].any()
    own, picked = np.array([[0, 1]]), np.array([[2, 3, 4]])
    [terms] = model.contributions(own, np.array([[2.0, 1.0]]), picked)
    np.testing.assert_allclose(terms, [[office * 3 / 9, 0.0], [0.0, kitchen * 1 / 6], [0.0, 0.0]])
