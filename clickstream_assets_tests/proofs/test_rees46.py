"""Three hours of a large shop's clicks, REES46's, through the whole pipeline."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from clickstream_assets.ingest.replay import run_replay
from clickstream_assets.local.stack import Stack
from clickstream_assets.settings import Settings
from clickstream_assets_tests.conftest import DATA
from clickstream_assets_tests.proofs.recomputation import Recomputation, served_differences
from clickstream_assets_tests.proofs.shop import Tables, running_pipeline

FILE = DATA / "rees46_multicategory_20191001_train.csv.gz"
DAY = date(2019, 10, 1)
RAW = f"""
    SELECT
        NULL::VARCHAR AS event_id,
        to_json(t)::VARCHAR AS payload,
        replace(event_time, ' UTC', '+00')::TIMESTAMPTZ AS event_time,
        CASE event_type WHEN 'cart' THEN 'add_to_cart' ELSE event_type END AS event_type,
        user_id,
        user_session AS client_session_id,
        product_id,
        category_code AS product_category,
        price::DECIMAL(18, 4) AS price,
        NULL::VARCHAR AS currency,
        NULL::BIGINT AS quantity,
        NULL::VARCHAR AS order_id,
        NULL::VARCHAR AS campaign,
        NULL::VARCHAR AS user_agent,
        NULL::VARCHAR AS query,
        brand,
        NULL::VARCHAR AS product_name,
        NULL::BOOLEAN AS consent
    FROM read_csv('{FILE}', header = true, all_varchar = true, delim = ',', quote = '"') AS t
"""

pytestmark = [pytest.mark.long, pytest.mark.skipif(not FILE.exists(), reason=f"{FILE} is not there")]


def test_every_table_of_a_real_day_equals_sql_on_the_file(stack: Stack, servers: Settings, tmp_path: Path):
    with running_pipeline(stack, servers, tmp_path) as pipeline:
        assert run_replay(pipeline.settings, FILE, files=False).sent == 14_074
        pipeline.ingest()
        pipeline.refresh(str(DAY), str(DAY))
        tables = Tables.of(pipeline.settings)

    recomputation = Recomputation(RAW, DAY, DAY)
    assert recomputation.differences(tables.lake) == {}
    assert served_differences(tables) == {}
    # The shop's own sessions are finer, and it has 156 buyers.
    assert tables.lake["sessions"].num_rows == 3_642
    ((events, users, buyers, revenue),) = recomputation.query(
        "SELECT count(*), count(DISTINCT user_id), count(DISTINCT user_id) FILTER (event_type = 'purchase'), "
        "sum(amount) FILTER (event_type = 'purchase')::VARCHAR FROM persons"
    )
    assert (events, users, buyers, revenue) == (14_073, 3_633, 156, "47794.5300")
    # All that a cart can come to in three hours.
    assert set(tables.lake["carts"]["state"].to_pylist()) == {"open", "converted"}
