"""Shoppers: by day, by the worth of their orders, and by whether they come back."""

from datetime import date, timedelta

import dagster as dg
import pyarrow as pa

from clickstream_assets.analytics.carts import CartRules, abandonments
from clickstream_assets.analytics.cohorts import cohort_retention as compute_cohort_retention
from clickstream_assets.analytics.consent import refusal_spans
from clickstream_assets.analytics.customers import ABANDONED_CART_DAYS, first_changed, segment_days
from clickstream_assets.analytics.customers import customer_segments as compute_customer_segments
from clickstream_assets.analytics.measures import number_of_hex, percent
from clickstream_assets.analytics.persons import between
from clickstream_assets.analytics.segments import user_segments as compute_user_segments
from clickstream_assets.catalogue import (
    CART_INPUTS,
    CART_STEPS,
    COHORT_INPUTS,
    COHORT_RETENTION,
    CONSENT_DAYS,
    CUSTOMER_SEGMENT_DAYS,
    CUSTOMER_SEGMENTS,
    EVENTS,
    SHOPPER_ORDERS,
    SHOPPER_REFUNDS,
    USER_SEGMENTS,
    USER_WEEKS,
)
from clickstream_assets.defs.assets import ByDay, Metadata, table_asset
from clickstream_assets.defs.partitions import days_of
from clickstream_assets.defs.plots import bar_plot
from clickstream_assets.defs.scope import NO_DAY, REPLACED_FROM, replace_days_from_shopper_events
from clickstream_assets.defs.segments.cohorts import update_user_weeks
from clickstream_assets.defs.shopper_days import newest_time, update_shopper_days
from clickstream_assets.defs.sums import counts_by, counts_by_day
from clickstream_assets.engine import DataFrame, as_view, functions_of
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake

# Each day looks at all orders of RFM_DAYS; so many pairs of order and day are worked on at once.
ORDERS_PER_CHUNK = 5_000_000


@table_asset(USER_SEGMENTS, deps=["shopper_events"], is_daily=True)
def user_segments(context: dg.AssetExecutionContext, lake: Lake) -> Metadata:
    """One row per person and day: buyer (purchased that day) or window shopper."""
    replace_days_from_shopper_events(context, lake, USER_SEGMENTS, compute_user_segments)
    users = counts_by_day(lake, USER_SEGMENTS, days_of(context), "segment")
    return {
        "users_by_segment": ByDay(
            {
                day: bar_plot(
                    f"Users by segment, {day}",
                    "users",
                    {name: counts.get(name, 0) for name in USER_SEGMENTS.by_name["segment"].values or ()},
                )
                for day, counts in users.items()
            }
        )
    }


def _days_with_carts(lake: Lake) -> pa.Table:
    """Return SHOPPER_DAYS rows, in whose fingerprints is what the day's carts were made from, where that is not it."""
    days = update_shopper_days(lake)
    inputs = lake.engine.to_arrow(lake.read(CART_INPUTS, columns=("report_date", "fingerprint"))).to_pylist()
    carts = {row["report_date"]: row["fingerprint"] for row in inputs}
    fingerprints = [
        its if carts.get(day) == its else f"{its}, carts {carts.get(day)}"
        for day, its in zip(days["report_date"].to_pylist(), days["fingerprint"].to_pylist(), strict=True)
    ]
    place = days.column_names.index("fingerprint")
    return days.set_column(place, "fingerprint", pa.array(fingerprints, pa.string()))


def _of_days(lake: Lake, refusals: DataFrame) -> dict[date, str]:
    """Return, by the day, a fingerprint of who refuses from then on, and who no more."""
    F, _ = functions_of(refusals)
    changes = [
        refusals.select(F.col(name).alias("day"), F.concat_ws(" ", F.lit(name), "refuser").alias("what"))
        for name in ("since", "until")
    ]
    both = as_view(changes[0].union(changes[1]))
    hashed = number_of_hex(F, F.substring(F.md5("what"), 1, 15)).cast("decimal(38,0)")
    found = (
        as_view(both.where(F.col("day").isNotNull()))
        .groupBy("day")
        .agg(
            F.concat_ws(":", F.count(F.lit(1)).cast("string"), F.sum(hashed).cast("string")).alias(
                "fingerprint"
            )
        )
    )
    return {row["day"]: row["fingerprint"] for row in lake.engine.to_arrow(found).to_pylist()}


