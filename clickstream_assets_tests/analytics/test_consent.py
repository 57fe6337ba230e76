"""Who agrees to being profiled, and on which days, counted by hand."""

from datetime import date
from typing import Any

import pyarrow as pa
import pytest

from clickstream_assets.analytics.consent import profiled, refusal_spans, refusals
from clickstream_assets.catalogue import CONSENT_DAYS
from clickstream_assets.engine import Engine
from clickstream_assets_tests.analytics.records import at


def stated(day: int, user: str, agreed: str | None = None, refused: str | None = None) -> dict[str, Any]:
    moments = {
        name: at(f"2024-05-{day:02} {time}") if time else None
        for name, time in (("agreed", agreed), ("refused", refused))
    }
    return {"event_date": date(2024, 5, day), "user_id": user, **moments}


DAYS = [
    stated(1, "always", agreed="10:00"),
    stated(1, "never", refused="10:00"),
    stated(3, "never", refused="11:00"),
    stated(1, "again", agreed="10:00"),
    stated(2, "again", refused="10:00"),
    stated(4, "again", agreed="12:00"),
    stated(5, "again", agreed="12:00"),
    # The same moment: the no counts.
    stated(2, "both", agreed="10:00", refused="10:00"),
    stated(2, "same day", agreed="11:00", refused="10:00"),
]


@pytest.fixture
def consents(engine: Engine) -> Any:
    return engine.from_arrow(pa.Table.from_pylist(DAYS, schema=CONSENT_DAYS.arrow))


def test_who_refuses_is_known_with_the_day_from_which_on_they_agree_again(engine: Engine, consents: Any):
    rows = engine.to_arrow(refusals(consents)).to_pylist()
    found = {row["user_id"]: (row["refused"], row["agreed_on"]) for row in rows}
    assert found == {
        "never": (at("2024-05-03 11:00"), None),
        "again": (at("2024-05-02 10:00"), date(2024, 5, 4)),
        "both": (at("2024-05-02 10:00"), None),
        "same day": (at("2024-05-02 10:00"), date(2024, 5, 2)),
    }
    persons = engine.from_arrow(
        pa.table({"user_id": ["always", "never", "again", "both", "same day", "silent"]})
    )
    left = engine.to_arrow(profiled(persons, consents))["user_id"].to_pylist()
    assert sorted(left) == ["again", "always", "same day", "silent"]


def test_days_of_a_refusal_end_with_the_day_of_another_word(engine: Engine, consents: Any):
    rows = engine.to_arrow(refusal_spans(consents)).to_pylist()
    found = sorted((row["refuser"], row["since"].day, row["until"] and row["until"].day) for row in rows)
    assert found == [("again", 2, 4), ("both", 2, None), ("never", 1, 3), ("never", 3, None)]
