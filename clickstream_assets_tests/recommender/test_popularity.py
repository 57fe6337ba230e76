import pyarrow as pa

from clickstream_assets.analytics.money import as_sent
from clickstream_assets.analytics.products import product_performance
from clickstream_assets.catalogue import POPULAR_PRODUCTS
from clickstream_assets.recommender.popularity import popular_products
from clickstream_assets_tests.recommender.shop import (
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

    ranked = engine.to_arrow(popular_products(engine.from_arrow(found), product_days))

    # 1.1 + 2.2 + 3.3 and 3.3 + 2.2 + 1.1 differ as doubles, and tie here.
    expected = [
        (1, "pen", "office", 10.0, 1, 2),
        (2, "cup", "kitchen", 6.6, 3, 0),
        (3, "ink", None, 6.6, 3, 0),
    ]
    assert [tuple(row.values()) for row in rows(ranked, "rank")] == expected
    assert [field.type for field in ranked.schema] == [field.type for field in POPULAR_PRODUCTS.arrow]


def test_both_engines_rank_products_alike(duckdb_engine, spark_engine):
    table = random_events(hours=80)

    def ranked(engine) -> list:
        events = engine.from_arrow(table)
        product_days = product_performance(as_sent(events))
        return rows(engine.to_arrow(popular_products(interactions_in(events), product_days)), "rank")

    assert len(ranked(duckdb_engine)) > 30
    assert ranked(duckdb_engine) == ranked(spark_engine)


def test_without_interactions_nothing_is_popular(engine):
    nothing: pa.Table = interactions_table()
    product_days = product_performance(as_sent(engine.from_arrow(events_table(event("ann", "pen")))))

    assert engine.to_arrow(popular_products(engine.from_arrow(nothing), product_days)).num_rows == 0
