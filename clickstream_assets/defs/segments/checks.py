"""Checks that every user is somewhere, once, and that scores follow behaviour."""

from collections import Counter
from datetime import date

import dagster as dg

from clickstream_assets.analytics.cohorts import WEEK, days_of_weeks, week_of, weeks_seen
from clickstream_assets.catalogue import COHORT_RETENTION, CUSTOMER_SEGMENTS, USER_SEGMENTS
from clickstream_assets.defs.checks import SAMPLES, table_check
from clickstream_assets.defs.scope import replaced_days, rows_of, run_days
from clickstream_assets.defs.sums import counts_by
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
def cohorts_hold_every_user(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    """The cohorts' active users of a week add up to the users of its days, and all were there in their first week.

    Of the weeks of the run's days, or of all.
    """
    days = run_days(context)
    weeks = None if days is None else {week_of(day) for day in days}
    of_weeks = None if weeks is None else days_of_weeks(weeks)
    users = weeks_seen(lake.read(USER_SEGMENTS, columns=("report_date", "user_id"), days=of_weeks))
    expected = counts_by(lake, users, "week")
    actual: Counter[date] = Counter()
    absent = 0
    for row in lake.engine.to_arrow(lake.read(COHORT_RETENTION)).to_pylist():
        week = row["cohort_week"] + row["weeks_since"] * WEEK
        if row["active_users"] and (weeks is None or week in weeks):
            actual[week] += row["active_users"]
        if row["weeks_since"] == 0:
            absent += row["users"] - row["active_users"]
    wrong = [
        f"{week}: {expected.get(week, 0)} expected, {actual[week]} found"
        for week in sorted(expected.keys() | actual.keys())
        if expected.get(week, 0) != actual[week]
    ]
    return dg.AssetCheckResult(
        passed=not wrong and not absent,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "expected": sum(expected.values()),
            "actual": sum(actual.values()),
            "absent_in_first_week": absent,
            "sample_weeks": wrong[:SAMPLES],
        },
    )
