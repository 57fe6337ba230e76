"""The daily tables by SQL on a file, and what differs from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa

from clickstream_assets.catalogue import CUSTOMER_SEGMENTS, USER_SEGMENTS
from clickstream_assets_tests.proofs.scripts import SCRIPTS, create_expected, database, run_script
from clickstream_assets_tests.proofs.shop import DAILY_TABLES, Tables

SAMPLES = 5
# What is compared in another way, or not at all: a hash of settings, and when a report was made.
COMPARED_APART = {
    "sessions": {"entry_product_id", "exit_product_id"},
    "customer_segment_days": {"fingerprint"},
    "daily_report": {"generated_at", "made_from", "report"},
}

Difference = list[tuple[Any, ...]]


class Recomputation:
    """The daily tables that a file's events make.

    Args:
        raw: a query on the file, in the order in which its events are sent: `event_id` (null where the sender has
            none), `payload` (all that was written), `event_time`, `event_type`, `user_id`, `client_session_id`,
            `product_id`, `product_category`, `price`, `currency`, `quantity`, `order_id`, `campaign`, `user_agent`; and
            `order_line`, where the sender has it. `user_id` is the person; where that is not always the sender's user,
            there are the sender's ids, `sent_user_id` and `anonymous_id`.
        first: first day that is reported on.
        last: last one.
        zone: the shop's time zone.
        rates: worth of a unit of other currencies in the shop's, on all days.
        currency: the shop's, where there are others.
    """

    def __init__(
        self,
        raw: str,
        first: date,
        last: date,
        zone: str = "UTC",
        *,
        rates: Mapping[str, Decimal] | None = None,
        currency: str | None = None,
    ) -> None:
        self._duckdb = database(zone)
        self._duckdb.execute(f"CREATE TABLE raw AS SELECT row_number() OVER () AS line, * FROM ({raw})")
        self._duckdb.execute("ALTER TABLE raw ADD COLUMN IF NOT EXISTS order_line VARCHAR")
        self._duckdb.execute("ALTER TABLE raw ADD COLUMN IF NOT EXISTS anonymous_id VARCHAR")
        if "sent_user_id" not in self._duckdb.table("raw").columns:
            self._duckdb.execute("ALTER TABLE raw ADD COLUMN sent_user_id VARCHAR")
            self._duckdb.execute("UPDATE raw SET sent_user_id = user_id")
        run_script(self._duckdb, "duplicates")
        for other, rate in (rates or {}).items():
            self._duckdb.execute(
                "UPDATE accepted SET price = (price * $1::DECIMAL(18, 4))::DECIMAL(18, 4), currency = $2 "
                "WHERE currency = $3",
                [rate, currency, other],
            )
        create_expected(self._duckdb)
        self._duckdb.execute(
            "CREATE TABLE days AS SELECT unnest(generate_series($1::TIMESTAMP, $2::TIMESTAMP, INTERVAL 1 DAY))::DATE "
            "AS report_date",
            [first, last],
        )
        for name in SCRIPTS:
            run_script(self._duckdb, name)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Return rows of a query on the tables of the scripts; the daily ones are in the schema `expected`."""
        return self._duckdb.execute(statement).fetchall()

    def rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Return rows of a query by the names of their columns."""
        found = self._duckdb.execute(statement, list(parameters))
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, values, strict=True)) for values in found.fetchall()]

    def register(self, name: str, table: pa.Table) -> None:
        """Give a table a name in queries."""
        self._duckdb.register(name, table)

    def differences(self, lake: Mapping[str, pa.Table]) -> dict[str, Difference]:
        """Return by table some rows that the lake has and the recomputation has not, and the other way round."""
        found = {}
        for table in DAILY_TABLES:
            self._duckdb.register("actual", lake[table.name])
            expected = f"expected.{table.name}"
            found[table.name] = differing_rows(
                self._duckdb, "actual", expected, table.column_names, COMPARED_APART.get(table.name, set())
            )
        found["sessions"] += self._products_that_no_session_begins_or_ends_with(lake["sessions"])
        found["daily_report"] += self._differing_reports(lake["daily_report"])
        return {name: rows for name, rows in found.items() if rows}

    def _products_that_no_session_begins_or_ends_with(self, sessions: pa.Table) -> Difference:
        self._duckdb.register("actual", sessions)
        # What happened at one moment, and has no ids of the sender's, is in no order.
        return self.query(
            f"""
            WITH shown AS (
                SELECT session_id, product_id,
                    rank() OVER (PARTITION BY session_id ORDER BY us, event_id) AS from_entry,
                    rank() OVER (PARTITION BY session_id ORDER BY us DESC, event_id DESC) AS from_exit
                FROM expected.sessions JOIN events USING (user_id)
                WHERE event_time BETWEEN start_time AND end_time AND product_id IS NOT NULL
            ),
            ends AS (
                SELECT session_id,
                    list(product_id) FILTER (from_entry = 1) AS entry_products,
                    list(product_id) FILTER (from_exit = 1) AS exit_products
                FROM shown GROUP BY session_id
            )
            SELECT session_id, entry_product_id, entry_products, exit_product_id, exit_products
            FROM actual LEFT JOIN ends USING (session_id)
            WHERE NOT coalesce(list_contains(entry_products, entry_product_id), entry_product_id IS NULL)
                OR NOT coalesce(list_contains(exit_products, exit_product_id), exit_product_id IS NULL)
                OR (entry_products IS NULL) <> (entry_product_id IS NULL)
                OR (exit_products IS NULL) <> (exit_product_id IS NULL)
            LIMIT {SAMPLES}
            """
        )

    def _differing_reports(self, reports: pa.Table) -> Difference:
        expected = {
            day: json.loads(report) for day, report in self.query("SELECT report_date, report FROM reports")
        }
        different: Difference = []
        for row in reports.to_pylist():
            day, report = row["report_date"], json.loads(row["report"])
            del report["generated_at"]
            keys = report.keys() | expected[day].keys()
            different += [
                (day, key, report.get(key), expected[day].get(key))
                for key in sorted(keys)
                if report.get(key) != expected[day].get(key)
            ]
        return different[:SAMPLES]


def differing_rows(
    connection: duckdb.DuckDBPyConnection, left: str, right: str, names: list[str], without: set[str]
) -> Difference:
    """Return some rows, with their side, that only one of two tables has; a row that is there twice counts twice."""
    columns = ", ".join(f'"{name}"' for name in names if name not in without)
    return connection.execute(
        f"""
        (SELECT 'actual' AS side, * FROM (SELECT {columns} FROM {left} EXCEPT ALL SELECT {columns} FROM {right})
            ORDER BY ALL LIMIT {SAMPLES})
        UNION ALL
        (SELECT 'expected', * FROM (SELECT {columns} FROM {right} EXCEPT ALL SELECT {columns} FROM {left})
            ORDER BY ALL LIMIT {SAMPLES})
        """
    ).fetchall()


def served_differences(tables: Tables) -> dict[str, Difference]:
    """Return by table what PostgreSQL serves and the lake has not, and the other way round.

    Of who refuses to be profiled, segments are not to be served.
    """
    connection = database()
    connection.register("refusals", tables.refusals)
    expected = dict(tables.lake)
    for table in (USER_SEGMENTS, CUSTOMER_SEGMENTS):
        connection.register("segments", tables.lake[table.name])
        expected[table.name] = connection.execute(
            "FROM segments WHERE NOT EXISTS (FROM refusals WHERE refusals.user_id = segments.user_id "
            "AND (agreed_on IS NULL OR report_date < agreed_on))"
        ).to_arrow_table()
    return _differences(tables.served, expected)


def differences_between(actual: Tables, expected: Tables) -> dict[str, Difference]:
    """Return by table what two pipelines' lakes differ in, but for the times at which reports were made."""
    return _differences(_without_times(actual.lake), _without_times(expected.lake))


def _differences(actual: Mapping[str, pa.Table], expected: Mapping[str, pa.Table]) -> dict[str, Difference]:
    connection = database()
    found = {}
    for table in DAILY_TABLES:
        if table.name not in actual:
            continue
        connection.register("actual", actual[table.name])
        connection.register("expected", expected[table.name])
        found[table.name] = differing_rows(connection, "actual", "expected", table.column_names, set())
    return {name: rows for name, rows in found.items() if rows}


def _without_times(tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Return the tables as they are; of the reports, all but when they were made."""
    reports = [{**row, "generated_at": None} for row in tables["daily_report"].to_pylist()]
    for row in reports:
        row["report"] = json.dumps({**json.loads(row["report"]), "generated_at": None})
    return {**tables, "daily_report": pa.Table.from_pylist(reports)}
