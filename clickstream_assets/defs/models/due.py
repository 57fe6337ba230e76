"""The decision that a training is due, by what is trained and what there is to train on."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import NamedTuple, Self

import dagster as dg

from clickstream_assets.catalogue import ERASED_RECORDS, EVENTS, INTERACTION_DAYS, PRODUCT_RECOMMENDATIONS
from clickstream_assets.defs.assets import LAKE_VERSION
from clickstream_assets.defs.jobs import PUBLISHED_BESIDE
from clickstream_assets.defs.models.training import TRAINED_AT, TRAINED_ON
from clickstream_assets.defs.runs import metadata_value
from clickstream_assets.defs.scope import PUT_BACK_AT
from clickstream_assets.settings import Settings


class Interactions(NamedTuple):
    """The table `interaction_days`, as it was reported."""

    version: int
    rows: int
    """Rows of all days."""

    @classmethod
    def of(cls, event: dg.EventLogEntry) -> Self:
        """Read them from a materialization."""
        return cls(metadata_value(event, LAKE_VERSION), metadata_value(event, "dagster/row_count"))


class Training(NamedTuple):
    """The training that what is served comes from."""

    version: int
    """Version of `interaction_days`."""
    rows: int
    """Rows of that within TRAINING_DAYS."""
    rows_of_all_days: int
    at: float
    """When its data were read, seconds since 1970."""
    is_whole: bool
    """True if it has published the other models too; not where it was killed before that."""

    @classmethod
    def newest(cls, instance: dg.DagsterInstance) -> Self | None:
        """Read it from the last publication; None before the first."""
        published = instance.get_latest_materialization_event(dg.AssetKey(PRODUCT_RECOMMENDATIONS.name))
        data = metadata_value(published, TRAINED_ON)
        if not data:
            return None
        version, at = data["versions"][INTERACTION_DAYS.name], metadata_value(published, TRAINED_AT)
        others = [instance.get_latest_materialization_event(dg.AssetKey(name)) for name in PUBLISHED_BESIDE]
        is_whole = all(other is not None and other.timestamp >= at for other in others)
        return cls(version, data["rows"], data["rows_of_all_days"], at, is_whole)


class Rhythm(NamedTuple):
    """The settings that say how often models are trained."""

    after_share: float
    max_age: timedelta

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Take them from the settings."""
        return cls(settings.train_after_share, timedelta(hours=settings.train_max_age_hours))


class Verdict(NamedTuple):
    """The decision to train or not, and its reason."""

    is_due: bool
    reason: str


def due(
    there: Interactions,
    trained: Training | None,
    put_back_at: float,
    now: float,
    rhythm: Rhythm,
    erased_at: float = 0,
) -> Verdict:
    """Say whether a training is due.

    Fewer interactions than before are as new as more: they were erased, or found to be a bot's.

    Args:
        there: what there is to train on.
        trained: the training that is served.
        put_back_at: when the lake was last found to be of an earlier time, seconds since 1970; 0 for never.
        now: the current time, seconds since 1970.
        rhythm: how often to train.
        erased_at: when persons were last erased, seconds since 1970; 0 for never.
    """
    if trained is None:
        return Verdict(True, "nothing is trained yet")
    if put_back_at > trained.at:
        return Verdict(True, "the lake is of an earlier time than the last training")
    if not trained.is_whole:
        return Verdict(True, "the last training did not come to its end")
    # What was trained on can be newer than what was reported: the lake's upkeep puts files together, in a new version.
    if there.version <= trained.version:
        return Verdict(False, "nothing is new since the last training")
    if erased_at > trained.at:
        return Verdict(True, "persons were erased since the last training")
    changed = abs(there.rows - trained.rows_of_all_days)
    enough = rhythm.after_share * trained.rows
    new = f"{changed:,} interactions are new since the last training, on {trained.rows:,}"
    if changed > enough or not rhythm.after_share:
        return Verdict(True, new)
    left = rhythm.max_age.total_seconds() - (now - trained.at)
    if left <= 0:
        return Verdict(True, f"{new}, and {(now - trained.at) / 3600:.1f} h have passed")
    return Verdict(
        False, f"{new}; more than {enough:,.0f}, or {left / 3600:.1f} h more, are reason for another"
    )


def verdict_now(instance: dg.DagsterInstance, settings: Settings) -> Verdict:
    """Say whether a training is due now, by what was reported last."""
    made = instance.get_latest_materialization_event(dg.AssetKey(INTERACTION_DAYS.name))
    if made is None:
        return Verdict(False, "there is nothing to train on before the first refresh")
    there, trained = Interactions.of(made), Training.newest(instance)
    erased = instance.get_latest_materialization_event(dg.AssetKey(ERASED_RECORDS.name))
    erased_at = erased.timestamp if erased and metadata_value(erased, "records") else 0
    return due(there, trained, put_back_at(instance), time.time(), Rhythm.of(settings), erased_at)


def put_back_at(instance: dg.DagsterInstance) -> float:
    """Return when the lake was last found to be of an earlier time, seconds since 1970; 0 for never."""
    return (
        metadata_value(instance.get_latest_materialization_event(dg.AssetKey(EVENTS.name)), PUT_BACK_AT) or 0
    )
