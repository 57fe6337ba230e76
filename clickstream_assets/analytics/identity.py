"""Persons of events, by the ties between anonymous ids and users.

An event with both ids ties the anonymous id to the user from its time on. The person of an event is

- its user;
- without one, the user of its anonymous id's latest tie at or before it; or else of the id's first tie, where that
  is at most a lookback later: who logs in has been the same person before;
- the visitor itself, where the id is tied to nobody by then; or to more users than one person has, as a till's id is;
- without any id but a session's, the session.

Of several ties at one moment the one with the greatest event id is the latest. A user id and an anonymous id of the
same text are two persons: `catalogue/who.py` says how persons' ids are written.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any, Self

from clickstream_assets.catalogue import IDENTITIES, IDENTITY_CHANGES, IDENTITY_TIES
from clickstream_assets.catalogue.who import NAMED, SESSION_ONLY, VISITOR
from clickstream_assets.engine import DataFrame, as_view, functions_of
from clickstream_assets.settings import Settings

WITHOUT_END = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class IdentityRules:
    """Time before its first tie that an anonymous id is its user's, and number of users that a person's can have."""

    lookback: timedelta
    max_users: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Take the rules from the settings."""
        return cls(timedelta(days=settings.identity_lookback_days), settings.identity_max_users)


def ties(events: DataFrame) -> DataFrame:
    """Return the ties of days: per anonymous id the first, and each of another user than the one before.

    What is left out says nothing new: the user of the latest tie and all users of an id stay the same. So ties that
    come late, in another order or twice end in the same rows.

    Args:
        events: EVENTS rows of whole days.

    Returns:
        IDENTITY_TIES rows.
    """
    F, Window = functions_of(events)
    in_order = Window.partitionBy("event_date", "anonymous_id").orderBy("event_time", "event_id")
    both = events.where(F.col("anonymous_id").isNotNull() & F.col("user_id").isNotNull())
    marked = as_view(
        both.select(
            F.col("event_date").alias("tie_date"),
            "anonymous_id",
            "user_id",
            F.col("event_time").alias("tied_at"),
            "event_id",
            F.lag("user_id").over(in_order).alias("user_before"),
        )
    )
    return marked.where(_is_another(F)).select(*IDENTITY_TIES.column_names)


def _is_another(F: ModuleType) -> Any:
    before = F.col("user_before")
    return before.isNull() | (before != F.col("user_id"))


def intervals(ties: DataFrame, rules: IdentityRules) -> DataFrame:
    """Return whose an anonymous id is: `anonymous_id`, `since`, `until` (not included) and `user_id`.

    Args:
        ties: IDENTITY_TIES rows; of an anonymous id all or none.
        rules: say how far before the first tie it begins, and which ids are nobody's.
    """
    F, Window = functions_of(ties)
    in_order = Window.partitionBy("anonymous_id").orderBy("tied_at", "event_id")
    few = (
        ties.groupBy("anonymous_id")
        .agg(F.countDistinct("user_id").alias("users"))
        .where(F.col("users") <= rules.max_users)
    )
    of_few = as_view(ties.join(few.select("anonymous_id"), on="anonymous_id", how="left_semi"))
    columns = ("anonymous_id", "user_id", "tied_at", "event_id")
    marked = as_view(of_few.select(*columns, F.lag("user_id").over(in_order).alias("user_before")))
    # In hours: a day of the engine's own time zone can have 23 or 25.
    earlier = F.expr(f"tied_at - INTERVAL {rules.lookback // timedelta(hours=1)} HOURS")
    is_first = F.col("user_before").isNull()
    begun = as_view(
        marked.where(_is_another(F)).select(
            *columns, F.when(is_first, earlier).otherwise(F.col("tied_at")).alias("since")
        )
    )
    until = F.coalesce(F.lead("since").over(in_order), F.lit(WITHOUT_END))
    bounded = as_view(begun.select("anonymous_id", "since", until.alias("until"), "user_id"))
    return as_view(bounded.where(F.col("since") < F.col("until")))


def owners(events: DataFrame, ties: DataFrame, rules: IdentityRules) -> DataFrame:
    """Return the `intervals` of the anonymous ids that events have without a user.

    Of all ids that were ever tied, those of some days' visitors are few.

    Args:
        events: rows with at least `user_id` and `anonymous_id`.
        ties: IDENTITY_TIES rows of all days.
        rules: say how ties are read.
    """
    F, _ = functions_of(events)
    asked = events.where(F.col("user_id").isNull()).select("anonymous_id").distinct()
    return intervals(as_view(ties.join(as_view(asked), on="anonymous_id", how="left_semi")), rules)


def with_persons(events: DataFrame, owners: DataFrame | None) -> DataFrame:
    """Return events with the person in place of `user_id`.

    Args:
        events: rows with at least `event_time`, `user_id`, `anonymous_id` and `session_id`.
        owners: rows of `owners`, at least of these events; None where no id is tied.
    """
    F, _ = functions_of(events)
    user = F.col("user_id")
    joined = events
    if owners is not None:
        whose = owners.select(
            F.col("anonymous_id").alias("tied_id"), "since", "until", F.col("user_id").alias("tied_user")
        )
        at = F.col("event_time")
        # Comparisons alone, so that DuckDB hashes the ids.
        asked = F.when(user.isNull(), F.col("anonymous_id"))
        is_tied = (asked == F.col("tied_id")) & (at >= F.col("since")) & (at < F.col("until"))
        joined = events.join(whose, on=is_tied, how="left")
        user = F.coalesce(user, F.col("tied_user"))
    columns = (_whoever(F, user).alias(name) if name == "user_id" else F.col(name) for name in events.columns)
    return as_view(joined.select(*columns))


