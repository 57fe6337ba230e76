"""What the shop sells: what its events say of products, what a feed says, and both in one table."""

from clickstream_assets.catalogue.table import (
    BOOL,
    MONEY,
    STRING,
    TIMESTAMP,
    Column,
    Index,
    Served,
    Table,
)

_PRODUCT = Column("product_id", STRING, "The product")
_WORDS = (
    Column("name", STRING, "Its name", nullable=True, sort=True),
    Column(
        "category",
        STRING,
        "Its category, or the path to it with dots between, from the widest to the narrowest",
        nullable=True,
        filter=True,
    ),
    Column("brand", STRING, "Its brand", nullable=True, filter=True),
)
_ADDRESSES = (
    Column("image", STRING, "Address of a picture, http or https", nullable=True),
    Column("link", STRING, "Address of its page, http or https", nullable=True),
)
_AVAILABLE = Column(
    "available", BOOL, "Whether it can be bought; null where no feed says so", nullable=True, filter=True
)

CATEGORY_ID = "category_id"
"""Property of an event that says which category its product is of, where categories have no names."""

PRODUCT_TEXTS = tuple(column.name for column in (*_WORDS, *_ADDRESSES))
"""Columns of texts that events and feeds name."""


def _latest(column: Column) -> tuple[Column, Column]:
    """Return a column of what an event said last, and that of when it did."""
    about = f"Time of the last event that says its {column.name}"
    at = Column(f"{column.name}_at", TIMESTAMP, about, nullable=True)
    return column, at


_CATEGORY_ID = Column(
    CATEGORY_ID, STRING, "Id of its category, where an event has one among its properties", nullable=True
)
_SEEN_PRICE = Column("price", MONEY, "Unit price as sent, refunds aside", nullable=True)

SEEN_PRODUCTS = Table(
    "seen_products",
    "one product that an event of a person names, with the last that events say of it",
    (
        _PRODUCT,
        *(each for column in (*_WORDS, *_ADDRESSES) for each in _latest(column)),
        *_latest(_CATEGORY_ID),
        *_latest(_SEEN_PRICE),
        Column("currency", STRING, "Currency of price, ISO 4217; null where none was sent", nullable=True),
    ),
    key=("product_id",),
)

PRODUCT_FEED = Table(
    "product_feed",
    "one product that a feed names, as it said last",
    (
        _PRODUCT,
        *_WORDS,
        Column("price", MONEY, "Unit price in currency", nullable=True),
        Column("currency", STRING, "ISO 4217 code; null is the shop's", nullable=True),
        *_ADDRESSES,
        _AVAILABLE,
        Column("withdrawn", BOOL, "Whether it was taken off since"),
    ),
    key=("product_id",),
)

PRODUCTS = Table(
    "products",
    "one product that the shop sells or sold",
    (
        _PRODUCT,
        *_WORDS,
        Column("price", MONEY, "Unit price in currency", nullable=True, sort=True),
        Column(
            "currency",
            STRING,
            "ISO 4217 code: the shop's, unless a feed says another or there is no exchange rate; null where none is "
            "known",
            nullable=True,
        ),
        *_ADDRESSES,
        _AVAILABLE,
    ),
    key=("product_id",),
    served=Served(indexes=(Index(("category",)),)),
)
