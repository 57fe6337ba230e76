"""What came of an experiment, counted by hand on both engines, and its results by arm."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from clickstream_assets.analytics import experiments as counting
from clickstream_assets.analytics.identity import IdentityRules
from clickstream_assets.analytics.money import as_sent
from clickstream_assets.catalogue import EXPERIMENT_EXPOSURES, EXPERIMENT_RESULTS, IDENTITY_TIES
from clickstream_assets.engine import Engine
from clickstream_assets.recommender.experiment_results import Counted, result_rows
from clickstream_assets.recommender.experiments import parse_experiments
from clickstream_assets_tests.analytics.records import at, day, event, event_table, money, rows_of

RULES = IdentityRules(timedelta(days=30), 10)
DECLARED = """
[[experiment]]
name = "x"
start = 2024-05-01T00:00:00Z
metric = "conversion"
units = 4000
arms = [{name = "a", share = 0.5}, {name = "b", share = 0.25, serves = "lists"}]
"""


def exposures(*shown: tuple[str, str, str, str]) -> pa.Table:
    """EXPERIMENT_EXPOSURES rows of arm, unit, time and products."""
    rows = [
        {
            "topic": "shown",
            "partition": 0,
            "offset": number,
            "batch": 1,
            "exposure_id": f"x{number}",
            "experiment": "x",
            "arm": arm,
            "unit": unit,
            "products": products.split(),
            "exposed_at": at(time),
        }
        for number, (arm, unit, time, products) in enumerate(shown)
    ]
    return pa.Table.from_pylist(rows, schema=EXPERIMENT_EXPOSURES.arrow)


def tie(anonymous_id: str, user_id: str, time: str) -> dict[str, Any]:
    tied_at = at(time)
    return {
        "tie_date": tied_at.date(),
        "anonymous_id": anonymous_id,
        "user_id": user_id,
        "tied_at": tied_at,
        "event_id": f"{anonymous_id}-{user_id}",
    }


def test_the_unit_of_an_exposure_is_who_it_is_by_now(engine: Engine):
    shown = exposures(
        ("a", "u", "2024-05-01 10:00", "p"),
        ("a", "anonymous:v", "2024-05-01 10:00", "p"),
        ("a", "anonymous:w", "2024-05-01 10:00", "p"),
        ("a", "anonymous:odd", "2024-05-01 10:00", "p"),
        ("a", "user:anonymous:v", "2024-05-01 10:00", "p"),
    )
    ties = pa.Table.from_pylist(
        [tie("v", "u", "2024-05-02 10:00"), tie("odd", "session:1", "2024-04-30 10:00")],
        schema=IDENTITY_TIES.arrow,
    )
    for known, expected in (
        (engine.from_arrow(ties), ["u", "u", "anonymous:w", "user:session:1", "user:anonymous:v"]),
        (None, ["u", "anonymous:v", "anonymous:w", "anonymous:odd", "user:anonymous:v"]),
    ):
        found = counting.exposures_of_persons(engine.from_arrow(shown), known, RULES)
        assert [row["person"] for row in rows_of(engine, found, "exposure_id")] == expected
        assert [name for name in found.columns if name != "person"] == EXPERIMENT_EXPOSURES.column_names


SHOWN = exposures(
    ("a", "u1", "2024-05-01 10:00", "p q"),
    # Again, in another arm: of no account but that it is said.
    ("b", "u1", "2024-05-01 11:00", "r"),
    ("b", "u2", "2024-05-01 10:00", "p"),
    # Within the window of the first one; shown from here on.
    ("b", "u2", "2024-05-01 20:00", "r"),
    ("b", "u3", "2024-05-01 10:00", "p"),
    ("b", "u4", "2024-05-02 10:00", ""),
    ("a", "late", "2024-05-03 10:00", "p"),
)
HAPPENED = [
    # Before it was shown, of another product, and of one that another arm showed: no click.
    event("view", "2024-05-01 09:59", "u1", product_id="p"),
    event("view", "2024-05-01 10:30", "u1", product_id="z"),
    event("click", "2024-05-01 12:00", "u1", product_id="r"),
    event("purchase", "2024-05-01 12:00", "u1", product_id="z", price=money("10"), quantity=money("3")),
    event("purchase", "2024-05-02 10:00", "u1", product_id="q", price=money("5")),
    event("refund", "2024-05-01 13:00", "u1", product_id="z", price=money("10")),
    # After the window.
    event("purchase", "2024-05-02 10:01", "u1", product_id="q", price=money("5")),
    event("view", "2024-05-01 19:59", "u2", product_id="r"),
    event("click", "2024-05-01 20:01", "u2", product_id="r"),
    event("view", "2024-05-02 09:00", "u2", product_id="p"),
    event("purchase", "2024-05-01 10:01", "u3", product_id="p", price=None),
    event("view", "2024-05-03 10:01", "late", product_id="p"),
    event("view", "2024-05-03 10:01", "stranger", product_id="p"),
    event("page_view", "2024-05-03 11:00", "u1", product_id=None),
]


def counted(engine: Engine) -> Counted:
    events = as_sent(engine.from_arrow(event_table(HAPPENED)))
    shown = counting.exposures_of_persons(engine.from_arrow(SHOWN), None, RULES)
    units = counting.units(shown, 24)
    as_of = at("2024-05-03 11:00")
    return Counted(
        [{"arm": "a", "exposures": 2}, {"arm": "b", "exposures": 5}, {"arm": "gone", "exposures": 1}],
        rows_of(engine, counting.sizes(units), "arm"),
        rows_of(engine, counting.outcomes(units, shown, events, as_of), ["arm", "day"]),
        as_of,
    )


def test_each_person_counts_once_by_what_they_did_in_the_window_of_the_first_exposure(engine: Engine):
    found = counted(engine)
    assert found.sizes == [
        {"arm": "a", "units": 2, "units_of_several_arms": 1},
        {"arm": "b", "units": 3, "units_of_several_arms": 0},
    ]
    second, third = ((day(text) - day("1970-01-01")).days for text in ("2024-05-02", "2024-05-03"))
    assert found.outcomes == [
        {
            **{"arm": "a", "day": second, "judged_units": 1, "clicked_units": 0, "converted_units": 1},
            **{"revenue": Decimal(35), "revenue_squares": 35.0**2},
        },
        {
            **{"arm": "b", "day": second, "judged_units": 2, "clicked_units": 1, "converted_units": 1},
            **{"revenue": Decimal(0), "revenue_squares": 0.0},
        },
        {
            **{"arm": "b", "day": third, "judged_units": 1, "clicked_units": 0, "converted_units": 0},
            **{"revenue": Decimal(0), "revenue_squares": 0.0},
        },
    ]


def test_results_say_of_each_arm_what_was_found_and_of_few_units_that_nothing_is_decided(
    duckdb_engine: Engine,
):
    (experiment,) = parse_experiments(DECLARED, "the test")
    a, b = result_rows(experiment, counted(duckdb_engine))
    assert a.keys() == b.keys() == set(EXPERIMENT_RESULTS.column_names)
    pa.Table.from_pylist([a, b], schema=EXPERIMENT_RESULTS.arrow)
    expected = {
        **{"experiment": "x", "arm": "b", "place": 2, "serves": "lists", "share": 0.25, "window_hours": 24},
        **{"metric": "conversion", "exposures": 5, "units": 3},
        **{"units_of_several_arms": 0, "judged_units": 3, "clicked_units": 1, "converted_units": 1},
        **{"click_through": 1 / 3, "conversion": 1 / 3, "conversion_difference": -2 / 3},
        **{"revenue": Decimal(0), "revenue_per_unit": 0.0, "revenue_per_unit_difference": -35.0},
        **{"revenue_per_unit_difference_low": None, "decision": "undecided", "decided_on": None},
        **{"difference_low": None, "p_value": None},
    }
    assert {name: b[name] for name in expected} == pytest.approx(expected)
    assert a["as_of"] == b["as_of"] == at("2024-05-03 11:00")
    assert (a["decision"], a["conversion_difference"], a["units_of_several_arms"]) == ("control", None, 1)
    # By chi-square of 2 and 3, where 10/3 and 5/3 are expected: 1.6.
    assert a["sizes_p_value"] == b["sizes_p_value"] == pytest.approx(0.2059, abs=1e-4)
    nothing = result_rows(experiment, Counted([], [], [], None))
    assert [(row["units"], row["conversion"], row["decision"], row["sizes_p_value"]) for row in nothing] == [
        (0, None, "control", None),
        (0, None, "undecided", None),
    ]


def outcome(arm: str, on: int, judged: int, converted: int) -> dict[str, Any]:
    return {
        **{"arm": arm, "day": on, "judged_units": judged, "clicked_units": 0, "converted_units": converted},
        **{"revenue": Decimal(0), "revenue_squares": 0.0},
    }


@pytest.mark.parametrize(
    ("bought", "sizes", "decision", "decided_on"),
    [
        ((50, 50), (4000, 2000), "undecided", None),
        ((50, 75), (4000, 2000), "better", day("1970-01-03")),
        ((90, 65), (4000, 2000), "worse", day("1970-01-04")),
        # Half of the arm's units got lost.
        ((50, 75), (4000, 1000), "mismatched", None),
    ],
)
def test_an_arm_is_better_or_worse_from_the_day_on_that_decided_it(
    bought: tuple[int, int], sizes: tuple[int, int], decision: str, decided_on: object
):
    (experiment,) = parse_experiments(DECLARED, "the test")
    outcomes = [
        outcome(arm, on, 1000, converted)
        for on in range(1, 5)
        for arm, converted in zip("ab", bought, strict=True)
    ]
    units = [
        {"arm": arm, "units": size, "units_of_several_arms": 0} for arm, size in zip("ab", sizes, strict=True)
    ]
    _, row = result_rows(experiment, Counted([], units, outcomes, at("2024-05-03 11:00")))
    assert (row["decision"], row["decided_on"]) == (decision, decided_on)
    assert row["judged_units"] == 4000
    if decision in ("better", "worse"):
        assert row["p_value"] < 0.05
        assert (row["difference_low"] > 0) is (decision == "better")
        assert (row["difference_high"] < 0) is (decision == "worse")
