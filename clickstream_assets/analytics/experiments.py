"""Outcomes of an experiment: each person once, by what they did after they were first exposed, added up by arm.

Persons are counted and not exposures: who is shown twenty lists is no more evidence than who is shown one. What a
person does counts in a window that begins with the first exposure; once it is over, what they did is settled, and the
person is *judged*. So a judged person is the same at each later look, which the decision rests on.
"""

from __future__ import annotations

from datetime import datetime
from types import ModuleType
from typing import Any

from clickstream_assets.analytics.identity import IdentityRules, owners, with_persons
from clickstream_assets.analytics.measures import amount, count, flag, total
from clickstream_assets.catalogue.units import DAY
from clickstream_assets.catalogue.who import NAMED, VISITOR
from clickstream_assets.engine import DataFrame, as_view, functions_of

CLICKS = ("view", "click")
"""Event types of somebody who turns to a product."""


def exposures_of_persons(exposures: DataFrame, ties: DataFrame | None, rules: IdentityRules) -> DataFrame:
    """Return exposures with `person`: who their unit is by now, as the person of an event at that time is known.

    Args:
        exposures: EXPERIMENT_EXPOSURES rows.
        ties: IDENTITY_TIES rows of all days; None for none.
        rules: say how ties are read.
    """
    F, _ = functions_of(exposures)
    unit = F.col("unit")
    is_visitor = F.substring(unit, 1, len(VISITOR)) == VISITOR
    is_named = F.substring(unit, 1, len(NAMED)) == NAMED
    # As the sender wrote it, which is what a tie has.
    user = F.when(is_named, _after(F, NAMED)).otherwise(unit)
    no_text = F.lit(None).cast("string")
    asked = as_view(
        exposures.select(
            *exposures.columns,
            F.when(is_visitor, no_text).otherwise(user).alias("user_id"),
            F.when(is_visitor, _after(F, VISITOR)).otherwise(no_text).alias("anonymous_id"),
            no_text.alias("session_id"),
            F.col("exposed_at").alias("event_time"),
        )
    )
    whose = None if ties is None else owners(asked, ties, rules)
    of_persons = with_persons(asked, whose)
    return as_view(of_persons.select(*exposures.columns, F.col("user_id").alias("person")))


def _after(F: ModuleType, beginning: str) -> Any:
    """Column: the unit without its beginning."""
    return F.expr(f"substring(unit, {len(beginning) + 1})")


def units(exposures: DataFrame, window_hours: int) -> DataFrame:
    """Return each person of an experiment: `person`, `arm`, `since`, `until` and `arms`, how many they were in.

    The arm is that of the first exposure. A person whose ids are tied after that can have been shown another one's.

    Args:
        exposures: rows of `exposures_of_persons` of one experiment.
        window_hours: hours from the first exposure to `until`.
    """
    F, Window = functions_of(exposures)
    in_order = Window.partitionBy("person").orderBy("exposed_at", "exposure_id")
    placed = as_view(
        exposures.select("person", "arm", "exposed_at", F.row_number().over(in_order).alias("place"))
    )
    first = as_view(
        placed.where(F.col("place") == 1).select(
            "person",
            "arm",
            F.col("exposed_at").alias("since"),
            F.expr(f"exposed_at + INTERVAL {window_hours} HOURS").alias("until"),
        )
    )
    arms = as_view(placed.groupBy("person").agg(F.countDistinct("arm").cast("long").alias("arms")))
    return as_view(first.join(arms, on="person", how="inner"))


def sizes(units: DataFrame) -> DataFrame:
    """Count by `arm` the rows of `units`: `units`, and those who were in several arms, `units_of_several_arms`."""
    F, _ = functions_of(units)
    several = F.sum(flag(F, F.col("arms") > 1)).cast("long")
    return units.groupBy("arm").agg(count(F).alias("units"), several.alias("units_of_several_arms"))


def outcomes(units: DataFrame, exposures: DataFrame, events: DataFrame, as_of: datetime) -> DataFrame:
    """Add up what judged persons did, by `arm` and by the `day` on which their windows ended.

    A person clicked if they viewed or clicked a product after it was shown to them, and converted if they bought any,
    both within the window. Revenue is what they paid in it in the shop's currency; refunds are no part of it.

    Args:
        units: rows of `units`.
        exposures: rows of `exposures_of_persons` of the same experiment.
        events: SHOPPER_EVENTS rows of at least the days of all windows.
        as_of: time up to which there are events; windows that end later are not judged.

    Returns:
        Rows of `arm`, `day` (days since 1970 in UTC), `judged_units`, `clicked_units`, `converted_units`, `revenue`
        and `revenue_squares`, the sum of each person's revenue squared.
    """
    F, _ = functions_of(units)
    judged = as_view(
        units.where(F.col("until") <= F.lit(as_of)).select(
            "person",
            "arm",
            "since",
            "until",
            F.floor(F.unix_micros("until") / F.lit(DAY)).cast("long").alias("day"),
        )
    )
    theirs = as_view(events.withColumnRenamed("user_id", "person"))
    during = as_view(
        theirs.join(judged, on="person", how="inner").where(
            (F.col("event_time") > F.col("since")) & (F.col("event_time") <= F.col("until"))
        )
    )
    shown = as_view(
        exposures.select("person", "arm", "exposed_at", F.explode("products").alias("product_id"))
        .groupBy("person", "arm", "product_id")
        .agg(F.min("exposed_at").alias("shown_at"))
    )
    turned = as_view(during.where(F.col("event_type").isin(*CLICKS)))
    clicked = as_view(
        turned.join(shown, on=["person", "arm", "product_id"], how="inner")
        .where(F.col("event_time") > F.col("shown_at"))
        .select("person", F.lit(1).alias("clicked"))
        .distinct()
    )
    bought = as_view(
        during.where(F.col("event_type") == "purchase")
        .groupBy("person")
        .agg(total(F, amount(F)).alias("paid"))
        .withColumn("converted", F.lit(1))
    )
    each = as_view(
        judged.join(clicked, on="person", how="left")
        .join(bought, on="person", how="left")
        .select("arm", "day", "clicked", "converted", F.coalesce(F.col("paid"), F.lit(0)).alias("paid"))
    )
    paid = F.col("paid").cast("double")
    return each.groupBy("arm", "day").agg(
        count(F).alias("judged_units"),
        F.count("clicked").cast("long").alias("clicked_units"),
        F.count("converted").cast("long").alias("converted_units"),
        F.sum("paid").cast("decimal(28,4)").alias("revenue"),
        F.sum(paid * paid).alias("revenue_squares"),
    )
