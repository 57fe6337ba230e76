"""The data of a training: TRAINING_DAYS up to the newest day with interactions, of one version of each table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Self

import dagster as dg

from clickstream_assets.analytics.consent import profiled
from clickstream_assets.analytics.persons import within
from clickstream_assets.catalogue import (
    CONSENT_DAYS,
    INTERACTION_DAYS,
    INTERACTIONS,
    MODEL_PARAMETERS,
    PRODUCT_PERFORMANCE,
    SHOPPER_EVENTS,
    Table,
)
from clickstream_assets.defs.partitions import Days
from clickstream_assets.defs.runs import metadata_value
from clickstream_assets.defs.scope import reported_by_run
from clickstream_assets.engine import DataFrame
from clickstream_assets.recommender.parameters import Parameters
from clickstream_assets.recommender.search import remembered
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake

EVENTS_BATCH = "events_batch"
"""Metadata of `interaction_days`, and of what is trained on it: the last batch of the events that it is made from."""
TRAINED_ON = "trained_on"
"""Metadata of `interactions` and of `product_recommendations`: the data that they come from, as
`TrainingData.metadata`.
"""
TRAINED_AT = "trained_at"
"""Metadata of `product_recommendations`: when the data of their training were read; seconds since 1970."""
_TABLES = (INTERACTION_DAYS, CONSENT_DAYS, PRODUCT_PERFORMANCE, SHOPPER_EVENTS)


@dataclass(frozen=True)
class TrainingData:
    """The tables of days that a training reads, each in one version, while refreshes replace days of them."""

    versions: Mapping[str, int]
    """By the tables' names."""
    first_day: date | None
    """The first of the days; None where nobody has met any product."""
    last_day: date | None
    rows: int
    """Rows of `interaction_days` within these days."""
    rows_of_all_days: int

    @classmethod
    def newest(cls, lake: Lake, training_days: int) -> Self:
        """Take the newest versions."""
        snapshots = {table.name: lake.snapshot(table) for table in _TABLES}
        by_day = snapshots[INTERACTION_DAYS.name].rows_by("event_date")
        there = [day for day, rows in by_day.items() if rows]
        last = max(there, default=None)
        first = max(min(there), last - timedelta(days=training_days - 1)) if last else None
        return cls(
            versions={name: snapshot.version for name, snapshot in snapshots.items()},
            first_day=first,
            last_day=last,
            rows=sum(rows for day, rows in by_day.items() if first and day >= first),
            rows_of_all_days=sum(by_day.values()),
        )

    @classmethod
    def of_run(cls, context: dg.AssetExecutionContext, lake: Lake, settings: Settings) -> Self:
        """Take those that the run's `interactions` were made from, or the newest, where it makes none."""
        return cls.of(reported_by_run(context, INTERACTIONS.name, TRAINED_ON), lake, settings)

    @classmethod
    def of(cls, metadata: Mapping[str, Any] | None, lake: Lake, settings: Settings) -> Self:
        """Take them from what `metadata` returned, or the newest, where nothing was reported."""
        if not metadata:
            return cls.newest(lake, settings.training_days)
        days = {
            name: metadata[name] and date.fromisoformat(metadata[name]) for name in ("first_day", "last_day")
        }
        return cls(**{**metadata, **days})

    @property
    def days(self) -> dict[str, str | None]:
        """The first and the last day, as text."""
        days = {"first_day": self.first_day, "last_day": self.last_day}
        return {name: day.isoformat() if day else None for name, day in days.items()}

    @property
    def metadata(self) -> dict[str, Any]:
        """All of it, as Dagster keeps it."""
        return {
            "versions": dict(self.versions),
            **self.days,
            "rows": self.rows,
            "rows_of_all_days": self.rows_of_all_days,
        }

    def interaction_days(self, lake: Lake) -> DataFrame:
        """Return the INTERACTION_DAYS rows of shoppers who may be profiled."""
        return self._profiled(lake, INTERACTION_DAYS)

    def shopper_events(self, lake: Lake) -> DataFrame:
        """Return the SHOPPER_EVENTS rows of shoppers who may be profiled."""
        return self._profiled(lake, SHOPPER_EVENTS)

    def product_days(self, lake: Lake) -> DataFrame:
        """Return the PRODUCT_PERFORMANCE rows."""
        return self._rows(lake, PRODUCT_PERFORMANCE)

    def _profiled(self, lake: Lake, table: Table) -> DataFrame:
        # Of all days: a consent counts until another is stated.
        consents = lake.read(CONSENT_DAYS, self.versions[CONSENT_DAYS.name])
        return profiled(self._rows(lake, table), consents)

    def _rows(self, lake: Lake, table: Table) -> DataFrame:
        days = Days(((self.first_day, self.last_day),) if self.first_day and self.last_day else ())
        return within(lake.read(table, self.versions[table.name]), str(table.day), days.ranges)


def events_batch(instance: dg.DagsterInstance) -> int:
    """Return the last batch of the events that `interaction_days` is made from; 0 before the first."""
    made = instance.get_latest_materialization_event(dg.AssetKey(INTERACTION_DAYS.name))
    return metadata_value(made, EVENTS_BATCH) or 0


def newest_parameters(lake: Lake, settings: Settings, data: TrainingData) -> tuple[Parameters, float]:
    """Return the parameters to train with, and the trend's exponent in what unknown shoppers are shown.

    Those of the last search, while they hold; else the settings'.
    """
    start = Parameters.of(settings)
    searches = lake.engine.to_arrow(lake.read(MODEL_PARAMETERS)).to_pylist()
    row = remembered(searches, start, data.last_day, data.rows, settings.search_days)
    return (start.read(row["parameters"]), row["fallback_exponent"]) if row else (start, 0.0)
