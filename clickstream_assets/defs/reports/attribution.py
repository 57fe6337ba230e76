"""The campaigns that days' orders are owed to, and checks that all orders and all revenue are."""

from datetime import date, timedelta

import dagster as dg

from clickstream_assets.analytics.attribution import campaign_attribution as compute_campaign_attribution
from clickstream_assets.analytics.attribution import campaign_touches as touches_of_days
from clickstream_assets.analytics.measures import revenue
from clickstream_assets.analytics.persons import within
from clickstream_assets.catalogue import (
    ATTRIBUTION_MODELS,
    CAMPAIGN_ATTRIBUTION,
    CAMPAIGN_TOUCHES,
    DAILY_SUMMARY,
    SHOPPER_EVENTS,
)
from clickstream_assets.defs.assets import ByDay, Metadata, table_asset
from clickstream_assets.defs.checks import table_check
from clickstream_assets.defs.partitions import TOUCHES_BEFORE, Days, days_of, replace_days
from clickstream_assets.defs.plots import bar_plot
from clickstream_assets.defs.scope import replace_days_from_shopper_events, rows_of, run_days
from clickstream_assets.defs.sums import Sums, compared, sums
from clickstream_assets.engine import functions_of
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake


@table_asset(CAMPAIGN_TOUCHES, deps=["shopper_events"], is_daily=True)
def campaign_touches(context: dg.AssetExecutionContext, settings: Settings, lake: Lake) -> Metadata:
    """One row per touch of a campaign on a person's day, so that no attribution reads the events of its lookback."""
    gap = timedelta(minutes=settings.session_gap_minutes)
    replace_days_from_shopper_events(
        context, lake, CAMPAIGN_TOUCHES, lambda shoppers: touches_of_days(shoppers, gap)
    )
    return {}


@table_asset(CAMPAIGN_ATTRIBUTION, deps=["shopper_events", TOUCHES_BEFORE], is_daily=True)
def campaign_attribution(context: dg.AssetExecutionContext, settings: Settings, lake: Lake) -> Metadata:
    """One row per day, model and campaign: the orders and the revenue owed to it.

    Each model shares out the whole of a day's revenue; what is owed to no campaign is `(direct)`.
    """
    replace_days(
        context,
        lake,
        CAMPAIGN_ATTRIBUTION,
        lambda first, last: compute_campaign_attribution(
            lake.read(SHOPPER_EVENTS),
            lake.read(CAMPAIGN_TOUCHES),
            first,
            last,
            timedelta(days=settings.attribution_days),
            timedelta(minutes=settings.session_gap_minutes),
        ),
    )
    rows = rows_of(lake, CAMPAIGN_ATTRIBUTION, days_of(context))
    F, _ = functions_of(rows)
    linear = rows.where(F.col("model") == "linear").select("report_date", "campaign", "revenue")
    owed: dict[date, dict[str, float]] = {}
    for row in lake.engine.to_arrow(linear.orderBy(F.col("revenue").desc(), "campaign")).to_pylist():
        owed.setdefault(row["report_date"], {})[row["campaign"]] = float(row["revenue"])
    return {
        "revenue_by_campaign": ByDay(
            {
                day: bar_plot(f"Revenue by campaign, {day}", "revenue, shared out by the linear model", its)
                for day, its in owed.items()
            }
        )
    }


@table_check(CAMPAIGN_ATTRIBUTION, is_blocking=True)
def each_model_shares_out_all_revenue(
    context: dg.AssetCheckExecutionContext, lake: Lake
) -> dg.AssetCheckResult:
    """Each model's shares of a day add up to shoppers' purchases of the day."""
    days = run_days(context)
    shoppers = lake.read(SHOPPER_EVENTS)
    F, _ = functions_of(shoppers)
    purchases = shoppers.where(F.col("event_type") == "purchase")
    attributed = lake.snapshot(CAMPAIGN_ATTRIBUTION).rows_by("report_date")
    span = days or (Days(((min(attributed), max(attributed)),)) if attributed else None)
    expected: Sums = {}
    if span:
        of_days = within(purchases, "event_date", span.ranges)
        paid = of_days.groupBy("event_date").agg(revenue(F).alias("paid"))
        for row in lake.engine.to_arrow(paid).to_pylist():
            expected[row["event_date"]] = dict.fromkeys(ATTRIBUTION_MODELS, row["paid"])
    return compared(expected, _by_model(lake, days, "revenue"))


@table_check(CAMPAIGN_ATTRIBUTION, deps=["daily_summary"], is_blocking=True)
def each_model_shares_out_all_orders(
    context: dg.AssetCheckExecutionContext, lake: Lake
) -> dg.AssetCheckResult:
    """Each model's shares of a day's orders add up to those of daily_summary."""
    days = run_days(context)
    summaries = sums(lake, DAILY_SUMMARY, {"orders": "orders"}, days)
    expected = {
        day: dict.fromkeys(ATTRIBUTION_MODELS, figures["orders"]) for day, figures in summaries.items()
    }
    return compared(expected, _by_model(lake, days, "orders"))


def _by_model(lake: Lake, days: Days | None, column: str) -> Sums:
    found: Sums = {}
    for model in ATTRIBUTION_MODELS:
        shares = sums(lake, CAMPAIGN_ATTRIBUTION, {model: column}, days, where=f"model = '{model}'")
        for day, figures in shares.items():
            found.setdefault(day, {}).update(figures)
    return found
