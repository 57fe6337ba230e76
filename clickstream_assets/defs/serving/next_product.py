"""The publication of the model of the next product, for the API."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from clickstream_assets.catalogue import NEXT_PRODUCT_MODELS, NEXT_PRODUCT_PARTS, SERVED_MODELS
from clickstream_assets.defs.assets import FRESH_DAILY, Metadata, table_asset
from clickstream_assets.defs.put_back import STAMP
from clickstream_assets.defs.resources import PostgresResource
from clickstream_assets.defs.serving.served import serve, served_row
from clickstream_assets.recommender.gate import is_surely_higher
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres.publishing import Publication, Scope

KEPT = 5
"""Models that PostgreSQL has, the newest, so that an earlier one can be served again: those of the last five days where
one is trained a day. Each takes some megabytes.
"""


@table_asset(
    *(NEXT_PRODUCT_MODELS, NEXT_PRODUCT_PARTS),
    deps=["next_product_models"],
    kinds={"postgres"},
    freshness_policy=FRESH_DAILY,
)
def published_next_product(lake: Lake, postgres: PostgresResource) -> Metadata:
    """The newest model of the next product, for the API; and the four before it.

    It is served unless it foretells worse than popularity does: then none is, and the API answers from lists alone. A
    model that a person has put back stays until a newer one is surely better. The API sees all of a model or nothing.
    """
    engine = lake.engine
    made = engine.to_arrow(lake.read(NEXT_PRODUCT_MODELS)).to_pylist()
    parts = engine.to_arrow(lake.read(NEXT_PRODUCT_PARTS)).cast(NEXT_PRODUCT_PARTS.arrow)
    with postgres.publication() as publication:
        served, kept = publish_next_product(publication, made, parts)
        stamp = publication.renew_stamp("published_next_product")
    return {STAMP: stamp, "model_version": served or "none", "kept": kept}


def publish_next_product(
    publication: Publication, made: list[dict[str, Any]], parts: pa.Table
) -> tuple[str | None, int]:
    """Publish the newest model, and let it be served where it is good and no better one was put back.

    Args:
        publication: the transaction.
        made: NEXT_PRODUCT_MODELS row of the model; none where there was nothing to train on.
        parts: its NEXT_PRODUCT_PARTS rows.

    Returns:
        The version that is served from then on, if any, and how many are kept.
    """
    publication.hold(SERVED_MODELS)
    versions = {row["model_version"] for row in made}
    there = publication.read(NEXT_PRODUCT_MODELS).to_pylist()
    champion = _put_back(publication, there)
    # A model of the same content keeps the row of its first time.
    known = {row["model_version"] for row in there}
    kept = [*there, *(row for row in made if row["model_version"] not in known)]
    needed = versions | {champion["model_version"]} if champion else versions
    kept.sort(key=lambda row: (row["model_version"] in needed, row["trained_at"]), reverse=True)
    kept, dropped = kept[:KEPT], kept[KEPT:]
    for version in versions:
        publication.publish(NEXT_PRODUCT_PARTS, parts, Scope("model_version", version))
    for row in dropped:
        nothing = NEXT_PRODUCT_PARTS.arrow.empty_table()
        publication.publish(NEXT_PRODUCT_PARTS, nothing, Scope("model_version", row["model_version"]))
    publication.publish(NEXT_PRODUCT_MODELS, pa.Table.from_pylist(kept, schema=NEXT_PRODUCT_MODELS.arrow))
    good = [row for row in made if _is_good(row) and (champion is None or _is_better(row, champion))]
    if champion and not good:
        return champion["model_version"], len(kept)
    served = good[0]["model_version"] if good else None
    serve(publication, "next_product", served)
    return served, len(kept)


def _is_good(row: dict[str, Any]) -> bool:
    """Return whether a model foretells as well as popularity, or better; true where there was nothing to judge by."""
    return not row["targets"] or row["hit_rate"] >= row["popular_hit_rate"]


def _put_back(publication: Publication, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the model that is served because a person put it back; None if a training put it there."""
    served = served_row(publication, "next_product")
    if served is None or served["put_back_at"] is None:
        return None
    return next((row for row in rows if row["model_version"] == served["model_version"]), None)


def _is_better(row: dict[str, Any], champion: dict[str, Any]) -> bool:
    """Return whether a model's hit rate is surely higher than the champion's was; each is of a later time than it."""
    if not row["targets"] or not champion["targets"]:
        return False
    return is_surely_higher(row["hit_rate"], row["targets"], champion["hit_rate"], champion["targets"])
