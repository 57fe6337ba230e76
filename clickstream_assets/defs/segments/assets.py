"""Who the shoppers are: by day, by the worth of their orders, and by whether they come back."""

from datetime import timedelta

import dagster as dg

from clickstream_assets.analytics.carts import CartRules, abandonments, cart_states
from clickstream_assets.analytics.cohorts import cohort_retention as compute_cohort_retention
from clickstream_assets.analytics.customers import customer_segments as compute_customer_segments
from clickstream_assets.analytics.customers import first_changed, orders, segment_days
from clickstream_assets.analytics.persons import between, persons_events
from clickstream_assets.analytics.segments import user_segments as compute_user_segments
from clickstream_assets.catalogue import (
    COHORT_RETENTION,
    CUSTOMER_SEGMENT_DAYS,
    CUSTOMER_SEGMENTS,
    EVENTS,
    SESSIONS,
    USER_SEGMENTS,
)
from clickstream_assets.defs.failures import explained_errors
from clickstream_assets.defs.partitions import daily, days_of, portions, row_counts
from clickstream_assets.defs.plots import bar_plot
from clickstream_assets.defs.resources import LakeResource, SettingsResource
from clickstream_assets.defs.scope import events_version
from clickstream_assets.defs.shopping import newest_time, shopping_events
from clickstream_assets.defs.tables import FRESHNESS, OWNERS, describe
from clickstream_assets.engine import functions_of

# Each day looks at all orders of RFM_DAYS; so many pairs of order and day are worked on at once.
ORDERS_PER_PORTION = 5_000_000
NO_DAY = "no day has changed"