def events_by_ids(events: DataFrame, persons: DataFrame, ties: DataFrame) -> DataFrame:
    """Return the events that can be some persons': by ids that are theirs, or were tied to them at any time.

    These are few, and found without asking whose each event is.

    Args:
        events: EVENTS rows.
        persons: `user_id` of each person.
        ties: IDENTITY_TIES rows of all days.
    """
    F, _ = functions_of(events)
    visitor = F.concat(F.lit(VISITOR), F.col("anonymous_id"))
    tied = as_view(ties.select(_person_of_user(F, F.col("user_id")).alias("person"), visitor.alias("own_id")))
    theirs = tied.join(
        as_view(persons.select(F.col("user_id").alias("person"))), on="person", how="left_semi"
    )
    ids = as_view(persons.select(F.col("user_id").alias("own_id")).union(as_view(theirs.select("own_id"))))
    of_each = as_view(events.select(*events.columns, _whoever(F, F.col("user_id")).alias("own_id")))
    return as_view(of_each.join(ids, on="own_id", how="left_semi").select(*events.columns))


def _whoever(F: ModuleType, user: Any) -> Any:
    """Column: the person of an event, by the user whose it is; without one by its own other ids."""
    return F.coalesce(person(F, user), F.concat(F.lit(SESSION_ONLY), F.col("session_id")))


def person(F: ModuleType, user: Any) -> Any:
    """Column: the person of a sender's user id, or without one of `anonymous_id`; null without either."""
    return F.coalesce(_person_of_user(F, user), F.concat(F.lit(VISITOR), F.col("anonymous_id")))


def _person_of_user(F: ModuleType, user: Any) -> Any:
    """Column: what `person_of_user` returns of each user."""
    looks_like_another = F.lit(False)
    for beginning in (VISITOR, SESSION_ONLY, NAMED):
        looks_like_another = looks_like_another | (F.substring(user, 1, len(beginning)) == beginning)
    return F.when(looks_like_another, F.concat(F.lit(NAMED), user)).otherwise(user)


def differing_ids(before: DataFrame, after: DataFrame) -> DataFrame:
    """Return the anonymous ids (`anonymous_id`) of which two versions of IDENTITY_TIES rows have different rows."""
    F, _ = functions_of(before)
    columns = IDENTITY_TIES.column_names
    both = as_view(before.select(*columns).unionByName(after.select(*columns)))
    counted = as_view(both.groupBy(*columns).agg(F.count(F.lit(1)).alias("times")))
    return counted.where(F.col("times") == 1).select("anonymous_id").distinct()


def changes(before: DataFrame, after: DataFrame, rules: IdentityRules) -> DataFrame:
    """Return the times in which events of an anonymous id have another person after than before.

    An id that is tied once more to the same user has none.

    Args:
        before: IDENTITY_TIES rows; of an anonymous id all or none.
        after: those of the same ids from then on.
        rules: say how ties are read.

    Returns:
        IDENTITY_CHANGES rows, without `batch`.
    """
    F, Window = functions_of(before)
    nobody = F.lit(None).cast("string")
    steps = as_view(
        intervals(before, rules)
        .select("anonymous_id", "since", F.col("user_id").alias("old"), nobody.alias("new"))
        .unionByName(
            intervals(after, rules).select(
                "anonymous_id", "since", nobody.alias("old"), F.col("user_id").alias("new")
            )
        )
    )
    together = as_view(
        steps.groupBy("anonymous_id", "since").agg(F.max("old").alias("old"), F.max("new").alias("new"))
    )
    of_id = Window.partitionBy("anonymous_id").orderBy("since")
    so_far = of_id.rowsBetween(Window.unboundedPreceding, Window.currentRow)

    def latest(column: str) -> Any:
        # The greatest of what was seen is the last: neither engine's `last` leaves nulls out on both.
        return F.max(F.when(F.col(column).isNotNull(), F.struct("since", column))).over(so_far)

    filled = as_view(
        together.select(
            "anonymous_id",
            "since",
            F.lead("since").over(of_id).alias("until"),
            latest("old").alias("old"),
            latest("new").alias("new"),
        )
    )
    named = as_view(
        filled.select(
            "anonymous_id",
            "since",
            "until",
            F.col("old").getField("old").alias("user_before"),
            F.col("new").getField("new").alias("user_after"),
        )
    )
    # No id is empty.
    old, new = (F.coalesce(F.col(name), F.lit("")) for name in ("user_before", "user_after"))
    return named.where(old != new).select(*IDENTITY_CHANGES.column_names[1:])


def identities(ties: DataFrame, rules: IdentityRules) -> DataFrame:
    """Return which users each anonymous id was tied to, and whose it is now.

    Args:
        ties: IDENTITY_TIES rows of all days.
        rules: say which ids are nobody's.

    Returns:
        IDENTITIES rows.
    """
    F, _ = functions_of(ties)
    latest = F.max(F.struct("tied_at", "event_id", "user_id"))
    of_id = as_view(
        ties.groupBy("anonymous_id")
        .agg(F.countDistinct("user_id").alias("users"), latest.alias("latest"))
        .where(F.col("users") <= rules.max_users)
        .select(
            F.col("anonymous_id").alias("tied_id"), F.col("latest").getField("user_id").alias("latest_user")
        )
    )
    pairs = as_view(ties.groupBy("anonymous_id", "user_id").agg(F.min("tied_at").alias("first_tied_at")))
    joined = pairs.join(of_id, on=F.col("anonymous_id") == F.col("tied_id"), how="inner")
    computed = {
        "user_id": _person_of_user(F, F.col("user_id")),
        "is_latest": F.col("user_id") == F.col("latest_user"),
    }
    return joined.select(
        *(computed[name].alias(name) if name in computed else name for name in IDENTITIES.column_names)
    )
