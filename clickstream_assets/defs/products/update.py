"""Keeps what events say of products, batch by batch, and the table of what the shop sells."""

from __future__ import annotations

from clickstream_assets.analytics.product_details import latest, products, seen_products
from clickstream_assets.catalogue import EVENTS, EXCHANGE_RATES, PRODUCT_FEED, PRODUCTS, SEEN_PRODUCTS
from clickstream_assets.defs.differences import among, unlike
from clickstream_assets.engine import DataFrame
from clickstream_assets.ingest.classification import ROWS_AT_ONCE
from clickstream_assets.stores.exchange_rates import ShopMoney
from clickstream_assets.stores.lake import Lake


def update_seen_products(lake: Lake) -> int:
    """Take in what the events of new ingest batches say of products; each batch once.

    Of all events the last in time counts, so batches may be taken in any order: a late event changes what nothing
    later says, and nothing else. The cost is that of the new events, and of the table of products.

    Returns:
        The last batch that is taken in.
    """
    events = lake.snapshot(EVENTS)
    taken = lake.snapshot(SEEN_PRODUCTS).batch
    if taken > events.batch:
        # Events were put back to an earlier time: what is known of later ones goes.
        lake.replace_batch(SEEN_PRODUCTS, SEEN_PRODUCTS.arrow.empty_table(), 0)
        taken = 0
    engine = lake.engine
    for first, last in events.ranges_of_batches(taken + 1, events.batch, ROWS_AT_ONCE):
        new = engine.persist(seen_products(lake.read(EVENTS, events.version, batches=(first, last))))
        before = among(lake.read(SEEN_PRODUCTS), new, "product_id")
        lake.merge(SEEN_PRODUCTS, engine.to_arrow(latest(before.union(new))), last)
        engine.release(new)
    return events.batch


def update_products(lake: Lake, feed_version: int | None = None) -> bool:
    """Make `products` of what events and the feed say.

    Args:
        lake: has the tables.
        feed_version: the version of the feed (default: the newest).

    Returns:
        Whether anything is other than before; else nothing is written.
    """
    engine = lake.engine
    money = ShopMoney.of(lake)
    rates = lake.read(EXCHANGE_RATES) if money.rates else None
    made = engine.persist(
        products(lake.read(SEEN_PRODUCTS), lake.read(PRODUCT_FEED, feed_version), money.currency, rates)
    )
    before = lake.read(PRODUCTS)
    is_changed = any(_has_rows(lake, unlike(*pair)) for pair in ((made, before), (before, made)))
    if is_changed:
        lake.replace(PRODUCTS, made)
    engine.release(made)
    return is_changed


def _has_rows(lake: Lake, rows: DataFrame) -> bool:
    return bool(lake.engine.to_arrow(rows.limit(1)).num_rows)
