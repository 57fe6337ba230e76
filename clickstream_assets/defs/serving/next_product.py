"""The publication of the model of the next product, for the API."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from clickstream_assets.catalogue import NEXT_PRODUCT_MODELS, NEXT_PRODUCT_PARTS, SERVED_MODELS
from clickstream_assets.defs.assets import FRESH_DAILY, Metadata, table_asset
from clickstream_assets.defs.put_back import STAMP
from clickstream_assets.defs.resources import PostgresResource
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres.publishing import Scope

_KEPT = 5
"""Models that PostgreSQL has, the newest, so that an earlier one can be served again."""


@table_asset(
    *(NEXT_PRODUCT_MODELS, NEXT_PRODUCT_PARTS),
    deps=["next_product_models"],
    kinds={"postgres"},
    freshness_policy=FRESH_DAILY,
)
def published_next_product(lake: Lake, postgres: PostgresResource) -> Metadata:
    """The newest model of the next product, for the API; and the four before it.

    It is served unless it foretells worse than popularity does: then none is, and the API answers from lists alone. The
    API sees all of a model or nothing of it.
    """
    engine = lake.engine
    made = engine.to_arrow(lake.read(NEXT_PRODUCT_MODELS)).to_pylist()
    parts = engine.to_arrow(lake.read(NEXT_PRODUCT_PARTS)).cast(NEXT_PRODUCT_PARTS.arrow)
    versions = {row["model_version"] for row in made}
    served = [row["model_version"] for row in made if _is_good(row)]
    with postgres.publication() as publication:
        there = publication.read(NEXT_PRODUCT_MODELS).to_pylist()
        # A model of the same content keeps the row of its first time.
        known = {row["model_version"] for row in there}
        kept = [*there, *(row for row in made if row["model_version"] not in known)]
        kept.sort(key=lambda row: (row["model_version"] in versions, row["trained_at"]), reverse=True)
        kept, dropped = kept[:_KEPT], kept[_KEPT:]
        for version in versions:
            publication.publish(NEXT_PRODUCT_PARTS, parts, Scope("model_version", version))
        for row in dropped:
            nothing = NEXT_PRODUCT_PARTS.arrow.empty_table()
            publication.publish(NEXT_PRODUCT_PARTS, nothing, Scope("model_version", row["model_version"]))
        publication.publish(NEXT_PRODUCT_MODELS, pa.Table.from_pylist(kept, schema=NEXT_PRODUCT_MODELS.arrow))
        rows = [{"answers": "next_product", "model_version": version} for version in served]
        publication.publish(
            SERVED_MODELS,
            pa.Table.from_pylist(rows, schema=SERVED_MODELS.arrow),
            Scope("answers", "next_product"),
        )
        stamp = publication.renew_stamp("published_next_product")
    return {STAMP: stamp, "model_version": ", ".join(served) or "none", "kept": len(kept)}


def _is_good(row: dict[str, Any]) -> bool:
    """Return whether a model foretells as well as popularity, or better; true where there was nothing to judge by."""
    return not row["targets"] or row["hit_rate"] >= row["popular_hit_rate"]
