"""Sessions, a day at a time, and carts, which know no days."""

from datetime import timedelta

import dagster as dg

from clickstream_assets.analytics.carts import CartRules, cart_days, cart_states
from clickstream_assets.analytics.carts import carts as final_carts
from clickstream_assets.analytics.persons import between
from clickstream_assets.analytics.sessions import sessions as compute_sessions
from clickstream_assets.catalogue import CART_DAYS, CARTS, EVENTS, SESSIONS
from clickstream_assets.defs.failures import explained_errors
from clickstream_assets.defs.partitions import daily, days_of, portions, row_counts
from clickstream_assets.defs.plots import bar_plot
from clickstream_assets.defs.resources import LakeResource, SettingsResource
from clickstream_assets.defs.scope import EVENTS_VERSION
from clickstream_assets.defs.shopping import newest_time, shopping_events
from clickstream_assets.defs.tables import FIRST, FRESHNESS, OWNERS, describe
from clickstream_assets.engine import functions_of


@dg.asset(
    deps=["events"],
    partitions_def=daily(),
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="sessions",
    kinds={"delta"},
    owners=OWNERS,
    freshness_policy=FRESHNESS,
    op_tags=FIRST,
    metadata=describe(SESSIONS),
)
def sessions(
    context: dg.AssetExecutionContext, settings: SettingsResource, lake: LakeResource
) -> dg.MaterializeResult:
    """One row per visit, on the day it started and whole across midnight. Bots' are labelled.

    A day is replaced in one commit, so computing it again, in any order, gives the same table.
    """
    limits = settings.get()
    the_lake = lake.get()
    gap = timedelta(minutes=limits.session_gap_minutes)
    first, last = days_of(context)
    with explained_errors():
        version = the_lake.snapshot(EVENTS).version
        for start, end in portions(the_lake, first, last):
            rows = compute_sessions(
                the_lake.read(EVENTS, version),
                start,
                end,
                gap,
                limits.bot_views_per_minute,
                cut_at_midnight=limits.session_cut_at_midnight,
                cut_at_campaign=limits.session_cut_at_campaign,
            )
            the_lake.replace(SESSIONS, rows, days=(start, end))
    kept = between(the_lake.read(SESSIONS), "session_date", first, last)
    F, _ = functions_of(kept)
    by_step = kept.where(~F.col("is_bot")).groupBy("furthest_step")
    counted = by_step.agg(F.count(F.lit(1)).cast("long").alias("sessions"))
    steps = {row["furthest_step"]: row["sessions"] for row in the_lake.engine.to_arrow(counted).to_pylist()}
    return dg.MaterializeResult(
        metadata={
            **row_counts(the_lake, SESSIONS, first, last),
            EVENTS_VERSION: version,
            "sessions_by_step": bar_plot(
                f"Sessions of persons by their furthest step, {first} to {last}",
                {step: steps.get(step, 0) for step in ("none", "view", "add_to_cart", "purchase")},
            ),
        }
    )


@dg.asset(
    deps=["events", "sessions"],
    group_name="sessions",
    kinds={"delta"},
    owners=OWNERS,
    freshness_policy=FRESHNESS,
    metadata=describe(CARTS, CART_DAYS),
)
def carts(settings: SettingsResource, lake: LakeResource) -> dg.MaterializeResult:
    """One row per cart, across sessions: open, abandoned, emptied, converted or recovered. No bots.

    Computed from all additions, removals and purchases each time, so a late event repairs the carts it concerns.
    A cart is abandoned as of the newest event of all. `cart_days` counts what happened on each day.
    """
    the_lake = lake.get()
    engine = the_lake.engine
    with explained_errors():
        events = the_lake.snapshot(EVENTS)
        as_of = newest_time(the_lake, events)
        states = cart_states(engine, shopping_events(the_lake, events), CartRules.of(settings.get(), as_of))
        the_lake.replace(CARTS, final_carts(states))
        the_lake.replace(CART_DAYS, cart_days(states))
        engine.release(states)
    rows = the_lake.read(CARTS)
    F, _ = functions_of(rows)
    by_state = rows.groupBy("state").agg(F.count(F.lit(1)).cast("long").alias("carts"))
    counts = {row["state"]: row["carts"] for row in engine.to_arrow(by_state.orderBy("state")).to_pylist()}
    return dg.MaterializeResult(
        metadata={
            "as_of": dg.MetadataValue.timestamp(as_of),
            "events_batch": events.batch,
            "states": counts,
            "carts_by_state": bar_plot("Carts by state", counts),
            "dagster/row_count": sum(counts.values()),
        }
    )
