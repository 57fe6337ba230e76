"""Which model of the next product is served: the newest good one, or one that was put back until a better one comes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clickstream_assets.catalogue import NEXT_PRODUCT_MODELS, NEXT_PRODUCT_PARTS
from clickstream_assets.defs.serving.again import PublishedAgain, publish_again
from clickstream_assets.defs.serving.next_product import KEPT, publish_next_product
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.errors import InputError
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres.publishing import publication
from clickstream_assets_tests.databases import fresh_database, query
from clickstream_assets_tests.stores.postgres.rows import row_of, table

SERVED = "SELECT model_version, put_back_at IS NOT NULL FROM served_models WHERE answers = 'next_product'"


def model(number: int, hit_rate: float, targets: int = 5000) -> dict[str, Any]:
    return row_of(
        NEXT_PRODUCT_MODELS,
        model_version=f"v{number}",
        trained_at=datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=number),
        targets=targets,
        hit_rate=hit_rate,
        popular_hit_rate=0.2,
        new_hit_rate=None,
        other_hit_rate=None,
    )


def test_a_model_that_was_put_back_stays_until_one_is_surely_better(
    postgres: Settings, duckdb_engine: DuckDBEngine, tmp_path: Path
) -> None:
    with fresh_database(postgres) as settings:

        def train(*made: dict[str, Any]) -> tuple[str | None, int]:
            parts = [{"model_version": row["model_version"], "part": 1, "content": "x"} for row in made]
            with publication(settings) as transaction:
                return publish_next_product(transaction, list(made), table(NEXT_PRODUCT_PARTS, parts))

        lake = Lake(str(tmp_path), duckdb_engine)
        assert train(model(1, 0.40)) == ("v1", 1)
        # Without a person's word the newest is served, though it foretold less.
        assert train(model(2, 0.39)) == ("v2", 2)
        assert publish_again(settings, lake, "v1") == PublishedAgain("next_product", "v2")
        assert query(settings, SERVED) == [("v1", True)]
        # Better by chance, too little to say, worse than popularity, and no model at all.
        for made in ([model(3, 0.41)], [model(4, 0.45, targets=100)], [model(5, 0.1)], []):
            assert train(*made)[0] == "v1"
        assert train(model(6, 0.40)) == ("v1", KEPT)
        assert query(settings, SERVED) == [("v1", True)]
        # It is kept, old as it is.
        kept = query(settings, "SELECT model_version FROM next_product_parts ORDER BY model_version")
        assert kept == [("v1",), ("v3",), ("v4",), ("v5",), ("v6",)]
        with pytest.raises(
            InputError, match=r"No version 'v2' .* recommendations: none; next_product: v6, v5, "
        ):
            publish_again(settings, lake, "v2")
        assert train(model(7, 0.43)) == ("v7", KEPT)
        assert query(settings, SERVED) == [("v7", False)]
        assert train(model(8, 0.1)) == (None, KEPT)
        assert query(settings, SERVED) == []
