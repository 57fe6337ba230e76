"""Keeps `identity_ties` equal to the ties of the events, and says which events have another person since.

A repeated order line is no event, and ties its ids all the same: whose page it is may be known by it first.

Ties are computed anew for the days and anonymous ids of new events that have both ids, from all of these days' records:
a function of these alone, in whatever order these came. What changes is appended to `identity_changes` first, and
the ties are replaced with the batch's number after it, so a killed run is simply run again.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from datetime import date

from clickstream_assets.analytics import identity
from clickstream_assets.analytics.identity import IdentityRules
from clickstream_assets.catalogue import DUPLICATE_EVENTS, EVENTS, IDENTITY_CHANGES, IDENTITY_TIES
from clickstream_assets.engine import DataFrame, as_view, functions_of
from clickstream_assets.stores.lake import Lake, LakeConflictError, Snapshot

_OF_TIES = ("event_id", "event_date", "event_time", "user_id", "anonymous_id")


def update_ties(lake: Lake, rules: IdentityRules) -> list[date]:
    """Bring `identity_ties` up to the batch that `events` has.

    Returns:
        The days whose ties were replaced, in order.
    """
    engine = lake.engine
    newest, known = lake.snapshot(EVENTS), lake.snapshot(IDENTITY_TIES)
    if known.batch >= newest.batch:
        return []
    added = _tying(lake, newest, known.batch + 1)
    concerned = engine.persist(added.select("event_date", "anonymous_id").distinct())
    days = sorted(set(engine.to_arrow(concerned)["event_date"].to_pylist()))
    is_replaced = bool(days) and _replace(lake, newest, concerned, days, rules)
    engine.release(concerned)
    if not is_replaced:
        # Another run that notes the same at once is as good.
        with suppress(LakeConflictError):
            lake.mark(IDENTITY_TIES, {IDENTITY_TIES.name: newest.batch})
        return []
    return days


def _replace(
    lake: Lake, newest: Snapshot, concerned: DataFrame, days: list[date], rules: IdentityRules
) -> bool:
    """Replace the ties of days, if any of the concerned ids have others now; return whether they have."""
    engine = lake.engine
    key = ["event_date", "anonymous_id"]
    before = lake.read(IDENTITY_TIES)
    F, _ = functions_of(before)
    of_days = F.col("tie_date").isin(days)
    events = _tying(lake, newest, days=days)
    computed = identity.ties(as_view(events.join(concerned, on=key, how="left_semi")))
    others = before.where(of_days).withColumn("event_date", F.col("tie_date"))
    kept = others.join(concerned, on=key, how="left_anti").select(*IDENTITY_TIES.column_names)
    anew = engine.persist(as_view(kept).unionByName(computed))
    ids = engine.persist(identity.differing_ids(before.where(of_days), anew))
    differs = engine.to_arrow(ids.limit(1)).num_rows > 0
    if differs:
        its_before = as_view(before.join(ids, on="anonymous_id", how="left_semi"))
        its_anew = anew.join(ids, on="anonymous_id", how="left_semi")
        its_after = as_view(its_before.where(~of_days).unionByName(its_anew))
        changed = identity.changes(its_before, its_after, rules)
        lake.append_batch(
            IDENTITY_CHANGES, changed.withColumn("batch", F.lit(newest.batch).cast("long")), newest.batch
        )
        lake.replace_days(IDENTITY_TIES, anew, days, newest.batch)
    for df in (ids, anew):
        engine.release(df)
    return differs


def persons_of(lake: Lake, events: DataFrame, rules: IdentityRules, version: int | None = None) -> DataFrame:
    """Return EVENTS rows with the person in place of `user_id`; `version` pins the ties (default: the newest)."""
    owners = None
    if lake.snapshot(IDENTITY_TIES).rows:
        owners = identity.owners(events, lake.read(IDENTITY_TIES, version), rules)
    return identity.with_persons(events, owners)


def _tying(
    lake: Lake, newest: Snapshot, first_batch: int = 0, days: Collection[date] | None = None
) -> DataFrame:
    """Return what says who is who: events with both ids, and repeated order lines with both, which are no events.

    Args:
        lake: has them.
        newest: of `events`.
        first_batch: the first ingest batch whose records are wanted.
        days: the days that are wanted; None for all.
    """
    columns = (*_OF_TIES, "batch")
    batches = (first_batch, newest.batch)
    events = lake.read(EVENTS, newest.version, columns, batches, days)
    repeated = lake.read(DUPLICATE_EVENTS, None, (*columns, "reason"), batches, days)
    F, _ = functions_of(events)
    lines = repeated.where(F.col("reason") == "same_order_line").select(*columns)
    both = events.select(*columns).unionByName(lines)
    return as_view(both.where(F.col("user_id").isNotNull() & F.col("anonymous_id").isNotNull()))
