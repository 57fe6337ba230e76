"""Whether sessions account for every event, once, and carts for what was bought."""

import dagster as dg

from clickstream_assets.analytics.measures import MONEY, revenue
from clickstream_assets.analytics.schema import CARTS, EVENTS, SESSIONS
from clickstream_assets.defs.keys import SAMPLES, keys_are_unique
from clickstream_assets.defs.tables import FIRST
from clickstream_assets.engine import as_view, functions_of
from clickstream_assets.resources.lake import LakeResource


@dg.asset_check(asset="sessions", blocking=True, op_tags=FIRST)
def session_ids_are_unique(lake: LakeResource) -> dg.AssetCheckResult:
    """No session id occurs twice."""
    the_lake = lake.get()
    rows = the_lake.read(SESSIONS)
    F, _ = functions_of(rows)
    twice = rows.groupBy("session_id").agg(F.count(F.lit(1)).alias("rows")).where(F.col("rows") > 1).limit(5)
    ids = the_lake.engine.to_arrow(twice.select("session_id"))["session_id"].to_pylist()
    return dg.AssetCheckResult(passed=not ids, metadata={"sample_session_ids": ids})


@dg.asset_check(asset="sessions")
def sessions_hold_all_events(lake: LakeResource) -> dg.AssetCheckResult:
    """The sessions' events add up to all events.

    Not blocking: while days are still being brought up to date one after another, the sums differ.
    """
    the_lake = lake.get()
    rows = the_lake.read(SESSIONS)
    F, _ = functions_of(rows)
    total = rows.agg(F.coalesce(F.sum("total_events"), F.lit(0)).cast("long").alias("events"))
    actual = the_lake.engine.to_arrow(total)["events"][0].as_py()
    expected = the_lake.snapshot(EVENTS).rows
    return dg.AssetCheckResult(
        passed=actual == expected,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"expected": expected, "actual": actual},
    )


@dg.asset_check(asset="sessions")
def sessions_hold_all_revenue(lake: LakeResource) -> dg.AssetCheckResult:
    """The sessions' revenue adds up to that of all purchases.

    Not blocking: while days are still being brought up to date one after another, the sums differ.
    """
    the_lake = lake.get()
    rows, events = the_lake.read(SESSIONS), the_lake.read(EVENTS)
    F, _ = functions_of(rows)
    total = rows.agg(F.coalesce(F.sum("revenue"), F.lit(0)).cast(MONEY).alias("revenue"))
    actual = the_lake.engine.to_arrow(total)["revenue"][0].as_py()
    expected = the_lake.engine.to_arrow(events.agg(revenue(F).alias("revenue")))["revenue"][0].as_py()
    return dg.AssetCheckResult(
        passed=actual == expected,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"expected": str(expected), "actual": str(actual)},
    )


unique_carts = keys_are_unique(CARTS)


@dg.asset_check(asset="carts")
def bought_carts_have_their_purchase(lake: LakeResource) -> dg.AssetCheckResult:
    """Each cart that was bought has its user's purchase of one of its products at that time.

    Not blocking: while sessions are still being brought up to date, more or fewer of the events are bots'.
    """
    the_lake = lake.get()
    carts, events = the_lake.read(CARTS), the_lake.read(EVENTS)
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
    without = the_lake.engine.to_arrow(per_cart.where(F.col("purchases") == 0).limit(SAMPLES))
    expected = the_lake.engine.to_arrow(bought.agg(F.countDistinct("cart_id").cast("long").alias("carts")))
    found = the_lake.engine.to_arrow(
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
