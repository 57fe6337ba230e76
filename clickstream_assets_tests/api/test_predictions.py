"""How probable a purchase is, as the API answers."""

from __future__ import annotations

from flask.testing import FlaskClient


def test_a_person_has_probabilities_and_reasons(client: FlaskClient) -> None:
    assert client.get("/api/predictions/anonymous:phone").json == {
        "user_id": "anonymous:phone",
        "probability_7_days": 0.125,
        "probability_28_days": None,
        "reasons": ["bought not long ago", "was there lately"],
        "as_of": "2026-02-28",
        "model_version": "7-2026-02-28",
    }


def test_a_person_without_a_prediction_is_a_problem_document(client: FlaskClient) -> None:
    answer = client.get("/api/predictions/a/b")
    assert (answer.status_code, answer.json["code"]) == (404, "unknown_person")
