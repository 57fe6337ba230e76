"""Checks that every user is somewhere, once, and that scores follow behaviour."""

import dagster as dg

from clickstream_assets.catalogue import COHORT_RETENTION, CUSTOMER_SEGMENTS, USER_SEGMENTS
from clickstream_assets.defs.checks import SAMPLES, table_check
from clickstream_assets.defs.scope import replaced_days, rows_of
from clickstream_assets.engine import as_view, functions_of
from clickstream_assets.stores.lake import Lake

SCORED = {"r_score": "recency_days", "f_score": "frequency", "m_score": "net_monetary"}


@table_check(CUSTOMER_SEGMENTS)
def scores_follow_behaviour(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    """A day's buyers who did better have no lower score, equals have the same, and all have a segment."""
    rows = rows_of(lake, CUSTOMER_SEGMENTS, replaced_days(context, CUSTOMER_SEGMENTS.name))
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
        for row in lake.engine.to_arrow(each.limit(SAMPLES)).to_pylist()
    ]
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "expected": "monotonic: no score below that of worse behaviour, one score for equal behaviour",
            "actual": f"not monotonic: {', '.join(found[:SAMPLES])}" if found else "monotonic",
            "sample_keys": found[:SAMPLES],
        },
    )


@table_check(COHORT_RETENTION)
def cohorts_hold_every_user(lake: Lake) -> dg.AssetCheckResult:
    """The cohorts' users add up to all users, and all of them were there in their first week."""
    users, cohorts = lake.read(USER_SEGMENTS), lake.read(COHORT_RETENTION)
    F, _ = functions_of(users)
    first_weeks = cohorts.where(F.col("weeks_since") == 0)
    counted = first_weeks.agg(
        F.coalesce(F.sum("users"), F.lit(0)).cast("long").alias("users"),
        F.coalesce(F.sum("active_users"), F.lit(0)).cast("long").alias("active"),
    )
    (actual,) = lake.engine.to_arrow(counted).to_pylist()
    distinct = users.agg(F.countDistinct("user_id").cast("long").alias("users"))
    expected = lake.engine.to_arrow(distinct)["users"][0].as_py()
    return dg.AssetCheckResult(
        passed=actual == {"users": expected, "active": expected},
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"expected": expected, "actual": actual["users"], "active_in_first_week": actual["active"]},
    )
