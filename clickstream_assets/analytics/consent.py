"""Consent to being profiled: who agrees, who does not, and when."""

from __future__ import annotations

from clickstream_assets.engine import DataFrame, as_view, functions_of


def consent_days(events: DataFrame) -> DataFrame:
    """Keep when each shopper last said yes, and last no, to being profiled, by day.

    Args:
        events: SHOPPER_EVENTS rows of whole days, of all types.

    Returns:
        CONSENT_DAYS, one row per day and shopper who stated a consent.
    """
    functions, _ = functions_of(events)
    column = functions.col
    stated = events.where(column("consent").isNotNull()).groupBy("event_date", "user_id")
    return stated.agg(
        functions.max(functions.when(column("consent"), column("event_time"))).alias("agreed"),
        functions.max(functions.when(~column("consent"), column("event_time"))).alias("refused"),
    )


def profiled(rows: DataFrame, consents: DataFrame) -> DataFrame:
    """Leave out the rows of shoppers who do not agree to being profiled; see `refusals`.

    Args:
        rows: rows with `user_id`.
        consents: CONSENT_DAYS rows of all days.
    """
    refused = refusals(consents)
    functions, _ = functions_of(refused)
    refusers = refused.where(functions.col("agreed_on").isNull()).select("user_id")
    return rows.join(refusers, "user_id", "left_anti").select(*rows.columns)


def refusals(consents: DataFrame) -> DataFrame:
    """Return the shoppers who have ever refused to be profiled, and since when they agree to it again.

    The latest event of a shopper that states a consent, whatever its type, decides for all of theirs; of a yes and a
    no of the same moment the no counts. Who never stated a no is not among them.

    Args:
        consents: CONSENT_DAYS rows of all days.

    Returns:
        PROFILING_REFUSALS rows.
    """
    functions, _ = functions_of(consents)
    column = functions.col
    refused = as_view(
        consents.where(column("refused").isNotNull())
        .groupBy("user_id")
        .agg(functions.max("refused").alias("refused"))
    )
    agreed = as_view(
        consents.where(column("agreed").isNotNull()).select(
            "user_id", "agreed", column("event_date").alias("agreed_on")
        )
    )
    after = as_view(refused.join(agreed, "user_id", "left"))
    is_after = column("agreed") > column("refused")
    return after.groupBy("user_id", "refused").agg(
        functions.min(functions.when(is_after, column("agreed_on"))).alias("agreed_on")
    )


def refusal_spans(consents: DataFrame) -> DataFrame:
    """Return the days on which shoppers did not agree to being profiled, as was known at the end of each.

    Args:
        consents: CONSENT_DAYS rows of all days.

    Returns:
        refuser, and from which of the shop's days (`since`) to before which (`until`; null for no end). Of a refusal
        that is stated on several days there are several, one after the other.
    """
    functions, Window = functions_of(consents)
    column = functions.col
    refuses = column("refused").isNotNull() & (
        column("agreed").isNull() | (column("refused") >= column("agreed"))
    )
    following = Window.partitionBy("user_id").orderBy("event_date")
    stated = as_view(
        consents.select(
            column("user_id").alias("refuser"),
            column("event_date").alias("since"),
            functions.lead("event_date").over(following).alias("until"),
            refuses.alias("refuses"),
        )
    )
    return stated.where(column("refuses")).select("refuser", "since", "until")
