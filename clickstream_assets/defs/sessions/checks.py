"""Checks that sessions account for every event, once, and carts for what was bought."""

from datetime import date, timedelta

import dagster as dg

from clickstream_assets.analytics.measures import revenue
from clickstream_assets.analytics.persons import within
from clickstream_assets.catalogue import CARTS, SESSIONS, SHOPPER_EVENTS
from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.catalogue.units import percent
from clickstream_assets.defs.checks import SAMPLES, table_check
from clickstream_assets.defs.partitions import Days
from clickstream_assets.defs.plots import shortened
from clickstream_assets.defs.scope import replaced_days, rows_of, run_days, run_events, run_persons
from clickstream_assets.defs.sums import compared, sums_of_sessions
from clickstream_assets.engine import as_view, functions_of
from clickstream_assets.ingest.reach import SESSION_DAYS
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake

SHOWN_CHARACTERS = 30
MOST_EVENTS_OF_ONE = 1_000
MOST_SHARE_OF_ONE = 5
"""Events of a day, and their share per hundred of all, that one person has at most; an id of a crowd's has more."""


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
    # A session goes on into the days after its own.
    reached = (
        Days.of(day + timedelta(days=n) for day in days for n in range(SESSION_DAYS + 1)) if days else None
    )
    persons = run_persons(context, lake, settings, reached)
    actual = sums_of_sessions(lake, persons, days, ShopClock(settings.shop_time_zone))
    return compared(expected, actual, severity=dg.AssetCheckSeverity.WARN)


@table_check(SESSIONS)
def ids_are_of_one_person(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    """No id has a share of a day's events that no person has: what stands for "unknown" makes all visitors one.

    Robots by their user agent aside. Add such a text to ID_PLACEHOLDERS, or have the sender leave it out.
    """
    days = run_days(context)
    events = run_events(context, lake)
    F, _ = functions_of(events)
    of_days = as_view(within(events, "event_date", days.ranges) if days else events)
    everything = of_days.groupBy("event_date").agg(F.count(F.lit(1)).cast("long").alias("all_events"))
    of_day = {row["event_date"]: row["all_events"] for row in lake.engine.to_arrow(everything).to_pylist()}
    found = []
    for name in ("user_id", "anonymous_id", "session_id"):
        sent = of_days.where(F.col(name).isNotNull() & ~F.col("is_bot")).groupBy("event_date", name)
        counted = sent.agg(F.count(F.lit(1)).cast("long").alias("events"))
        many = counted.where(F.col("events") > MOST_EVENTS_OF_ONE)
        for row in lake.engine.to_arrow(many).to_pylist():
            share = percent(row["events"], of_day[row["event_date"]])
            if share > MOST_SHARE_OF_ONE:
                found.append(
                    (share, f"{row['event_date']} {name} {shortened(row[name], SHOWN_CHARACTERS)}: {share} %")
                )
    found.sort(reverse=True)
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "expected": f"no id with more than {MOST_EVENTS_OF_ONE:,} events and {MOST_SHARE_OF_ONE} % of a day's",
            "actual": f"{len(found)} such ids and days",
            "sample_keys": [text for _, text in found[:SAMPLES]],
        },
    )


@table_check(CARTS)
def bought_carts_have_their_purchase(
    context: dg.AssetCheckExecutionContext, settings: Settings, lake: Lake
) -> dg.AssetCheckResult:
    """Each cart that was bought has its user's purchase of one of its products at that time.

    Of a run, those that it may have changed. Not blocking: while sessions are still being brought up to date, more or
    fewer of the events are bots'.
    """
    replaced = replaced_days(context, CARTS.name)
    carts, events = rows_of(lake, CARTS, replaced), lake.read(SHOPPER_EVENTS)
    F, _ = functions_of(carts)
    clock = ShopClock(settings.shop_time_zone)
    if replaced and replaced.first < date.max:
        # The first line of an order can be as much earlier than the last as a cart's lifetime.
        since = clock.begin(replaced.first - timedelta(days=settings.cart_lifetime_days + 1))
        carts = carts.where(F.col("purchased_at") >= F.lit(since))
    bought = carts.where(F.col("purchased_at").isNotNull())
    totals = bought.agg(
        F.count(F.lit(1)).cast("long").alias("carts"), F.min("purchased_at").alias("earliest")
    )
    (expected,) = lake.engine.to_arrow(totals).to_pylist()
    if expected["earliest"]:
        # Days of a lookback that no cart was bought on are not read.
        first = clock.day_of(expected["earliest"])
        events = events.where(F.col("event_date") >= F.lit(first))
    each = bought.select("cart_id", "user_id", "purchased_at", F.explode("product_ids").alias("bought_id"))
    purchases = events.where(F.col("event_type") == "purchase").select(
        F.col("user_id").alias("buyer_id"), F.col("event_time").alias("paid_at"), "product_id"
    )
    same = (
        (F.col("user_id") == F.col("buyer_id"))
        & (F.col("purchased_at") == F.col("paid_at"))
        & (F.col("bought_id") == F.col("product_id"))
    )
    has_purchase = as_view(each).join(as_view(purchases), on=same, how="inner").select("cart_id").distinct()
    paid = lake.engine.persist(has_purchase)
    counted = lake.engine.to_arrow(paid.agg(F.count(F.lit(1)).cast("long").alias("carts")))
    found = counted["carts"][0].as_py()
    missing = bought.select("cart_id").join(paid, on="cart_id", how="left_anti").select("cart_id")
    without = lake.engine.to_arrow(missing.limit(SAMPLES if found < expected["carts"] else 0))
    lake.engine.release(paid)
    return dg.AssetCheckResult(
        passed=not without.num_rows,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "expected": expected["carts"],
            "actual": found,
            "sample_keys": without["cart_id"].to_pylist(),
        },
    )
