"""Whether every user is somewhere, once."""

import dagster as dg

from clickstream_assets.analytics.schema import COHORT_RETENTION, CUSTOMER_SEGMENTS, USER_SEGMENTS
from clickstream_assets.defs.keys import SAMPLES, keys_are_unique
from clickstream_assets.engine import functions_of
from clickstream_assets.resources.lake import LakeResource

unique_segments = keys_are_unique(USER_SEGMENTS)
unique_customers = keys_are_unique(CUSTOMER_SEGMENTS)
unique_cohorts = keys_are_unique(COHORT_RETENTION)


@dg.asset_check(asset="customer_segments")
def quintiles_are_even(lake: LakeResource) -> dg.AssetCheckResult:
    """Of the buyers of every day, no score has over one more than another, and all have a segment."""
    the_lake = lake.get()
    rows = the_lake.read(CUSTOMER_SEGMENTS)
    F, _ = functions_of(rows)
    buyers = rows.where(F.col("frequency") > 0)
    uneven = []
    for score in ("r_score", "f_score", "m_score"):
        of_score = buyers.groupBy("report_date", score).agg(
            F.count(F.lit(1)).cast("long").alias("customers"),
            F.sum(F.when(F.col("rfm_segment").isNull(), 1).otherwise(0)).cast("long").alias("unnamed"),
        )
        of_day = of_score.groupBy("report_date").agg(
            F.max("customers").alias("most"),
            F.min("customers").alias("least"),
            F.sum("unnamed").alias("unnamed"),
        )
        wrong = of_day.where((F.col("most") - F.col("least") > 1) | (F.col("unnamed") > 0))
        found = the_lake.engine.to_arrow(wrong.select("report_date", "most", "least").limit(SAMPLES))
        uneven += [
            f"{row['report_date']}: {score} {row['least']} to {row['most']}" for row in found.to_pylist()
        ]
    return dg.AssetCheckResult(
        passed=not uneven,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"expected": "sizes that differ by one at most", "sample_keys": uneven[:SAMPLES]},
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