@table_asset(
    CUSTOMER_SEGMENTS, CUSTOMER_SEGMENT_DAYS, deps=["events", "shopper_events", "carts", "interaction_days"]
)
def customer_segments(settings: Settings, lake: Lake) -> Metadata:
    """One row per customer as of the end of each day: RFM scores, named segment, and abandoned carts.

    Of who had not refused to be profiled by then.

    An event changes its own day and the days after it. `customer_segment_days` says what each day was made from; the
    days from the first one whose inputs changed are replaced, whatever it was that changed. They are made from the
    days' sums of orders, refunds and abandoned carts.
    """
    engine = lake.engine
    newest = lake.snapshot(EVENTS)
    as_of = newest_time(lake, newest, ValidationRules.of(settings))
    rules = CartRules.of(settings, as_of)
    settings_text = f"{settings.rfm_days} {rules.abandoned_after} {rules.lifetime}"
    before = engine.to_arrow(lake.read(CUSTOMER_SEGMENT_DAYS))
    refusals = engine.persist(refusal_spans(lake.read(CONSENT_DAYS)))
    after = segment_days(_days_with_carts(lake), as_of, settings_text, rules.clock, _of_days(lake, refusals))
    changed = first_changed(before, after)
    if changed:
        last = max(*before["report_date"].to_pylist(), *after["report_date"].to_pylist(), changed)
        since = changed - timedelta(days=settings.rfm_days)
        counts = lake.snapshot(SHOPPER_ORDERS).rows_by("order_date")
        counted = sum(rows for day, rows in counts.items() if since < day <= last)
        days_at_once = 1 + ORDERS_PER_CHUNK // max(1, counted)
        for offset in range(0, (last - changed).days + 1, days_at_once):
            start = changed + timedelta(days=offset)
            end = start + min(timedelta(days=days_at_once - 1), last - start)
            since = start - timedelta(days=settings.rfm_days)
            its_orders = between(lake.read(SHOPPER_ORDERS), "order_date", since, end)
            its_refunds = between(lake.read(SHOPPER_REFUNDS), "refund_date", since, end)
            given_up = start - timedelta(days=ABANDONED_CART_DAYS)
            left = abandonments(between(lake.read(CART_STEPS), "step_date", given_up, end), rules)
            days = between(engine.from_arrow(after.select(["report_date"])), "report_date", start, end)
            rows = compute_customer_segments(its_orders, its_refunds, left, days, settings.rfm_days, refusals)
            lake.replace(CUSTOMER_SEGMENTS, rows, days=(start, end))
        lake.replace(CUSTOMER_SEGMENT_DAYS, engine.from_arrow(after))
    engine.release(refusals)
    rows = lake.read(CUSTOMER_SEGMENTS)
    F, _ = functions_of(rows)
    newest_day = rules.clock.day_of(as_of)
    of_newest = rows.where((F.col("report_date") == F.lit(newest_day)) & F.col("rfm_segment").isNotNull())
    return {
        "as_of": dg.MetadataValue.timestamp(as_of),
        "events_batch": newest.batch,
        REPLACED_FROM: str(changed) if changed else NO_DAY,
        "customers_by_segment": bar_plot(
            f"Customers by RFM segment, as of {newest_day}",
            "customers with a purchase within RFM_DAYS",
            counts_by(lake, of_newest, "rfm_segment"),
        ),
    }


@table_asset(COHORT_RETENTION, USER_WEEKS, COHORT_INPUTS, deps=["user_segments"])
def cohort_retention(lake: Lake) -> Metadata:
    """One row per ISO week of first appearance and week since then: how many of those users were there.

    `user_weeks` has each user once a week, and is brought up to date by the weeks alone whose days have changed.
    """
    update_user_weeks(lake)
    lake.replace(COHORT_RETENTION, compute_cohort_retention(lake.read(USER_WEEKS)))
    rows = lake.read(COHORT_RETENTION)
    F, _ = functions_of(rows)
    by_age = rows.groupBy("weeks_since").agg(
        percent(F, F.sum("active_users"), F.sum("users")).alias("retention_rate")
    )
    shares = {
        f"after {row['weeks_since']} weeks": float(row["retention_rate"])
        for row in lake.engine.to_arrow(by_age.orderBy("weeks_since")).to_pylist()
    }
    return {
        "retention_by_week": bar_plot(
            "Users who were there again, by weeks since their first", "per cent of all cohorts' users", shares
        )
    }
