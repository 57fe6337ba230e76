"""The publication of predictions, for the API."""

from __future__ import annotations

from dataclasses import asdict

from clickstream_assets.catalogue import PERSON_PREDICTIONS, PURCHASE_MODELS
from clickstream_assets.defs.assets import FRESH_DAILY, Metadata, table_asset
from clickstream_assets.defs.put_back import STAMP
from clickstream_assets.defs.resources import PostgresResource
from clickstream_assets.stores.lake import Lake


@table_asset(
    *(PERSON_PREDICTIONS, PURCHASE_MODELS),
    deps=["person_predictions", "purchase_models"],
    kinds={"postgres"},
    freshness_policy=FRESH_DAILY,
)
def published_predictions(lake: Lake, postgres: PostgresResource) -> Metadata:
    """PostgreSQL's `person_predictions` and `purchase_models`, equal to the lake's; what stayed is not written."""
    persons, models = (
        lake.batches(table, lake.read(table)) for table in (PERSON_PREDICTIONS, PURCHASE_MODELS)
    )
    with postgres.publication() as publication:
        changes = asdict(publication.publish(PERSON_PREDICTIONS, persons))
        publication.publish(PURCHASE_MODELS, models)
        stamp = publication.renew_stamp("published_predictions")
    return {STAMP: stamp, "changes": changes, "dagster/row_count": changes["rows"]}
