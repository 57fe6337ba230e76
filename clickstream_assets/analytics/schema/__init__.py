"""One schema per table: it makes the Delta table, the column metadata in Dagster and the checks.

A table of the lake has the name of its Dagster asset. Times are UTC, in microseconds; money is
`decimal(18, 4)` in the event's own currency; ids are text. A module per part of the graph.
"""

from clickstream_assets.analytics.schema.models import (
    INTERACTIONS,
    ITEM_FACTORS,
    MODEL_EVALUATION,
    POPULAR_PRODUCTS,
    PRODUCT_RECOMMENDATIONS,
    SIMILAR_PRODUCTS,
    USER_FACTORS,
)
from clickstream_assets.analytics.schema.raw import (
    CONFLICTING_EVENTS,
    DUPLICATE_EVENTS,
    EVENTS,
    RAW_EVENTS,
    RECORD_KEY,
    REJECTED_EVENTS,
)
from clickstream_assets.analytics.schema.shoppers import (
    SESSIONS,
    USER_SEGMENTS,
)
from clickstream_assets.analytics.schema.table import (
    BINARY,
    BOOL,
    DATE,
    DOUBLE,
    INT,
    LONG,
    MONEY,
    STRING,
    TIMESTAMP,
    VECTOR,
    Column,
    Table,
)

__all__ = [
    "BINARY",
    "BOOL",
    "CONFLICTING_EVENTS",
    "DATE",
    "DOUBLE",
    "DUPLICATE_EVENTS",
    "EVENTS",
    "INT",
    "INTERACTIONS",
    "ITEM_FACTORS",
    "LONG",
    "MODEL_EVALUATION",
    "MONEY",
    "POPULAR_PRODUCTS",
    "PRODUCT_RECOMMENDATIONS",
    "RAW_EVENTS",
    "RECORD_KEY",
    "REJECTED_EVENTS",
    "SESSIONS",
    "SIMILAR_PRODUCTS",
    "STRING",
    "TIMESTAMP",
    "USER_FACTORS",
    "USER_SEGMENTS",
    "VECTOR",
    "Column",
    "Table",
]
