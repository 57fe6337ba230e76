"""Details of products: the last that events say of them, and what a feed says instead."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from types import ModuleType
from typing import Any

from clickstream_assets.analytics.measures import MONEY, rows_of
from clickstream_assets.analytics.money import in_shop_money
from clickstream_assets.catalogue import PRODUCT_TEXTS, PRODUCTS, SEEN_PRODUCTS
from clickstream_assets.catalogue.products import CATEGORY_ID
from clickstream_assets.engine import DataFrame, as_view, functions_of, text_in_json

NAMING_TYPES = (
    *("view", "click", "impression", "add_to_wishlist", "add_to_cart", "remove_from_cart"),
    *("begin_checkout", "purchase", "refund"),
)
"""Types of events whose properties are of their product; a custom event's may be of anything."""
# Properties by which trackers and shops name what events have no field for; the first that is given counts.
NAMES = ("product_name", "product_title", "item_name", "name")
# What some shops have in the place of a name; a longer one is a text about the product.
DESCRIPTION = "description"
MAX_DESCRIPTION_LENGTH = 100
IMAGES = ("image_url", "image_link", "image", "product_image")
LINKS = ("product_url", "product_link", "url", "link")
MAX_NAME_LENGTH = 512
MAX_ADDRESS_LENGTH = 2048
ADDRESS = r"^[Hh][Tt][Tt][Pp][Ss]?://[^\s<>\"]+$"
"""Regular expression of an address that a page may show: of http or https, and of nothing that a browser runs."""


def seen_products(events: DataFrame) -> DataFrame:
    """Return the last that events say of each product: of each column for itself, by the time of the event.

    What two events of one moment say differently is the same one every time, in whatever order they came.

    Args:
        events: EVENTS rows, of any days.

    Returns:
        SEEN_PRODUCTS rows, one per product that an event names.
    """
    F, _ = functions_of(events)
    of_products = events.where(
        F.col("product_id").isNotNull() & ~F.col("is_bot") & F.col("event_type").isin(*NAMING_TYPES)
    )
    description = text_in_json(F, "properties", DESCRIPTION)
    short = F.when(F.length(description) <= MAX_DESCRIPTION_LENGTH, description)
    name = F.trim(F.coalesce(*(text_in_json(F, "properties", name) for name in NAMES), short))
    is_name = (F.length(name).between(1, MAX_NAME_LENGTH)) & ~name.rlike(r'^(\{"|\[)')
    price_is_asked = (F.col("event_type") != "refund") & (F.col("price") >= 0)
    said = {
        "name": F.when(is_name, name),
        "category": F.col("product_category"),
        "brand": F.col("brand"),
        "image": _address(F, IMAGES),
        "link": _address(F, LINKS),
        CATEGORY_ID: text_in_json(F, "properties", CATEGORY_ID),
        "price": F.when(price_is_asked, F.col("price")),
    }
    columns = [
        column
        for field, value in said.items()
        for column in (value.alias(field), F.col("event_time").alias(f"{field}_at"))
    ]
    return latest(as_view(of_products.select("product_id", *columns, "currency")))


def latest(said: DataFrame) -> DataFrame:
    """Return the last that is said of each product: of each column for itself, by its time.

    Args:
        said: rows with the columns of SEEN_PRODUCTS, several of a product.

    Returns:
        SEEN_PRODUCTS rows.
    """
    F, _ = functions_of(said)
    fields = (*PRODUCT_TEXTS, CATEGORY_ID, "price")
    last = []
    for field in fields:
        # A null currency is the least, so that of two prices at one moment the same one is taken.
        values = [field] if field != "price" else ["price", "currency"]
        last.append(
            F.max(F.when(F.col(field).isNotNull(), F.struct(f"{field}_at", *values))).alias(f"last_{field}")
        )
    of_products = as_view(said.groupBy("product_id").agg(*last))
    computed = {
        name: F.col(f"last_{field}").getField(name) for field in fields for name in (field, f"{field}_at")
    } | {"currency": F.col("last_price").getField("currency")}
    return rows_of(SEEN_PRODUCTS, of_products, computed)


def kinds(products: DataFrame, seen: DataFrame) -> DataFrame:
    """Return what makes products alike, as models weigh it: product_id, category and brand.

    A category without a name is named by its id.

    Args:
        products: PRODUCTS rows.
        seen: SEEN_PRODUCTS rows.
    """
    F, _ = functions_of(products)
    ids = as_view(seen.select("product_id", CATEGORY_ID))
    joined = products.select("product_id", "category", "brand").join(ids, "product_id", "left")
    return joined.select("product_id", F.coalesce("category", CATEGORY_ID).alias("category"), "brand")


def products(
    seen: DataFrame, feed: DataFrame, currency: str | None = None, rates: DataFrame | None = None
) -> DataFrame:
    """Return what the shop sells: what the feed says, and where it says nothing, what events said last.

    A price is taken with its currency. What events say is converted to the shop's, by the rate of its day; without one
    it stays as it was sent.

    Args:
        seen: SEEN_PRODUCTS rows.
        feed: PRODUCT_FEED rows.
        currency: the shop's; None where none is known yet.
        rates: EXCHANGE_RATES rows; None where there are none but the shop's own.

    Returns:
        PRODUCTS rows.
    """
    F, _ = functions_of(seen)
    dated = as_view(
        seen.select(
            *("product_id", *PRODUCT_TEXTS, "price", "currency"),
            F.col("price_at").cast("date").alias("event_date"),
            F.lit(None).cast(MONEY).alias("quantity"),
        )
    )
    priced = in_shop_money(dated, currency, rates)
    is_known = F.col("price").isNotNull()
    own = as_view(
        priced.select(
            F.col("product_id").alias("seen_id"),
            *(F.col(name).alias(f"seen_{name}") for name in PRODUCT_TEXTS),
            F.coalesce("price", "sent_price").alias("seen_price"),
            F.when(is_known, F.coalesce("currency", F.lit(currency)))
            .otherwise(F.col("sent_currency"))
            .alias("seen_currency"),
        )
    )
    told = as_view(feed.select(F.col("product_id").alias("told_id"), *feed.columns[1:]))
    ids = as_view(seen.select("product_id").union(feed.select("product_id")).distinct())
    known = ids.join(own, on=F.col("product_id") == F.col("seen_id"), how="left")
    joined = as_view(as_view(known).join(told, on=F.col("product_id") == F.col("told_id"), how="left"))
    is_told = F.col("price").isNotNull()
    computed: dict[str, Any] = {
        name: F.coalesce(F.col(name), F.col(f"seen_{name}")) for name in PRODUCT_TEXTS
    }
    computed |= {
        "price": F.coalesce("price", "seen_price"),
        "currency": F.when(is_told, F.coalesce("currency", F.lit(currency))).otherwise(
            F.col("seen_currency")
        ),
        "available": F.when(F.col("withdrawn"), F.lit(False)).otherwise(F.col("available")),
    }
    return rows_of(PRODUCTS, joined, computed)


def _address(F: ModuleType, names: Sequence[str]) -> Any:
    """Column: the first of some properties that is an address."""
    found = (F.trim(text_in_json(F, "properties", name)) for name in names)
    return reduce(
        lambda before, value: F.coalesce(
            before, F.when(value.rlike(ADDRESS) & (F.length(value) <= MAX_ADDRESS_LENGTH), value)
        ),
        found,
        F.lit(None).cast("string"),
    )
