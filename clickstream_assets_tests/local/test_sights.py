"""Sights of a demo whose events have less to show than those of the simulated shop."""

from typing import Any

from clickstream_assets.local.sights import Addresses, sights
from clickstream_assets.settings import Settings

RESULT: dict[str, Any] = {
    "raw": 1_200,
    "rejected": 0,
    "alerts": 0,
    "users_with_recommendations": 3,
    "sample": {
        "user_id": "u",
        "path": "/api/recommend/u?n=5",
        "items": [{"product_id": "p", "algorithm": "popularity", "reason": "Popular"}],
    },
}
AT = Addresses("http://127.0.0.1:3000", "http://127.0.0.1:8000", ".venv/bin/clickstream")


def test_a_file_of_orders_alone_says_that_there_is_no_alert_and_nothing_was_viewed():
    days = [{"report_date": "2010-12-01", "total_events": 7, "sessions": None, "orders": 2}]
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


def test_without_a_report_nothing_is_said_of_one():
    answers: dict[str, dict[str, Any]] = {"/api/reports?limit=2": {"reports": []}}
    titles = [sight.title for sight in sights(RESULT, answers.__getitem__, AT, Settings(_env_file=None))]
    assert titles == ["Tables", "Recommendations", "Flash-sale alerts", "Rejected records"]
