"""The sensor that brings products up to date with the feed: with files that were taken in, and the topic."""

from __future__ import annotations

import math
import time

import dagster as dg

from clickstream_assets.catalogue import PRODUCT_FEED, PRODUCTS, RAW_PRODUCTS
from clickstream_assets.defs.jobs import WAITING_RECORDS, catalogue, refresh
from clickstream_assets.defs.products.assets import FEED_VERSION, PRODUCTS_VERSION
from clickstream_assets.defs.resources import LakeResource
from clickstream_assets.defs.runs import metadata_value, under_way, wait_after_failures
from clickstream_assets.ingest.classification import landed
from clickstream_assets.ingest.product_feed import products_topic
from clickstream_assets.settings import load_settings
from clickstream_assets.stores.kafka.consumer import TopicNotFoundError
from clickstream_assets.stores.kafka.topic import waiting_offsets
from clickstream_assets.stores.lake import Lake


@dg.sensor(
    job=catalogue,
    minimum_interval_seconds=math.ceil(load_settings().sensor_interval_seconds),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts a run of catalogue when a feed says of products what is not among them yet.",
)
def new_products(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SensorResult:
    """Compare the feed in the lake with what `products` was made from, and the topic with the feed.

    Keeps no cursor: the lake says what was taken in, and a request too many finds nothing to do.
    """
    for job in (catalogue, refresh):
        if run_id := under_way(context.instance, job.name):
            return dg.SensorResult(skip_reason=f"run {run_id} is under way")
    if wait := wait_after_failures(context.instance, catalogue.name, time.time()):
        return dg.SensorResult(skip_reason=f"the last run failed; trying again in {wait:.0f} s")
    there = lake.get()
    made, published = (
        context.instance.get_latest_materialization_event(dg.AssetKey(name))
        for name in (PRODUCTS.name, "published_products")
    )
    # A table that nothing was written to has no product; where it was never made, its version is -1.
    is_new = max(0, there.version(PRODUCT_FEED)) != (metadata_value(made, FEED_VERSION) or 0)
    if made and there.version(PRODUCTS) != metadata_value(published, PRODUCTS_VERSION):
        # A run was killed, or PostgreSQL away, before they were published.
        is_new = True
    try:
        waiting = _waiting(there)
    except TopicNotFoundError as error:
        if not is_new:
            return dg.SensorResult(skip_reason=str(error))
        waiting = 0
    if not is_new and not waiting:
        return dg.SensorResult(skip_reason="the products are as the feed has them")
    return dg.SensorResult(run_requests=[dg.RunRequest(tags={WAITING_RECORDS: str(waiting)})])


def _waiting(lake: Lake) -> int:
    """Return how many offsets the topic has that the lake has not."""
    settings = load_settings()
    topic = products_topic(settings)
    if topic is None:
        return 0
    available = topic.offsets()
    return waiting_offsets(landed(lake, available, RAW_PRODUCTS), available, settings.allow_data_loss)
