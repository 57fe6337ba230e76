"""Sights of a demo whose events have less to show than those of the simulated shop."""

from typing import Any

from clickstream_assets.local.sights import Addresses, sights
from clickstream_assets.settings import Settings

RESULT: dict[str, Any] = {
    "raw": 1_200,
    "rejected": 0,
    "alerts": 0,
    "users": 3,
    "users_with_recommendations": 3,
    "person": None,
    "sample": {
        "user_id": "u",
        "path": "/api/recommend/u?n=5",
        "items": [{"product_id": "p", "name": None, "algorithm": "popularity", "reason": "Popular"}],
    },
}
AT = Addresses("http://127.0.0.1:3000", "http://127.0.0.1:8000", ".venv/bin/clickstream")


def test_a_file_of_orders_alone_says_that_there_is_no_alert_and_nothing_was_viewed():
    figures = {"total_events": 7, "sessions": None, "orders": 2, "revenue": 9.5, "refunds": 0.0}
    days = [{"report_date": "2010-12-01", **figures}]
    answers: dict[str, dict[str, Any]] = {
        "/api/reports?limit=2": {"reports": days},
        "/api/funnel?date=2010-12-01&dimension=overall": {"funnel": []},
    }
    settings = Settings(_env_file=None, views_threshold=50, window_duration="5 minutes")
    found = {sight.title: sight for sight in sights(RESULT, answers.__getitem__, AT, settings)}
    assert found["Flash-sale alerts"].found == (
        "none: no product had more than 50 views and fewer than 5 purchases within 5 minutes"
    )
    assert found["Report of 2010-12-01"].found == "7 events, 0 sessions, 2 orders"
    assert found["Conversion on 2010-12-01"].found == "nobody viewed anything"
    assert found["Rejected records"].show == [".venv/bin/clickstream rejected list"]


def test_who_is_who_and_what_was_given_back_are_shown():
    figures = {"total_events": 7, "sessions": 3, "orders": 2, "revenue": 1234.5, "refunds": 20.0}
    tied = [{"anonymous_id": "laptop"}, {"anonymous_id": "phone"}]
    answers: dict[str, dict[str, Any]] = {
        "/api/reports?limit=2": {"reports": [{"report_date": "2010-12-01", **figures}]},
        "/api/funnel?date=2010-12-01&dimension=overall": {"funnel": []},
        "/api/persons/a%2Fb": {"person_id": "a/b", "anonymous_ids": tied},
    }
    shown = sights(RESULT | {"person": "a/b"}, answers.__getitem__, AT, Settings(_env_file=None))
    found = {sight.title: sight for sight in shown}
    assert found["Persons"].found == "3; a/b came as laptop, phone too"
    assert found["Persons"].show == ["curl 'http://127.0.0.1:8000/api/persons/a%2Fb'"]
    assert found["Report of 2010-12-01"].found.endswith("2 orders, 20.00 of 1,234.50 given back")


def test_without_a_report_nothing_is_said_of_one():
    answers: dict[str, dict[str, Any]] = {"/api/reports?limit=2": {"reports": []}}
    titles = [sight.title for sight in sights(RESULT, answers.__getitem__, AT, Settings(_env_file=None))]
    assert titles == ["The shop", "Tables", "Recommendations", "Flash-sale alerts", "Rejected records"]