@dg.asset(
    deps=[
        "events",
        # A bot's session can have started up to two days before the day's events.
        dg.AssetDep("sessions", partition_mapping=dg.TimeWindowPartitionMapping(start_offset=-2)),
    ],
    partitions_def=daily(),
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="segments",
    kinds={"delta"},
    owners=OWNERS,
    freshness_policy=FRESHNESS,
    metadata=describe(USER_SEGMENTS),
)
def user_segments(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
    """One row per user and UTC day: buyer (purchased that day) or window shopper. No bots."""
    the_lake = lake.get()
    first, last = days_of(context)
    with explained_errors():
        version = events_version(context.instance, context.run_id)
        for start, end in portions(the_lake, first, last):
            events = persons_events(the_lake.read(EVENTS, version), the_lake.read(SESSIONS), start, end)
            rows = compute_user_segments(events)
            the_lake.replace(USER_SEGMENTS, rows, days=(start, end))
    kept = between(the_lake.read(USER_SEGMENTS), "report_date", first, last)
    F, _ = functions_of(kept)
    counted = kept.groupBy("segment").agg(F.count(F.lit(1)).cast("long").alias("users"))
    users = {row["segment"]: row["users"] for row in the_lake.engine.to_arrow(counted).to_pylist()}
    return dg.MaterializeResult(
        metadata={
            **row_counts(the_lake, USER_SEGMENTS, first, last),
            "users_by_segment": bar_plot(
                f"Users and days by segment, {first} to {last}",
                {segment: users.get(segment, 0) for segment in ("buyer", "window_shopper")},
            ),
        }
    )


@dg.asset(
    deps=["events", "sessions"],
    group_name="segments",
    kinds={"delta"},
    owners=OWNERS,
    freshness_policy=FRESHNESS,
    metadata=describe(CUSTOMER_SEGMENTS, CUSTOMER_SEGMENT_DAYS),
)
def customer_segments(settings: SettingsResource, lake: LakeResource) -> dg.MaterializeResult:
    """One row per customer as of the end of each day: RFM scores, named segment, and abandoned carts. No bots.

    An event changes its own day and the days after it. `customer_segment_days` says what each day was made from; the
    days from the first one that is no longer so are replaced, whatever it was that changed.
    """
    limits = settings.get()
    the_lake = lake.get()
    engine = the_lake.engine
    with explained_errors():
        newest = the_lake.snapshot(EVENTS)
        as_of = newest_time(the_lake, newest)
        rules = CartRules.of(limits, as_of)
        events = engine.persist(shopping_events(the_lake, newest))
        settings_text = f"{limits.rfm_days} {rules.abandoned_after} {rules.lifetime}"
        before = engine.to_arrow(the_lake.read(CUSTOMER_SEGMENT_DAYS))
        after = segment_days(engine, events, as_of, settings_text)
        changed = first_changed(before, after)
        if changed:
            last = max(*before["report_date"].to_pylist(), *after["report_date"].to_pylist(), changed)
            states = cart_states(engine, events, rules)
            left = engine.persist(abandonments(states))
            all_orders = engine.persist(orders(events))
            F, _ = functions_of(all_orders)
            counted = engine.to_arrow(all_orders.agg(F.count(F.lit(1)).cast("long").alias("orders")))
            step = timedelta(days=ORDERS_PER_PORTION // max(1, counted["orders"][0].as_py()))
            start = changed
            while start <= last:
                end = start + min(step, last - start)
                its_orders = between(all_orders, "order_date", start - timedelta(days=limits.rfm_days), end)
                days = between(engine.from_arrow(after.select(["report_date"])), "report_date", start, end)
                rows = compute_customer_segments(its_orders, left, days, limits.rfm_days)
                the_lake.replace(CUSTOMER_SEGMENTS, rows, days=(start, end))
                start = end + timedelta(days=1)
            the_lake.replace(CUSTOMER_SEGMENT_DAYS, engine.from_arrow(after))
            for df in (all_orders, left, states):
                engine.release(df)
        engine.release(events)
    snapshot = the_lake.snapshot(CUSTOMER_SEGMENTS)
    rows = the_lake.read(CUSTOMER_SEGMENTS)
    F, _ = functions_of(rows)
    of_newest = rows.where((F.col("report_date") == F.lit(as_of.date())) & F.col("rfm_segment").isNotNull())
    by_segment = of_newest.groupBy("rfm_segment").agg(F.count(F.lit(1)).cast("long").alias("customers"))
    counts = {
        row["rfm_segment"]: row["customers"]
        for row in engine.to_arrow(by_segment.orderBy("rfm_segment")).to_pylist()
    }
    return dg.MaterializeResult(
        metadata={
            "as_of": dg.MetadataValue.timestamp(as_of),
            "events_batch": newest.batch,
            "replaced_from": str(changed) if changed else NO_DAY,
            "customers_by_segment": bar_plot("Customers by segment on the newest day", counts),
            "dagster/row_count": snapshot.rows,
        }
    )


@dg.asset(
    deps=[user_segments],
    group_name="segments",
    kinds={"delta"},
    owners=OWNERS,
    freshness_policy=FRESHNESS,
    metadata=describe(COHORT_RETENTION),
)
def cohort_retention(lake: LakeResource) -> dg.MaterializeResult:
    """One row per ISO week of first appearance and week since then: how many of those users were there. No bots."""
    the_lake = lake.get()
    with explained_errors():
        the_lake.replace(COHORT_RETENTION, compute_cohort_retention(the_lake.read(USER_SEGMENTS)))
    rows = the_lake.read(COHORT_RETENTION)
    F, _ = functions_of(rows)
    by_age = rows.groupBy("weeks_since").agg(
        (F.sum("active_users") / F.sum("users").cast("double")).alias("retention")
    )
    shares = {
        f"after {row['weeks_since']} weeks": round(row["retention"] * 100, 1)
        for row in the_lake.engine.to_arrow(by_age.orderBy("weeks_since")).to_pylist()
    }
    return dg.MaterializeResult(
        metadata={
            "retention_percent": bar_plot("Share of users who were there again, per cent", shares),
            "dagster/row_count": the_lake.snapshot(COHORT_RETENTION).rows,
        }
    )
