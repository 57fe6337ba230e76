"""What the shop sells: a table of its products."""

from clickstream_assets.catalogue import PRODUCT_FEED, PRODUCTS, SEEN_PRODUCTS
from clickstream_assets.defs.assets import LAST, Metadata, table_asset
from clickstream_assets.defs.products.update import update_products, update_seen_products
from clickstream_assets.stores.lake import Lake


@table_asset(PRODUCTS, SEEN_PRODUCTS, PRODUCT_FEED, deps=["events", "exchange_rates"], op_tags=LAST)
def products(lake: Lake) -> Metadata:
    """One row per product: name, category, brand, price, picture, page, and whether it can be bought.

    What the feed says, field by field; of the rest what an event said last, refunds' prices aside. `seen_products` has
    what events say and when they said it, and takes in each ingest batch once; `product_feed` what the feed says,
    which `clickstream catalogue` takes in.
    """
    batch = update_seen_products(lake)
    is_changed = update_products(lake)
    return {
        "batch": batch,
        "changed": is_changed,
        "seen_products": lake.snapshot(SEEN_PRODUCTS).rows,
        "products_of_feed": lake.snapshot(PRODUCT_FEED).rows,
    }
