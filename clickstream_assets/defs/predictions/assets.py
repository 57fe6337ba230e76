"""The models of purchases, judged on what they have not seen, and each person's probabilities.

All of a bounded number of days: of persons a row for each day on which they were there, of sessions the newest events.
Who refused consent is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, Self

import dagster as dg
import pyarrow as pa

from clickstream_assets.analytics.consent import profiled
from clickstream_assets.analytics.persons import between
from clickstream_assets.catalogue import (
    CONSENT_DAYS,
    PERSON_PREDICTIONS,
    PURCHASE_MODELS,
    SHOPPER_EVENTS,
    USER_SEGMENTS,
    Table,
)
from clickstream_assets.defs.assets import Metadata, table_asset
from clickstream_assets.defs.models.training import EVENTS_BATCH, events_batch
from clickstream_assets.defs.plots import text_table
from clickstream_assets.engine import DataFrame
from clickstream_assets.predictions.additive import AdditiveModel
from clickstream_assets.predictions.judging import Verdict
from clickstream_assets.predictions.persons import (
    CUT_EVERY_DAYS,
    HORIZONS,
    LOOK_BACK_DAYS,
    MOST_CUTS,
    examples,
    predictions,
    train_persons,
)
from clickstream_assets.predictions.session_training import over, sampled_events, sessions_of, train_sessions
from clickstream_assets.recommender.interactions import product_events
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake

# A month, or the newest of it: a sample of persons is taken of them.
SESSION_DAYS_READ = 28
MOST_EVENTS_READ = 5_000_000


@dataclass(frozen=True)
class _Days:
    """A table of days, in one version."""

    lake: Lake
    table: Table
    version: int
    rows_by_day: dict[date, int]

    @classmethod
    def of(cls, lake: Lake, table: Table) -> Self:
        """Take all days that there are."""
        snapshot = lake.snapshot(table)
        by_day = {day: rows for day, rows in snapshot.rows_by(str(table.day)).items() if rows}
        return cls(lake, table, snapshot.version, by_day)

    @property
    def over(self) -> Self:
        """Those without the newest day, which goes on: who has not bought on it may do so yet."""
        before = {day: rows for day, rows in self.rows_by_day.items() if day != self.last}
        return replace(self, rows_by_day=before)

    @property
    def first(self) -> date | None:
        return min(self.rows_by_day, default=None)

    @property
    def last(self) -> date | None:
        return max(self.rows_by_day, default=None)

    def newest(self, days: int, most: int) -> int:
        """Return how many of the last `days` have `most` rows at most, and one at least."""
        if self.last is None:
            return 0
        held = 0
        for back in range(days):
            held += self.rows_by_day.get(self.last - timedelta(days=back), 0)
            if held > most:
                return max(back, 1)
        return days

    def rows(self, days: int, until: date | None = None) -> DataFrame:
        """Return the rows of the last days, of those who may be profiled."""
        last = until or self.last or date.min
        first = last - timedelta(days=min(days, (last - date.min).days))
        rows = between(self.lake.read(self.table, self.version), str(self.table.day), first, last)
        return profiled(rows, self.lake.read(CONSENT_DAYS))


@table_asset(PURCHASE_MODELS, deps=["user_segments", "interaction_days", "shopper_events"])
def purchase_models(context: dg.AssetExecutionContext, settings: Settings, lake: Lake) -> Metadata:
    """One row per thing that is predicted: a person's purchase in 7 and in 28 days, and that of a session.

    Each model is judged on a time after all that it was fitted to, against the base rate and a rule of one feature;
    only one that is better than both is kept, fitted to all. A row says what was found.
    """
    batch = events_batch(context.instance)
    days = _Days.of(lake, USER_SEGMENTS).over
    # While no day is over there is none to name.
    version = f"{batch}-{days.last}" if days.last else str(batch)
    rows = [
        _row(predicted, version, days.last, verdict, model)
        for predicted, (model, verdict) in (
            *_persons(days, settings),
            ("purchase_in_session", _session(lake, settings)),
        )
    ]
    lake.replace(
        PURCHASE_MODELS, lake.engine.from_arrow(pa.Table.from_pylist(rows, schema=PURCHASE_MODELS.arrow))
    )
    names = (
        "predicted",
        "accepted",
        "examples",
        "buyers",
        "auc",
        "log_loss",
        "base_log_loss",
        "rule_log_loss",
    )
    return {
        "model_version": version,
        EVENTS_BATCH: batch,
        "evaluation": text_table(
            [*names, "reason"], [[*(_shown(row.get(name)) for name in names), row["reason"]] for row in rows]
        ),
    }


def _persons(days: _Days, settings: Settings) -> Iterator[tuple[str, tuple[str | None, Verdict]]]:
    for horizon in HORIZONS:
        reach = horizon + CUT_EVERY_DAYS * MOST_CUTS + LOOK_BACK_DAYS
        found: tuple[AdditiveModel | None, Verdict] = (None, Verdict(False, "no day is over yet"))
        if days.first and days.last:
            engine, seed = days.lake.engine, settings.model_seed
            known = examples(engine, days.rows(reach), days.first, days.last, horizon, seed)
            found = train_persons(known, horizon)
        model, verdict = found
        yield f"purchase_in_{horizon}_days", (model.to_json() if model else None, verdict)


def _session(lake: Lake, settings: Settings) -> tuple[str | None, Verdict]:
    days = _Days.of(lake, SHOPPER_EVENTS)
    events = days.rows(days.newest(SESSION_DAYS_READ, MOST_EVENTS_READ) - 1) if days.last else None
    if events is None:
        return None, Verdict(False, "no sessions to learn from")
    # Those that the API has of a session under way.
    rows = sampled_events(lake.engine, product_events(events), settings.model_seed)
    gap = timedelta(minutes=settings.session_gap_minutes)
    model, verdict = train_sessions(over(sessions_of(rows, gap), gap))
    return model.to_json() if model else None, verdict


def _row(
    predicted: str, version: str, last_day: date | None, verdict: Verdict, model: str | None
) -> dict[str, Any]:
    its = verdict.model
    return {
        "predicted": predicted,
        "model_version": version,
        "accepted": verdict.accepted,
        "reason": verdict.reason,
        "last_day": last_day,
        **({name: getattr(its, name) for name in its._fields} if its else {}),
        "base_log_loss": verdict.base_rate.log_loss if verdict.base_rate else None,
        "rule_log_loss": verdict.rule.log_loss if verdict.rule else None,
        "model": model,
    }


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)


@table_asset(PERSON_PREDICTIONS, deps=["user_segments", "interaction_days", "purchase_models"])
def person_predictions(lake: Lake) -> Metadata:
    """One row per person who bought within a year or was there lately: how probable a purchase is, and why.

    As of the last day that the models were made from. Empty where none of them is accepted.
    """
    engine = lake.engine
    rows = engine.to_arrow(lake.read(PURCHASE_MODELS)).to_pylist()
    by_name = {row["predicted"]: row for row in rows if row["accepted"]}
    models = {
        horizon: AdditiveModel.from_json(by_name[name]["model"])
        for horizon in HORIZONS
        if (name := f"purchase_in_{horizon}_days") in by_name
    }
    if not models:
        lake.replace(PERSON_PREDICTIONS, engine.from_arrow(PERSON_PREDICTIONS.arrow.empty_table()))
        return {"as_of": "no model is accepted"}
    as_of = by_name[f"purchase_in_{min(models)}_days"]["last_day"]
    days = _Days.of(lake, USER_SEGMENTS).over.rows(LOOK_BACK_DAYS, until=as_of)
    lake.replace(PERSON_PREDICTIONS, predictions(engine, days, as_of, models))
    return {"as_of": str(as_of)}
