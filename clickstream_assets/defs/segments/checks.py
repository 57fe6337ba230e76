"""Whether every user is somewhere, once."""

from datetime import date

import dagster as dg

from clickstream_assets.catalogue import COHORT_RETENTION, CUSTOMER_SEGMENTS, USER_SEGMENTS
from clickstream_assets.defs.keys import SAMPLES, keys_are_unique
from clickstream_assets.defs.resources import LakeResource
from clickstream_assets.defs.runs import metadata_value
from clickstream_assets.defs.scope import Days, rows_of, run_days
from clickstream_assets.defs.segments.assets import NO_DAY
from clickstream_assets.engine import as_view, functions_of


def replaced_days(context: dg.AssetCheckExecutionContext) -> Days:
    """The days of customer_segments that were replaced last: from `replaced_from` on, none where nothing changed."""
    event = context.instance.get_latest_materialization_event(dg.AssetKey(CUSTOMER_SEGMENTS.name))
    if event is None or event.run_id != context.run.run_id:
        return None
    first = metadata_value(event, "replaced_from")
    return (date.fromisoformat(first) if first != NO_DAY else date.max, date.max)


unique_segments = keys_are_unique(USER_SEGMENTS, run_days)
unique_customers = keys_are_unique(CUSTOMER_SEGMENTS, replaced_days)
unique_cohorts = keys_are_unique(COHORT_RETENTION)

SCORED = {"r_score": "recency_days", "f_score": "frequency", "m_score": "monetary"}


@dg.asset_check(asset="customer_segments")
def scores_follow_behaviour(
    context: dg.AssetCheckExecutionContext, lake: LakeResource
) -> dg.AssetCheckResult:
    """Of the buyers of every day, who did better has no lower score, equals have the same, and all have a segment."""
    the_lake = lake.get()
    rows = rows_of(the_lake, CUSTOMER_SEGMENTS, replaced_days(context))
    F, Window = functions_of(rows)
    buyers = rows.where(F.col("frequency") > 0)
    unnamed = buyers.where(F.col("rfm_segment").isNull()).select(
        "report_date", F.lit("no segment").alias("what")
    )
    wrong = [unnamed]
    for score, better in SCORED.items():
        measure = F.col(better) if better != "recency_days" else -F.col(better)
        scored = as_view(buyers.select("report_date", measure.alias("measure"), score))
        of_value = as_view(
            scored.groupBy("report_date", "measure").agg(
                F.min(score).alias("least"), F.max(score).alias("most")
            )
        )
        in_order = Window.partitionBy("report_date").orderBy("measure")
        compared = as_view(
            of_value.select(
                "report_date",
                (F.col("least") != F.col("most")).alias("differs"),
                (F.lag("most").over(in_order) > F.col("least")).alias("falls"),
            )
        )
        wrong.append(
            compared.where(F.col("differs") | F.col("falls")).select(
                "report_date", F.lit(score).alias("what")
            )
        )
    found = [
        f"{row['report_date']}: {row['what']}"
        for each in wrong
        for row in the_lake.engine.to_arrow(each.limit(SAMPLES)).to_pylist()
    ]
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "expected": "no score below that of worse behaviour, one score for equal behaviour",
            "actual": "so it is" if not found else f"not so: {', '.join(found[:SAMPLES])}",
            "sample_keys": found[:SAMPLES],
        },
    )


@dg.asset_check(asset="cohort_retention")
def cohorts_hold_every_user(lake: LakeResource) -> dg.AssetCheckResult:
    """The cohorts' users add up to all users, and all of them were there in their first week."""
    the_lake = lake.get()
    users, cohorts = the_lake.read(USER_SEGMENTS), the_lake.read(COHORT_RETENTION)
    F, _ = functions_of(users)
    first_weeks = cohorts.where(F.col("weeks_since") == 0)
    counted = first_weeks.agg(
        F.coalesce(F.sum("users"), F.lit(0)).cast("long").alias("users"),
        F.coalesce(F.sum("active_users"), F.lit(0)).cast("long").alias("active"),
    )
    (actual,) = the_lake.engine.to_arrow(counted).to_pylist()
    distinct = users.agg(F.countDistinct("user_id").cast("long").alias("users"))
    expected = the_lake.engine.to_arrow(distinct)["users"][0].as_py()
    return dg.AssetCheckResult(
        passed=actual == {"users": expected, "active": expected},
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"expected": expected, "actual": actual["users"], "active_in_first_week": actual["active"]},
    )
