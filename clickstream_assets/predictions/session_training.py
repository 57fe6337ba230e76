"""Fits and judges the model of sessions: from shoppers' events of some days to curves and rates.

One process fits it, so the events are those of a sample of persons: MOST_EVENTS at most, by a hash of the person and a
seed, the same in each run and on each engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import md5

import numpy as np
import pyarrow as pa

from clickstream_assets.engine import DataFrame, Engine, as_view, functions_of, number_of_hex
from clickstream_assets.predictions.fitting import FloatArray, fit, probabilities
from clickstream_assets.predictions.judging import Verdict, verdict
from clickstream_assets.predictions.sessions import (
    FEATURES,
    RULE,
    Counted,
    SessionEvent,
    SessionModel,
    features_of,
    paths_of,
    rates_of,
)

MOST_EVENTS = 300_000
MOST_CATEGORIES = 5_000
SMOOTHING = 300.0
"""Sessions that a category's rate is drawn to the wider one's with: few sessions buy, so a rate needs many."""
FOLDS = 4
"""Parts of the persons; a category's rate is learnt from the other parts than the one that it describes."""
TEST_SHARE = 0.25
"""Share of the sessions, the latest, that a model is judged on before it is fitted to all."""
SESSION_POINTS = 5
"""Points of a curve: twice as many, and a smoothing of 20, made persons that REES46's models had not seen less certain:
AUC .708 for .743, log loss .164 for .159. What a product or a brand sells, how popular it is, its price beside its
category's, gaps and the time so far were tried with both, and none was of use.
"""
_SAMPLES = 1_000_000
_READ = ("event_type", "product_id", "product_category", "price")


@dataclass(frozen=True)
class Session:
    """A session up to its first purchase: what there was to judge by while it could still be foretold.

    Attributes:
        person: Whose it is.
        start: Time of its first event.
        end: Time of its last event, of the purchase where it has one.
        events: Its events before the first purchase, in order; at least one.
        bought: Whether it has a purchase.
    """

    person: str
    start: datetime
    end: datetime
    events: tuple[SessionEvent, ...]
    bought: bool


def sampled_events(engine: Engine, events: DataFrame, seed: int, most: int = MOST_EVENTS) -> pa.Table:
    """Return the events of all persons, or of as many of them as have `most` events, about.

    Args:
        engine: where the events are.
        events: SHOPPER_EVENTS rows; they are counted first.
        seed: decides who is in the sample.
        most: see above.

    Returns:
        user_id, event_time, event_type, product_id, product_category and price, in the order of persons and time.
    """
    F, _ = functions_of(events)
    (counted,) = engine.to_arrow(events.agg(F.count(F.lit(1)).cast("long").alias("n"))).to_pylist()
    if counted["n"] > most:
        digits = F.substring(F.md5(F.concat(F.lit(f"{seed}|"), F.col("user_id"))), 1, 12)
        share = int(_SAMPLES * most / counted["n"])
        events = events.where(number_of_hex(F, digits) % F.lit(_SAMPLES) < F.lit(share))
    columns = ("user_id", "event_time", "event_id", *_READ)
    rows = engine.to_arrow(as_view(events.select(*columns)))
    # Events of the same moment by their ids, so that their order is the same in each run.
    order = [("user_id", "ascending"), ("event_time", "ascending"), ("event_id", "ascending")]
    return rows.sort_by(order).drop_columns(["event_id"])


def sessions_of(events: pa.Table, gap: timedelta) -> list[Session]:
    """Cut events into sessions at every gap, and each session at its first purchase.

    Args:
        events: as of `sampled_events`.
        gap: inactivity that ends a session.
    """
    return [
        session
        for person, start, end, rows in _visits(events, gap)
        if (session := _until_bought(person, start, end, rows)) is not None
    ]


def over(sessions: Sequence[Session], gap: timedelta) -> list[Session]:
    """Leave out sessions that may go on: those with an event within the gap before the newest of all.

    Args:
        sessions: all there are.
        gap: inactivity that ends a session.
    """
    newest = max((session.end for session in sessions), default=datetime.max)
    return [session for session in sessions if newest - session.end > gap]


