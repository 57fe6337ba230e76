"""Checks that sessions account for every event, once, and carts for what was bought."""

import dagster as dg

from clickstream_assets.analytics.measures import revenue
from clickstream_assets.analytics.persons import within
from clickstream_assets.catalogue import CARTS, EVENTS, SESSIONS
from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.defs.checks import SAMPLES, table_check
from clickstream_assets.defs.scope import run_days, run_events
from clickstream_assets.defs.sums import compared, sums_of_sessions
from clickstream_assets.engine import as_view, functions_of
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake


@table_check(SESSIONS)
def sessions_hold_all_events(
    context: dg.AssetCheckExecutionContext, settings: Settings, lake: Lake
) -> dg.AssetCheckResult:
    """The events and the revenue of a day's sessions are those of the day's events; bots' too.

    Not blocking: the sessions of the days before may wait for being brought up to date themselves.
    """
    days = run_days(context)
    events = run_events(context, lake)
    F, _ = functions_of(events)
    of_days = within(events, "event_date", days.ranges) if days else events
    counted = of_days.groupBy("event_date").agg(
        F.count(F.lit(1)).cast("long").alias("events"), revenue(F).alias("revenue")
    )
    expected = {row.pop("event_date"): row for row in lake.engine.to_arrow(counted).to_pylist()}
    actual = sums_of_sessions(lake, events, days, ShopClock(settings.shop_time_zone))
    return compared(expected, actual, severity=dg.AssetCheckSeverity.WARN)


@table_check(CARTS)
def bought_carts_have_their_purchase(lake: Lake) -> dg.AssetCheckResult:
    """Each cart that was bought has its user's purchase of one of its products at that time.

    Not blocking: while sessions are still being brought up to date, more or fewer of the events are bots'.
    """
    carts, events = lake.read(CARTS), lake.read(EVENTS)
    F, _ = functions_of(carts)
    bought = carts.where(F.col("purchased_at").isNotNull()).select(
        "cart_id", "user_id", "purchased_at", F.explode("product_ids").alias("bought_id")
    )
    purchases = events.where(F.col("event_type") == "purchase").select(
        F.col("user_id").alias("buyer_id"), F.col("event_time").alias("paid_at"), "product_id"
    )
    same = (
        (F.col("user_id") == F.col("buyer_id"))
        & (F.col("purchased_at") == F.col("paid_at"))
        & (F.col("bought_id") == F.col("product_id"))
    )
    of_all = as_view(bought).join(as_view(purchases), on=same, how="left")
    per_cart = of_all.groupBy("cart_id").agg(F.count("paid_at").cast("long").alias("purchases"))
    without = lake.engine.to_arrow(per_cart.where(F.col("purchases") == 0).limit(SAMPLES))
    expected = lake.engine.to_arrow(bought.agg(F.countDistinct("cart_id").cast("long").alias("carts")))
    found = lake.engine.to_arrow(
        per_cart.where(F.col("purchases") > 0).agg(F.count(F.lit(1)).cast("long").alias("carts"))
    )
    return dg.AssetCheckResult(
        passed=not without.num_rows,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "expected": expected["carts"][0].as_py(),
            "actual": found["carts"][0].as_py(),
            "sample_keys": without["cart_id"].to_pylist(),
        },
    )
