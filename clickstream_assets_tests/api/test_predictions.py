"""How probable a purchase is, as the API answers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from flask.testing import FlaskClient

from clickstream_assets.api.app import create_app
from clickstream_assets.api.database import EXTENSION
from clickstream_assets.api.moment import EXTENSION as MOMENT
from clickstream_assets.api.moment import Moment
from clickstream_assets.catalogue import PROFILING_REFUSALS, PURCHASE_MODELS
from clickstream_assets.predictions.additive import AdditiveModel, Curve
from clickstream_assets.predictions.sessions import FEATURES, SessionEvent, SessionModel, session_probability
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.tail import Arrived
from clickstream_assets.stores.postgres.publishing import publication
from clickstream_assets_tests.api.conftest import publish
from clickstream_assets_tests.databases import fresh_database
from clickstream_assets_tests.stores.postgres.rows import table

# A cart speaks for a purchase, and so do toys; nothing else says anything.
_SAYS = {"cart": (-0.1, 2.0), "category": (-1.0, 1.0)}
MODEL = SessionModel(
    AdditiveModel(-3.0, tuple(Curve(name, (0.0, 1.0), _SAYS.get(name, (0.0, 0.0))) for name in FEATURES)),
    {"toys": 1.0, "": 0.5},
)
MINUTE = 60.0


def test_a_person_has_probabilities_and_reasons(client: FlaskClient) -> None:
    assert client.get("/api/predictions/anonymous:phone").json == {
        "user_id": "anonymous:phone",
        "probability_7_days": 0.125,
        "probability_28_days": None,
        "reasons": ["bought not long ago", "was there lately"],
        "as_of": "2026-02-28",
        "model_version": "7-2026-02-28",
        "session": None,
        "problem": None,
    }


def test_a_person_without_a_prediction_is_a_problem_document(client: FlaskClient) -> None:
    answer = client.get("/api/predictions/a/b")
    assert (answer.status_code, answer.json["code"]) == (404, "unknown_person")


def serve(settings: Settings, version: str, model: SessionModel | None) -> None:
    row = {"predicted": "purchase_in_session", "model_version": version, "reason": "log loss"}
    its = {"accepted": model is not None, "model": model.to_json() if model else None}
    with publication(settings) as transaction:
        transaction.publish(PURCHASE_MODELS, table(PURCHASE_MODELS, [row | its]))


@pytest.fixture(scope="module")
def own(postgres: Settings) -> Iterator[Settings]:
    with fresh_database(postgres) as settings:
        publish(settings)
        refusal = {"user_id": "refuser", "refused": datetime(2024, 5, 1, tzinfo=UTC)}
        with publication(settings) as transaction:
            transaction.publish(PROFILING_REFUSALS, table(PROFILING_REFUSALS, [refusal]))
        yield settings


@pytest.fixture
def live(own: Settings) -> Iterator[tuple[FlaskClient, Moment]]:
    serve(own, "s1", MODEL)
    app = create_app(own)
    now: Moment = app.extensions[MOMENT]
    now.renew_models()
    yield app.test_client(), now
    app.extensions[EXTENSION].close()


def happen(now: Moment, ago: float, user_id: str, product_id: str, **more: Any) -> None:
    """Let a product be viewed some seconds ago, in a category of toys unless `more` says another."""
    event = {"event_type": "view", "user_id": user_id, "product_id": product_id, "product_category": "toys"}
    value = json.dumps(event | {"timestamp": time.time() - ago} | more).encode()
    now.recent.take([Arrived("clickstream-events", int(time.time() * 1e6), value)])


def test_a_session_under_way_is_judged_at_each_event(live: tuple[FlaskClient, Moment]) -> None:
    client, now = live
    # Of a session before, with a cart.
    happen(now, 100 * MINUTE, "u", "p0", event_type="add_to_cart")
    happen(now, 60 * MINUTE, "u", "p1", price=9.5)
    happen(now, 31 * MINUTE, "u", "p1", price=9.5)
    assert client.get("/api/predictions/u").status_code == 404
    happen(now, 29 * MINUTE, "u", "p2", product_category=None, properties={"category_id": "17"})
    viewed = [SessionEvent("view", "p1", "toys", 9.5), SessionEvent("view", "p1", "toys", 9.5)]
    viewed.append(SessionEvent("view", "p2"))
    expected = session_probability(MODEL, viewed)
    answer = client.get("/api/predictions/u").json
    assert answer == {
        "user_id": "u",
        "probability_7_days": None,
        "probability_28_days": None,
        "reasons": [],
        "as_of": None,
        "model_version": None,
        "session": {
            "probability": round(expected.probability, 3),
            "reasons": list(expected.reasons),
            "events": 3,
            "model_version": "s1",
        },
        "problem": None,
    }
    happen(now, 1, "u", "p1", event_type="add_to_cart", price=9.5)
    carted = session_probability(MODEL, [*viewed, SessionEvent("add_to_cart", "p1", "toys", 9.5)])
    session = client.get("/api/predictions/u").json["session"]
    assert session["probability"] == round(carted.probability, 3) > answer["session"]["probability"]
    assert session["reasons"][0] == "has put something in the cart"


def test_who_refused_to_be_profiled_is_not_judged(live: tuple[FlaskClient, Moment]) -> None:
    client, now = live
    happen(now, 1, "refuser", "p1")
    happen(now, 1, "shy", "p1", consent=False)
    for user in ("refuser", "shy"):
        assert client.get(f"/api/predictions/{user}").status_code == 404


def test_a_model_of_sessions_that_is_not_accepted_any_more_judges_nobody(
    own: Settings, live: tuple[FlaskClient, Moment]
) -> None:
    client, now = live
    happen(now, 1, "u", "p1")
    assert client.get("/api/predictions/u").json["session"]["model_version"] == "s1"
    serve(own, "s2", None)
    now.renew_models()
    assert client.get("/api/predictions/u").status_code == 404
