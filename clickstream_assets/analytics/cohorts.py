"""Cohorts: the users who were first seen in the same week, and the share of them that comes back."""

from __future__ import annotations

from datetime import date

from clickstream_assets.analytics.measures import count, percent, rows_of
from clickstream_assets.catalogue import COHORT_RETENTION
from clickstream_assets.engine import DataFrame, as_view, functions_of

# Weeks are counted from a Monday, as ISO 8601 has them.
_A_MONDAY = date(1970, 1, 5)


def cohort_retention(user_segments: DataFrame) -> DataFrame:
    """Count, per week of first appearance, the users who were there again so many weeks later.

    Every week in which anybody was there counts, also where none of the cohort was.

    Args:
        user_segments: USER_SEGMENTS rows of all days.

    Returns:
        COHORT_RETENTION rows.
    """
    F, Window = functions_of(user_segments)
    since = F.datediff("report_date", F.lit(_A_MONDAY))
    weeks = as_view(
        user_segments.select("user_id", F.floor(since / F.lit(7)).cast("int").alias("week")).distinct()
    )
    first_week = F.min("week").over(Window.partitionBy("user_id"))
    seen = as_view(weeks.select("user_id", "week", first_week.alias("cohort")))
    active = as_view(
        seen.select(F.col("cohort").alias("active_cohort"), F.col("week").alias("active_week"))
        .groupBy("active_cohort", "active_week")
        .agg(count(F).alias("counted"))
    )
    cohorts = as_view(
        active.where(F.col("active_week") == F.col("active_cohort")).select(
            F.col("active_cohort").alias("cohort"), F.col("counted").alias("users")
        )
    )
    every_week = as_view(weeks.select("week").distinct())
    grid = as_view(cohorts.join(every_week, on=F.col("week") >= F.col("cohort"), how="inner"))
    same = (F.col("cohort") == F.col("active_cohort")) & (F.col("week") == F.col("active_week"))
    counts = as_view(
        grid.join(active, on=same, how="left").select(
            "cohort",
            "week",
            "users",
            F.coalesce(F.col("counted"), F.lit(0)).cast("long").alias("active_users"),
        )
    )
    computed = {
        "cohort_week": F.date_add(F.lit(_A_MONDAY), F.col("cohort") * F.lit(7)),
        "weeks_since": (F.col("week") - F.col("cohort")).cast("long"),
        "retention_rate": percent(F, F.col("active_users"), F.col("users")),
    }
    return rows_of(COHORT_RETENTION, counts, computed)
