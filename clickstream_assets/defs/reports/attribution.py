"""What the days' orders are owed to, and whether all of their revenue is."""

from datetime import timedelta

import dagster as dg

from clickstream_assets.analytics.attribution import MODELS
from clickstream_assets.analytics.attribution import campaign_attribution as compute_campaign_attribution
from clickstream_assets.analytics.measures import revenue
from clickstream_assets.analytics.persons import between, persons_events
from clickstream_assets.analytics.schema import CAMPAIGN_ATTRIBUTION, EVENTS, SESSIONS
from clickstream_assets.defs.failures import explained_errors
from clickstream_assets.defs.keys import SAMPLES, keys_are_unique
from clickstream_assets.defs.partitions import daily, days_of, portions, row_counts
from clickstream_assets.defs.plots import bar_plot
from clickstream_assets.defs.tables import FRESHNESS, OWNERS, describe
from clickstream_assets.engine import functions_of
from clickstream_assets.resources.lake import LakeResource
from clickstream_assets.resources.settings import SettingsResource


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
    with explained_errors():
        for start, end in portions(the_lake, first, last):
            rows = compute_campaign_attribution(
                the_lake.read(EVENTS),
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


unique_keys = keys_are_unique(CAMPAIGN_ATTRIBUTION)


@dg.asset_check(asset="campaign_attribution")
def each_model_shares_out_all_revenue(lake: LakeResource) -> dg.AssetCheckResult:
    """Of every day, each model's shares add up to the purchases of the day without bots'.

    Not blocking: while days are still being brought up to date one after another, the sums differ.
    """
    the_lake = lake.get()
    attributed = the_lake.snapshot(CAMPAIGN_ATTRIBUTION).rows_by("report_date")
    if not attributed:
        return dg.AssetCheckResult(passed=True, metadata={"days": 0})
    purchases = the_lake.read(EVENTS)
    F, _ = functions_of(purchases)
    purchases = purchases.where(F.col("event_type") == "purchase")
    persons = persons_events(purchases, the_lake.read(SESSIONS), min(attributed), max(attributed))
    paid = persons.groupBy("event_date").agg(revenue(F).alias("paid"))
    shared = (
        the_lake.read(CAMPAIGN_ATTRIBUTION)
        .groupBy("report_date", "model")
        .agg(F.sum("revenue").cast("decimal(18,4)").alias("owed"))
    )
    expected = {row["event_date"]: row["paid"] for row in the_lake.engine.to_arrow(paid).to_pylist()}
    actual = {
        (row["report_date"], row["model"]): row["owed"]
        for row in the_lake.engine.to_arrow(shared).to_pylist()
    }
    days = sorted(expected.keys() | {day for day, _ in actual})
    wrong = [
        (day, model) for day in days for model in MODELS if actual.get((day, model)) != expected.get(day)
    ]
    return dg.AssetCheckResult(
        passed=not wrong,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "expected": str(sum(expected.values())),
            "actual": {
                model: str(sum(v for (_, its), v in actual.items() if its == model)) for model in MODELS
            },
            "sample_keys": [
                {
                    "report_date": str(day),
                    "model": model,
                    "expected": str(expected.get(day)),
                    "actual": str(actual.get((day, model))),
                }
                for day, model in wrong[:SAMPLES]
            ],
        },
    )
