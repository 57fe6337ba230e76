"""What the days' orders are owed to, and whether all of their revenue is."""

from datetime import timedelta

import dagster as dg

from clickstream_assets.analytics.attribution import MODELS
from clickstream_assets.analytics.attribution import campaign_attribution as compute_campaign_attribution
from clickstream_assets.analytics.measures import revenue
from clickstream_assets.analytics.persons import between, persons_events
from clickstream_assets.catalogue import CAMPAIGN_ATTRIBUTION, DAILY_SUMMARY, EVENTS, SESSIONS
from clickstream_assets.defs.failures import explained_errors
from clickstream_assets.defs.keys import keys_are_unique
from clickstream_assets.defs.partitions import daily, days_of, portions, row_counts
from clickstream_assets.defs.plots import bar_plot
from clickstream_assets.defs.resources import LakeResource, SettingsResource
from clickstream_assets.defs.scope import Days, check_events, events_version, run_days
from clickstream_assets.defs.sums import Sums, compared, sums
from clickstream_assets.defs.tables import FRESHNESS, OWNERS, describe
from clickstream_assets.engine import functions_of
from clickstream_assets.stores.lake import Lake


@dg.asset(
    deps=[
        # Campaigns of ATTRIBUTION_DAYS before count too; the events are not partitioned.
        "events",
        dg.AssetDep("sessions", partition_mapping=dg.TimeWindowPartitionMapping(start_offset=-2)),
    ],
    partitions_def=daily(),
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="reports",
    kinds={"delta"},
    owners=OWNERS,
    freshness_policy=FRESHNESS,
    metadata=describe(CAMPAIGN_ATTRIBUTION),
)
def campaign_attribution(
    context: dg.AssetExecutionContext, settings: SettingsResource, lake: LakeResource
) -> dg.MaterializeResult:
    """One row per UTC day, model and campaign: the orders and the revenue owed to it. No bots.

    Each model shares out the whole of a day's revenue; what no campaign touched is `(direct)`.
    """
    limits = settings.get()
    the_lake = lake.get()
    first, last = days_of(context)
    version = events_version(context.instance, context.run_id)
    with explained_errors():
        for start, end in portions(the_lake, first, last):
            rows = compute_campaign_attribution(
                the_lake.read(EVENTS, version),
                the_lake.read(SESSIONS),
                start,
                end,
                timedelta(days=limits.attribution_days),
                timedelta(minutes=limits.session_gap_minutes),
            )
            the_lake.replace(CAMPAIGN_ATTRIBUTION, rows, days=(start, end))
    rows = between(the_lake.read(CAMPAIGN_ATTRIBUTION), "report_date", first, last)
    F, _ = functions_of(rows)
    linear = rows.where(F.col("model") == "linear").groupBy("campaign")
    owed = the_lake.engine.to_arrow(linear.agg(F.sum("revenue").cast("double").alias("owed"))).to_pylist()
    greatest_first = sorted(owed, key=lambda row: (-row["owed"], row["campaign"]))
    return dg.MaterializeResult(
        metadata={
            **row_counts(the_lake, CAMPAIGN_ATTRIBUTION, first, last),
            "plot": bar_plot(
                f"Revenue by campaign, linear, {first} to {last}",
                {row["campaign"]: row["owed"] for row in greatest_first},
            ),
        }
    )


unique_keys = keys_are_unique(CAMPAIGN_ATTRIBUTION, run_days)


@dg.asset_check(asset="campaign_attribution", blocking=True)
def each_model_shares_out_all_revenue(
    context: dg.AssetCheckExecutionContext, lake: LakeResource
) -> dg.AssetCheckResult:
    """Of every day, each model's shares add up to the purchases of the day without bots'."""
    the_lake = lake.get()
    days = run_days(context)
    purchases = check_events(context, the_lake)
    F, _ = functions_of(purchases)
    purchases = purchases.where(F.col("event_type") == "purchase")
    attributed = the_lake.snapshot(CAMPAIGN_ATTRIBUTION).rows_by("report_date")
    span = days or ((min(attributed), max(attributed)) if attributed else None)
    expected: Sums = {}
    if span:
        persons = persons_events(purchases, the_lake.read(SESSIONS), *span)
        paid = persons.groupBy("event_date").agg(revenue(F).alias("paid"))
        for row in the_lake.engine.to_arrow(paid).to_pylist():
            expected[row["event_date"]] = dict.fromkeys(MODELS, row["paid"])
    return compared(expected, _by_model(the_lake, days, "revenue"))


@dg.asset_check(asset="campaign_attribution", additional_deps=["daily_summary"], blocking=True)
def each_model_shares_out_all_orders(
    context: dg.AssetCheckExecutionContext, lake: LakeResource
) -> dg.AssetCheckResult:
    """Of every day, each model's shares of orders add up to those of daily_summary."""
    the_lake = lake.get()
    days = run_days(context)
    summaries = sums(the_lake, DAILY_SUMMARY, {"orders": "orders"}, days)
    expected = {day: dict.fromkeys(MODELS, figures["orders"]) for day, figures in summaries.items()}
    return compared(expected, _by_model(the_lake, days, "orders"))


def _by_model(lake: Lake, days: Days, column: str) -> Sums:
    found: Sums = {}
    for model in MODELS:
        shares = sums(lake, CAMPAIGN_ATTRIBUTION, {model: column}, days, where=f"model = '{model}'")
        for day, figures in shares.items():
            found.setdefault(day, {}).update(figures)
    return found
