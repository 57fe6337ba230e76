"""What the shop sells: its feed, and a table of its products."""

from clickstream_assets.catalogue import (
    PRODUCT_FEED,
    PRODUCTS,
    RAW_PRODUCTS,
    REJECTED_PRODUCTS,
    SEEN_PRODUCTS,
    WHOLE_RECORD,
)
from clickstream_assets.defs.assets import LAST, Metadata, table_asset
from clickstream_assets.defs.plots import shortened, text_list
from clickstream_assets.defs.products.update import update_products, update_seen_products
from clickstream_assets.ingest.classification import land_records
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.ingest.product_feed import products_topic, update_feed
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake

FEED_VERSION = "product_feed_version"
"""Metadata of `products`: the version of `product_feed` that it was made from."""
PRODUCTS_VERSION = "products_version"
"""Metadata of `published_products`: the version of `products` that PostgreSQL has."""
SAMPLES_SHOWN = 10
SHOWN_CHARACTERS = 60


@table_asset(PRODUCT_FEED, RAW_PRODUCTS, REJECTED_PRODUCTS, deps=[])
def product_feed(settings: Settings, lake: Lake) -> Metadata:
    """One row per product that a feed names, as it said last: a file, or the topic KAFKA_PRODUCTS_TOPIC.

    Records of the topic are in `raw_products` once, by partition and offset, and are taken in once; one without a
    value withdraws the product of its key. What says nothing of a product is in `rejected_products`.
    """
    records = 0
    if topic := products_topic(settings):
        records = land_records(lake, topic, settings, RAW_PRODUCTS).records
    rejected = update_feed(lake, ValidationRules.of(settings))
    newest = lake.rows(REJECTED_PRODUCTS).sort_by([("batch", "descending"), ("offset", "descending")])
    samples = text_list(
        f"{row['rule']} {row['field'] or WHOLE_RECORD}: {shortened(row['rejected_value'] or '-', SHOWN_CHARACTERS)} "
        f"(partition {row['partition']}, offset {row['offset']})"
        for row in newest.slice(0, SAMPLES_SHOWN).to_pylist()
    )
    return {
        "records": records,
        "rejected_records": rejected,
        "all_rejected_records": newest.num_rows,
        "samples": samples,
    }


@table_asset(PRODUCTS, SEEN_PRODUCTS, deps=["events", "exchange_rates", "product_feed"], op_tags=LAST)
def products(lake: Lake) -> Metadata:
    """One row per product: name, category, brand, price, picture, page, and whether it can be bought.

    What the feed says, field by field; of the rest what an event said last, refunds' prices aside. `seen_products` has
    what events say and when they said it, and takes in each ingest batch once.
    """
    batch = update_seen_products(lake)
    feed = lake.snapshot(PRODUCT_FEED)
    is_changed = update_products(lake, feed.version)
    return {
        "batch": batch,
        FEED_VERSION: feed.version,
        "changed": is_changed,
        "seen_products": lake.snapshot(SEEN_PRODUCTS).rows,
        "products_of_feed": feed.rows,
    }
