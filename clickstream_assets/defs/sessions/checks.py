"""Whether sessions account for every event, once, and carts for what was bought."""

import dagster as dg

from clickstream_assets.analytics.measures import revenue
from clickstream_assets.analytics.persons import between
from clickstream_assets.catalogue import CARTS, EVENTS, SESSIONS
from clickstream_assets.defs.keys import SAMPLES, keys_are_unique
from clickstream_assets.defs.resources import LakeResource
from clickstream_assets.defs.scope import check_events, rows_of, run_days
from clickstream_assets.defs.sums import compared, sums_of_sessions
from clickstream_assets.defs.tables import FIRST
from clickstream_assets.engine import as_view, functions_of


@dg.asset_check(asset="sessions", blocking=True, op_tags=FIRST)
def session_ids_are_unique(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> dg.AssetCheckResult:
    """No session id occurs twice."""
    the_lake = lake.get()
    rows = rows_of(the_lake, SESSIONS, run_days(context))
    F, _ = functions_of(rows)
    counted = rows.agg(
        F.count(F.lit(1)).cast("long").alias("rows"), F.countDistinct("session_id").cast("long").alias("ids")
    )
    (counts,) = the_lake.engine.to_arrow(counted).to_pylist()
    ids: list[str] = []
    if counts["rows"] != counts["ids"]:
        per_id = rows.groupBy("session_id").agg(F.count(F.lit(1)).alias("rows"))
        twice = per_id.where(F.col("rows") > 1).limit(SAMPLES)
        ids = the_lake.engine.to_arrow(twice.select("session_id"))["session_id"].to_pylist()
    return dg.AssetCheckResult(
        passed=not ids,
        metadata={"expected": counts["rows"], "actual": counts["ids"], "sample_session_ids": ids},
    )


@dg.asset_check(asset="sessions")
def sessions_hold_all_events(
    context: dg.AssetCheckExecutionContext, lake: LakeResource
) -> dg.AssetCheckResult:
    """Of every day, the sessions' events and revenue are those of the events; bots' too.

    Not blocking: the sessions of the days before may wait for being brought up to date themselves.
    """
    the_lake = lake.get()
    days = run_days(context)
    events = check_events(context, the_lake)
    F, _ = functions_of(events)
    of_days = between(events, "event_date", *days) if days else events
    counted = of_days.groupBy("event_date").agg(
        F.count(F.lit(1)).cast("long").alias("events"), revenue(F).alias("revenue")
    )
    expected = {row.pop("event_date"): row for row in the_lake.engine.to_arrow(counted).to_pylist()}
    actual = sums_of_sessions(the_lake, events, days)
    return compared(expected, actual, severity=dg.AssetCheckSeverity.WARN)


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
