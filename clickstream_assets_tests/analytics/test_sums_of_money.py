"""Sums of money are exact however many of the largest amounts there are."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from clickstream_assets.analytics.attribution import campaign_attribution, campaign_touches
from clickstream_assets.analytics.carts import CartRules, abandonments, cart_states, carts, steps
from clickstream_assets.analytics.customers import customer_segments, orders, refunds
from clickstream_assets.analytics.money import as_sent
from clickstream_assets.analytics.products import category_conversion, product_performance
from clickstream_assets.analytics.segments import user_segments
from clickstream_assets.analytics.summary import daily_summary
from clickstream_assets.catalogue import (
    CAMPAIGN_ATTRIBUTION,
    CARTS,
    CATEGORY_CONVERSION,
    CUSTOMER_SEGMENTS,
    DAILY_SUMMARY,
    PRODUCT_PERFORMANCE,
    SESSIONS,
)
from clickstream_assets.engine import DataFrame, Engine, functions_of
from clickstream_assets.settings import Settings
from clickstream_assets_tests.analytics.days import GAP, table_of, visits_of
from clickstream_assets_tests.analytics.records import at, day, event, event_table

LARGEST = Decimal("9999999999.9999")
USERS, LINES = 10, 10_050
DAY = day("2024-05-01")


@pytest.fixture
def events(engine: Engine) -> DataFrame:
    """Purchases, an order of each user: its sum has more than 14 digits, and all of them more than 64 bits."""
    start = at("2024-05-01 10:00")
    return engine.persist(
        engine.from_arrow(
            event_table(
                event("purchase" if line else "add_to_cart", "2024-05-01 10:00", f"u{user}")
                | {
                    "event_time": start + timedelta(seconds=line),
                    "price": LARGEST,
                    "order_id": "o",
                    "campaign": "spring" if line else None,
                }
                for user in range(USERS)
                for line in range(LINES + 1)
            )
        )
    )


@pytest.mark.slow
@pytest.mark.long_on_spark
def test_every_table_adds_them_up(engine: Engine, events: DataFrame):
    of_order = LARGEST * LINES
    of_all = of_order * USERS
    visits = visits_of(engine, events, DAY, DAY)

    def column(df: DataFrame, table: Any, name: str) -> list[Decimal]:
        return [row[name] for row in table_of(engine, df, table)]

    assert column(visits, SESSIONS, "revenue") == [of_order] * USERS
    summary = daily_summary(as_sent(events), user_segments(as_sent(events)), events, visits, DAY, DAY)
    assert column(summary, DAILY_SUMMARY, "revenue") == [of_all]
    (average,) = column(summary, DAILY_SUMMARY, "average_order_value")
    # A division of whole numbers that DuckDB does in floats: good to fifteen digits.
    assert abs(average - of_order) / of_order < Decimal("1e-15")
    assert column(product_performance(events), PRODUCT_PERFORMANCE, "revenue") == [of_all]
    assert column(category_conversion(events), CATEGORY_CONVERSION, "revenue") == [of_all]
    shared = campaign_attribution(events, campaign_touches(events, GAP), DAY, DAY, timedelta(days=30), GAP)
    assert column(shared, CAMPAIGN_ATTRIBUTION, "revenue") == [of_all] * 3

    rules = CartRules.of(Settings(_env_file=None), at("2024-05-20 10:00"))
    followed = cart_states(engine, events, rules)
    assert column(carts(followed), CARTS, "value") == [of_order] * USERS
    F, _ = functions_of(events)
    days = events.select(F.col("event_date").alias("report_date")).distinct()
    left = abandonments(steps(followed), rules)
    customers = customer_segments(orders(events), refunds(events), left, days, 365)
    assert column(customers, CUSTOMER_SEGMENTS, "monetary") == [of_order] * USERS