def _visits(events: pa.Table, gap: timedelta) -> Iterator[tuple[str, datetime, datetime, list[SessionEvent]]]:
    person, start, last = "", datetime.min, datetime.min
    rows: list[SessionEvent] = []
    columns = (events[name].to_pylist() for name in ("user_id", "event_time", *_READ))
    for whose, time, kind, product, category, price in zip(*columns, strict=True):
        if whose != person or not rows or time - last > gap:
            if rows:
                yield person, start, last, rows
            person, start, rows = whose, time, []
        last = time
        rows.append(SessionEvent(kind, product, category, None if price is None else float(price)))
    if rows:
        yield person, start, last, rows


def _until_bought(
    person: str, start: datetime, end: datetime, rows: Sequence[SessionEvent]
) -> Session | None:
    bought = next((place for place, row in enumerate(rows) if row.event_type == "purchase"), None)
    before = tuple(rows[:bought])
    return Session(person, start, end, before, bought is not None) if before else None


def fit_sessions(sessions: Sequence[Session], rule: bool = False) -> SessionModel:
    """Fit the model to sessions, judged at each of their events.

    The rates that a session's features are made of come from the other folds' persons, so that no session has a part
    in what describes it.

    Args:
        sessions: among them such that bought, and others.
        rule: fit the simple rule instead, of the features RULE.
    """
    folds = [_fold_of(session.person) for session in sessions]
    of_fold = [
        _rates(its for its, other in zip(sessions, folds, strict=True) if other != fold)
        for fold in range(FOLDS)
    ]
    rows = [
        (row, session.bought)
        for session, fold in zip(sessions, folds, strict=True)
        for row in features_of(session.events, of_fold[fold])
    ]
    features = np.array([row for row, _ in rows], dtype=float)
    if rule:
        features = _only(features, RULE)
    outcomes = np.array([bought for _, bought in rows], dtype=float)
    model = fit(FEATURES, features, outcomes, points=SESSION_POINTS)
    return SessionModel(model, _rates(sessions))


def judged_sessions(model: SessionModel, sessions: Sequence[Session]) -> tuple[FloatArray, FloatArray]:
    """Judge sessions at each of their events.

    Returns:
        Whether each event's session bought, as 0 or 1, and the probability at each event.
    """
    features = np.array([row for its in sessions for row in features_of(its.events, model.rates)])
    outcomes = np.array([float(its.bought) for its in sessions for _ in its.events])
    return outcomes, probabilities(model.model, features.reshape(-1, len(FEATURES)))


def train_sessions(sessions: Sequence[Session]) -> tuple[SessionModel | None, Verdict]:
    """Judge a model that was fitted to the earlier sessions by the later ones, and fit it to all.

    Returns:
        The model, None where it is not accepted, and the verdict.
    """
    starts = sorted(session.start for session in sessions)
    if not starts:
        return None, Verdict(False, "no sessions to learn from")
    cut = starts[int(len(starts) * (1 - TEST_SHARE))]
    # A session that goes on at the cut is in neither part.
    before = [session for session in sessions if session.end < cut]
    after = [session for session in sessions if session.start >= cut]
    bought = sum(session.bought for session in before)
    if not 0 < bought < len(before):
        return None, Verdict(
            False, f"{bought} of {len(before)} earlier sessions bought: nothing to learn from"
        )
    outcomes, by_model = judged_sessions(fit_sessions(before), after)
    _, by_rule = judged_sessions(fit_sessions(before, rule=True), after)
    events = sum(len(session.events) for session in before)
    rate = sum(len(session.events) for session in before if session.bought) / events
    persons = [session.person for session in after for _ in session.events]
    found = verdict(outcomes, by_model, np.full(len(outcomes), rate), by_rule, persons)
    return (fit_sessions(sessions) if found.accepted else None), found


def _only(features: FloatArray, names: Iterable[str]) -> FloatArray:
    """Return features of which all but some are always 0, so that they say nothing."""
    return features * np.isin(FEATURES, list(names))


def _fold_of(person: str) -> int:
    return int(md5(person.encode(), usedforsecurity=False).hexdigest()[:8], 16) % FOLDS


def _rates(sessions: Iterable[Session]) -> dict[str, float]:
    counts: dict[str, list[int]] = {}
    total = [0, 0]
    for session in sessions:
        met = {
            path
            for event in session.events
            if event.product_id is not None
            for path in paths_of(event.product_category or "")
        }
        for count in (total, *(counts.setdefault(path, [0, 0]) for path in met)):
            count[0] += 1
            count[1] += session.bought
    everything = Counted(*total)
    return rates_of(
        {path: Counted(*its) for path, its in counts.items()}, everything, MOST_CATEGORIES, SMOOTHING
    )
