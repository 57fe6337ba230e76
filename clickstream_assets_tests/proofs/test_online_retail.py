"""Ten months of a gift shop's order lines, UCI's Online Retail, backfilled in one run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from typer.testing import CliRunner

from clickstream_assets.catalogue import DUPLICATE_EVENTS, RAW_EVENTS, Table
from clickstream_assets.commands.app import app
from clickstream_assets.ingest.replay import run_replay
from clickstream_assets.local.stack import Stack
from clickstream_assets.reports.text import render_text
from clickstream_assets.settings import Settings
from clickstream_assets_tests.conftest import DATA
from clickstream_assets_tests.proofs.recomputation import Recomputation, served_differences
from clickstream_assets_tests.proofs.scripts import database
from clickstream_assets_tests.proofs.shop import Tables, running_pipeline

FILE = DATA / "uci_online_retail_20101201-20110930.csv.gz"
FIRST, LAST = date(2010, 12, 1), date(2011, 9, 30)
BUSY_DAY = date(2011, 9, 15)
RAW = f"""
    SELECT
        NULL::VARCHAR AS event_id,
        to_json(t)::VARCHAR AS payload,
        (InvoiceDate || '+00')::TIMESTAMPTZ AS event_time,
        CASE WHEN Quantity::BIGINT > 0 THEN 'purchase' ELSE 'refund' END AS event_type,
        regexp_replace(CustomerID, '[.]0$', '') AS user_id,
        NULL::VARCHAR AS client_session_id,
        StockCode AS product_id,
        NULL::VARCHAR AS product_category,
        UnitPrice::DECIMAL(18, 4) AS price,
        'GBP' AS currency,
        abs(Quantity::BIGINT) AS quantity,
        InvoiceNo AS order_id,
        NULL::VARCHAR AS campaign,
        NULL::VARCHAR AS user_agent,
        NULL::BOOLEAN AS consent
    FROM read_csv('{FILE}', header = true, all_varchar = true, delim = ',', quote = '"') AS t
    WHERE CustomerID <> '' AND Quantity::BIGINT <> 0 AND UnitPrice::DECIMAL(18, 4) > 0
