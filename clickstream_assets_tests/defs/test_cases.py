"""Records that real shops' senders write, through the whole pipeline: every table is right, on each engine."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from operator import itemgetter
from typing import Any

import dagster as dg
import pytest

from clickstream_assets.catalogue import (
    CARTS,
    CONFLICTING_EVENTS,
    CUSTOMER_SEGMENTS,
    DAILY_REPORT,
    DAILY_SUMMARY,
    DUPLICATE_EVENTS,
    EVENTS,
    FUNNEL,
    IDENTITIES,
    PRODUCT_PERFORMANCE,
    RAW_EVENTS,
    REJECTED_EVENTS,
    SESSIONS,
    SHOPPER_EVENTS,
    Table,
)
from clickstream_assets.engine import Engine, SparkEngine
from clickstream_assets.settings import Settings
from clickstream_assets_tests.cases import CASES, Case
from clickstream_assets_tests.defs.pipeline import Pipeline, Rows, send

MADE = dg.AssetSelection.assets("published_days", "published_shoppers", "interactions").upstream()
SERVED = (CARTS, CUSTOMER_SEGMENTS, DAILY_SUMMARY, FUNNEL, PRODUCT_PERFORMANCE)
IN_ORDER_OF = {EVENTS: ("event_time", "item"), SHOPPER_EVENTS: ("event_id",), SESSIONS: ("start_time",)}
"""Order of the rows of tables whose keys are hashes, or not in the order of time."""


@pytest.mark.long_on_spark
def test_what_real_senders_write_has_the_right_values_in_every_table(
    engine: Engine,
    pipeline_env: Settings,
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("COMPUTE_ENGINE", engine.name)
    if isinstance(engine, SparkEngine):
        # Started first, so that the runs join it: a process has one.
        assert engine.session
    pipeline = Pipeline(pipeline_env, instance, definitions, MADE)
    send(pipeline_env, (value for case in CASES for value in case.values))
    pipeline.ingest()
    assert pipeline.catch_up() == [("2024-05-01", "2024-05-29")]
    pipeline.train()

    tables = Tables(pipeline)
    wrong = [difference for case in CASES for difference in tables.differences(case)]
    assert not wrong, "\n".join(wrong)
    assert tables.persons(CASES).isdisjoint({"undefined", "0", "(not set)"})
    assert pipeline.reported("exchange_rates", "shop_currency") == "EUR"
    assert {row["anonymous_id"] for row in pipeline.served(IDENTITIES)} == {
        *("7c1", "kitchen", "phone-29", "laptop-29", "phone-30")
    }
    for table in SERVED:
        assert pipeline.served(table) == tables.rows(table), table.name


class Tables:
    """The lake's tables, each read once, and what of them is a case's."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._read: dict[str, Rows] = {}
        records = self.rows(RAW_EVENTS)
        self._case_of = {value: case for case in CASES for value in case.values}
        self._value_of = {(row["partition"], row["offset"]): row["value"] for row in records}

    def rows(self, table: Table) -> Rows:
        """Return all rows of a table."""
        if table.name not in self._read:
            self._read[table.name] = self._pipeline.lake(table)
        return self._read[table.name]

    def persons(self, cases: Any) -> set[str]:
        """Return the persons of some cases."""
        days = {row["user_id"]: row["event_date"] for row in self.rows(SHOPPER_EVENTS)}
        return {person for person, day in days.items() if any(case.has_day(day) for case in cases)}

    def differences(self, case: Case) -> list[str]:
        """Say what of a case is not as it should be: of which table, what should be there, and what is."""
        found: dict[str, Any] = {"outcomes": (dict(case.outcomes), dict(self._outcomes(case)))}
        for table, expected in case.tables.items():
            names = list(expected[0]) if expected else list(table.key)
            rows = [{name: row[name] for name in names} for row in self._of_case(case, table)]
            found[table.name] = ([{n: _number(v) for n, v in row.items()} for row in expected], rows)
        return [
            f"{case.name}, {name}: {expected} expected, {actual} found"
            for name, (expected, actual) in found.items()
            if expected != actual
        ]

    def _of_case(self, case: Case, table: Table) -> Rows:
        rows = self.rows(table)
        if table is FUNNEL:
            rows = [row for row in rows if row["dimension"] == "overall"]
        if table is DAILY_REPORT:
            rows = [{**json.loads(row["report"]), **row} for row in rows]
        if order := IN_ORDER_OF.get(table):
            rows = sorted(rows, key=itemgetter(*order))
        if table.day:
            rows = [row for row in rows if case.has_day(row[table.day])]
        if "user_id" in table.by_name:
            persons = self.persons([case])
            rows = [row for row in rows if row["user_id"] in persons or table is EVENTS]
        return rows

    def _outcomes(self, case: Case) -> Counter[str]:
        counts: Counter[str] = Counter()
        for table, outcome in (
            (EVENTS, lambda _: "events"),
            (DUPLICATE_EVENTS, lambda row: row["reason"]),
            (CONFLICTING_EVENTS, lambda _: "conflict"),
            (REJECTED_EVENTS, lambda row: row["rule"]),
        ):
            for row in self.rows(table):
                value = self._value_of[row["partition"], row["offset"]]
                if self._case_of[value] is case:
                    counts[outcome(row)] += 1
        return counts


def _number(value: Any) -> Any:
    """Return the amount that a text is, or the value as it is."""
    try:
        return Decimal(value) if isinstance(value, str) and "." in value else value
    except ArithmeticError:
        return value
