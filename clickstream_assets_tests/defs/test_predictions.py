"""Predictions from a shop's events to PostgreSQL: models with a verdict, and each person's probabilities."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import numpy as np
import pytest

from clickstream_assets.catalogue import PERSON_PREDICTIONS, PREDICTED, PURCHASE_MODELS
from clickstream_assets.predictions.sessions import SessionEvent, SessionModel, session_probability
from clickstream_assets.settings import Settings
from clickstream_assets_tests.defs.pipeline import Pipeline

FIRST, LAST = date(2024, 3, 1), date(2024, 5, 22)
PREDICTIONS = dg.AssetSelection.assets("published_predictions").upstream()


def shop() -> list[dict[str, Any]]:
    """Half of 80 persons come each week and buy two times of three; the others look at books, and buy seldom."""
    random = np.random.default_rng(6)
    events: list[dict[str, Any]] = []
    for person in range(80):
        is_buyer = person % 2 == 1
        for week in range(12):
            if not is_buyer and random.random() < 0.6 and week:
                continue
            moment = datetime(2024, 3, 1, 9, tzinfo=UTC) + timedelta(
                days=7 * week + int(random.integers(6)), minutes=person
            )
            kinds = ["view", "view"] + ["purchase"] * int(random.random() < (0.65 if is_buyer else 0.05))
            for step, kind in enumerate(kinds):
                events.append(
                    {
                        "event_id": f"{person} {week} {step}",
                        "event_type": kind,
                        "user_id": f"u{person:02}",
                        "product_id": f"p{random.integers(9)}",
                        "product_category": "toys" if is_buyer else "books",
                        "price": "9.99",
                        "timestamp": (moment + timedelta(minutes=step)).isoformat(),
                        # One of them does not want to be profiled.
                        **({"consent": False} if person == 3 else {}),
                    }
                )
    return events


@pytest.fixture
def pipeline(pipeline_env: Settings, instance: dg.DagsterInstance, definitions: dg.Definitions) -> Pipeline:
    return Pipeline(pipeline_env, instance, definitions, only=PREDICTIONS)


def test_persons_and_sessions_are_foretold_from_what_was_there_and_served(pipeline: Pipeline):
    pipeline.ingest(*shop())
    pipeline.refresh(str(FIRST), str(LAST))
    pipeline.train()

    models = {row["predicted"]: row for row in pipeline.served(PURCHASE_MODELS)}
    assert list(pipeline.lake(PURCHASE_MODELS)) == list(models.values())
    assert set(models) == set(PREDICTED)
    newest = max(date.fromisoformat(event["timestamp"][:10]) for event in shop())
    assert {row["last_day"] for row in models.values()} == {newest - timedelta(days=1)}
    week, session = models["purchase_in_7_days"], models["purchase_in_session"]
    assert week["accepted"], week["reason"]
    assert week["log_loss"] < min(week["base_log_loss"], week["rule_log_loss"])
    # Too short a history for four weeks: three of the cuts before would have to be over by the first that is judged.
    assert (models["purchase_in_28_days"]["accepted"], models["purchase_in_28_days"]["model"]) == (
        False,
        None,
    )
    assert session["accepted"], session["reason"]
    toys, books = (
        session_probability(SessionModel.from_json(session["model"]), [SessionEvent("view", "p1", its, 9.99)])
        for its in ("toys", "books")
    )
    assert toys.probability > 0.5 > 0.4 > books.probability

    persons = pipeline.served(PERSON_PREDICTIONS)
    assert persons == pipeline.lake(PERSON_PREDICTIONS)
    assert "u03" not in {row["user_id"] for row in persons}
    often, seldom = (
        [row["probability_7_days"] for row in persons if int(row["user_id"][1:]) % 2 == odd] for odd in (1, 0)
    )
    assert len(often) == 39
    assert np.mean(often) > 0.4 > 0.2 > np.mean(seldom)
    assert {row["probability_28_days"] for row in persons} == {None}
    assert all(row["reasons"] for row in persons if row["probability_7_days"] > 0.5)

    pipeline.train()
    assert pipeline.reported("published_predictions", "changes") == {
        "rows": len(persons),
        "inserted": 0,
        "updated": 0,
        "deleted": 0,
    }


def test_of_a_shop_of_one_day_nothing_is_foretold(pipeline: Pipeline):
    pipeline.ingest(*(event | {"timestamp": "2024-05-01T10:00:00Z", "consent": True} for event in shop()[:6]))
    pipeline.refresh("2024-05-01", "2024-05-01")
    pipeline.train()
    assert {
        row["predicted"]: (row["accepted"], row["reason"]) for row in pipeline.served(PURCHASE_MODELS)
    } == {
        "purchase_in_7_days": (False, "no day is over yet"),
        "purchase_in_28_days": (False, "no day is over yet"),
        # All of them may go on.
        "purchase_in_session": (False, "no sessions to learn from"),
    }
    # It is of the ingest batch alone: there is no day to name.
    assert {row["model_version"] for row in pipeline.served(PURCHASE_MODELS)} == {"1"}
    assert pipeline.served(PERSON_PREDICTIONS) == []
