"""Cohorts: the users who were first seen in the same week, and the share of them that comes back."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta

from clickstream_assets.analytics.measures import count, percent, rows_of
from clickstream_assets.catalogue import COHORT_RETENTION, USER_WEEKS
from clickstream_assets.engine import DataFrame, as_view, functions_of

WEEK = timedelta(days=7)
# Weeks are counted from a Monday, as ISO 8601 has them.
_A_MONDAY = date(1970, 1, 5)


def week_of(day: date) -> date:
    """Return the Monday of a day's week."""
    return day - timedelta(days=day.weekday())


def days_of_weeks(weeks: Iterable[date]) -> list[date]:
    """Return the seven days of each week, which is given by its Monday."""
    return [week + timedelta(days=number) for week in weeks for number in range(WEEK.days)]


def weeks_seen(user_segments: DataFrame) -> DataFrame:
    """Return the weeks in which users were there: `week` (its Monday) and `user_id`, each once.

    Args:
        user_segments: USER_SEGMENTS rows of whole weeks.
    """
    F, _ = functions_of(user_segments)
    since = F.floor(F.datediff("report_date", F.lit(_A_MONDAY)) / F.lit(7)).cast("int")
    monday = F.date_add(F.lit(_A_MONDAY), since * F.lit(7))
    return as_view(user_segments.select(monday.alias("week"), "user_id").distinct())


def with_cohorts(weeks: DataFrame) -> DataFrame:
    """Add the first week of each user.

    Args:
        weeks: rows of `weeks_seen`, of each user all.

    Returns:
        USER_WEEKS rows.
    """
    F, Window = functions_of(weeks)
    first_week = F.min("week").over(Window.partitionBy("user_id"))
    return as_view(
        weeks.select("week", "user_id", first_week.alias("cohort_week")).select(*USER_WEEKS.column_names)
    )


def cohort_retention(user_weeks: DataFrame) -> DataFrame:
    """Count, per week of first appearance, the users who were there again so many weeks later.

    Every week in which anybody was there counts, also where none of the cohort was.

    Args:
        user_weeks: USER_WEEKS rows of all weeks.

    Returns:
        COHORT_RETENTION rows.
    """
    F, _ = functions_of(user_weeks)
    # Few rows, for all that follows.
    active = as_view(
        user_weeks.select(F.col("cohort_week").alias("active_cohort"), F.col("week").alias("active_week"))
        .groupBy("active_cohort", "active_week")
        .agg(count(F).alias("counted"))
    )
    cohorts = as_view(
        active.where(F.col("active_week") == F.col("active_cohort")).select(
            F.col("active_cohort").alias("cohort_week"), F.col("counted").alias("users")
        )
    )
    every_week = as_view(active.select(F.col("active_week").alias("week")).distinct())
    grid = as_view(cohorts.join(every_week, on=F.col("week") >= F.col("cohort_week"), how="inner"))
    same = (F.col("cohort_week") == F.col("active_cohort")) & (F.col("week") == F.col("active_week"))
    counts = as_view(
        grid.join(active, on=same, how="left").select(
            "cohort_week",
            "week",
            "users",
            F.coalesce(F.col("counted"), F.lit(0)).cast("long").alias("active_users"),
        )
    )
    computed = {
        "weeks_since": F.floor(F.datediff("week", "cohort_week") / F.lit(7)).cast("long"),
        "retention_rate": percent(F, F.col("active_users"), F.col("users")),
    }
    return rows_of(COHORT_RETENTION, counts, computed)