"""

pytestmark = [pytest.mark.long, pytest.mark.skipif(not FILE.exists(), reason=f"{FILE} is not there")]


@dataclass(frozen=True)
class Backfilled:
    """Tables that a run over all days made of the file, and its report of a day."""

    tables: Tables
    duplicates: pa.Table
    raw: pa.Table
    shown: str


@pytest.fixture(scope="module")
def backfilled(stack: Stack, servers: Settings, tmp_path_factory: pytest.TempPathFactory) -> Backfilled:
    folder = tmp_path_factory.mktemp("online_retail")
    with running_pipeline(stack, servers, folder) as pipeline:
        replayed = run_replay(pipeline.settings, FILE, files=False)
        assert (replayed.sent, replayed.sent + sum(replayed.skipped.values())) == (272_852, 370_931)
        pipeline.ingest()
        pipeline.refresh(str(FIRST), str(LAST))
        return Backfilled(
            Tables.of(pipeline.settings),
            delta_table(pipeline.settings, DUPLICATE_EVENTS),
            delta_table(pipeline.settings, RAW_EVENTS),
            CliRunner().invoke(app, ["report", str(BUSY_DAY)]).stdout,
        )


@pytest.fixture(scope="module")
def recomputation() -> Recomputation:
    return Recomputation(RAW, FIRST, LAST)


def test_every_table_of_ten_months_in_one_run_equals_sql_on_the_file(
    backfilled: Backfilled, recomputation: Recomputation
):
    assert recomputation.differences(backfilled.tables.lake) == {}
    assert served_differences(backfilled.tables) == {}


def test_the_tables_state_the_published_figures_and_what_was_left_out(backfilled: Backfilled):
    lake = database()
    for name, table in (
        ("raw_events", backfilled.raw),
        ("duplicate_events", backfilled.duplicates),
        *backfilled.tables.lake.items(),
    ):
        lake.register(name, table)
    sent = """(
        SELECT
            *,
            value::JSON->>'event_type' AS event_type,
            (value::JSON->>'price')::DECIMAL(18, 4) * (value::JSON->>'quantity')::BIGINT AS paid
        FROM (SELECT * REPLACE (decode(value) AS value) FROM raw_events)
    )"""
    assert lake.execute(
        f"SELECT event_type, count(*), sum(paid) FROM {sent} GROUP BY ALL ORDER BY ALL"
    ).fetchall() == [
        ("purchase", 266_495, Decimal("6192078.9440")),
        ("refund", 6_357, Decimal("341530.8400")),
    ]
    left_out = lake.execute(
        f"""
        SELECT sent.event_type, reason, count(*), sum(paid)
        FROM duplicate_events JOIN {sent} AS sent USING ("topic", "partition", "offset")
        GROUP BY ALL ORDER BY ALL
        """
    ).fetchall()
    # 263,705 lines of 6,178,170.394 are not the same as another in all columns; and 6,334 cancelled ones of 341,311.85.
    assert left_out == [
        ("purchase", "same_event", 2_790, Decimal("13908.5500")),
        # Of the same moment there is another, which is a line of its own: two products of one number.
        ("purchase", "same_order_line", 1, Decimal("3.9000")),
        ("refund", "same_event", 23, Decimal("218.9900")),
    ]
    kept = (263_704, Decimal("6178166.4940"))
    given_back = Decimal("341311.8500")
    for table in ("daily_summary", "sessions", "user_segments", "product_performance", "category_conversion"):
        figures = lake.execute(f"SELECT sum(purchases), sum(revenue) FROM {table}").fetchone()
        assert figures == kept, table
    for table in ("daily_summary", "product_performance", "category_conversion"):
        assert lake.execute(f"SELECT sum(refunds) FROM {table}").fetchone() == (given_back,), table
    (model_sums,) = lake.execute(
        "SELECT list(DISTINCT paid) FROM (SELECT sum(revenue) AS paid "
        "FROM campaign_attribution GROUP BY model)"
    ).fetchone()
    assert model_sums == [kept[1]]
    customers = lake.execute(
        "SELECT count(*), count(DISTINCT user_id), count(rfm_segment), sum(monetary) FROM customer_segments "
        "WHERE report_date = $1",
        [LAST],
    ).fetchone()
    # On the last day all ten months are within RFM_DAYS. 42 who have nothing but cancelled lines bought nothing.
    assert customers == (3_616, 3_616, 3_616, kept[1])


def test_the_report_of_any_day_is_there_and_the_command_shows_it(
    backfilled: Backfilled, recomputation: Recomputation
):
    served = {
        row["report_date"]: json.loads(row["report"])
        for row in backfilled.tables.served["daily_report"].to_pylist()
    }
    assert len(served) == (LAST - FIRST).days + 1 == 304
    by_day = {
        day: figures
        for day, *figures in recomputation.query(
            """
            SELECT event_date, count(*), count(DISTINCT user_id) FILTER (event_type = 'purchase'),
                count(DISTINCT order_id) FILTER (event_type = 'purchase'),
                coalesce(sum(amount) FILTER (event_type = 'purchase'), 0)::DOUBLE
            FROM events GROUP BY event_date
            """
        )
    }
    assert {
        day: [report["total_events"], report["buyers"]["count"], report["orders"], report["revenue"]]
        for day, report in served.items()
    } == {day: by_day.get(day, [0, 0, 0, 0]) for day in served}
    assert render_text(served[BUSY_DAY]) + "\n" == backfilled.shown
    assert f"{by_day[BUSY_DAY][-1]:,.2f}" in backfilled.shown


def delta_table(settings: Settings, table: Table) -> pa.Table:
    """Return a table of the lake, in whatever order."""
    return DeltaTable(f"{settings.lake}/{table.name}").to_pyarrow_table()
