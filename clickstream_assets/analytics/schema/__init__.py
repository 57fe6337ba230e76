"""One schema per table: it makes the Delta table, the column metadata in Dagster and the checks.

A table of the lake has the name of its Dagster asset. Times are UTC, in microseconds; money is
`decimal(18, 4)` in the event's own currency; ids are text. A module per part of the graph.
"""

from clickstream_assets.analytics.schema.models import (
    INTERACTIONS,
    ITEM_FACTORS,
    MET_PRODUCTS,
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
    LIVE_EVENTS,
    RAW_EVENTS,
    RECORD_KEY,
    REJECTED_EVENTS,
)
from clickstream_assets.analytics.schema.reports import (
    CATEGORY_CONVERSION,
    DAILY_REPORT,
    DAILY_SUMMARY,
    FUNNEL,
    PERCENT,
    PRODUCT_PERFORMANCE,
)
from clickstream_assets.analytics.schema.shoppers import (
    CAMPAIGN_ATTRIBUTION,
    CARTS,
    COHORT_RETENTION,
    CUSTOMER_SEGMENT_DAYS,
    CUSTOMER_SEGMENTS,
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
    STRINGS,
    TIMESTAMP,
    VECTOR,
    Column,
    Table,
)
from clickstream_assets.analytics.schema.windows import FLASH_SALE_ALERTS, PRODUCT_WINDOWS

__all__ = [
    "BINARY",
    "BOOL",
    "CAMPAIGN_ATTRIBUTION",
    "CARTS",
    "CATEGORY_CONVERSION",
    "COHORT_RETENTION",
    "CONFLICTING_EVENTS",
    "CUSTOMER_SEGMENTS",
    "CUSTOMER_SEGMENT_DAYS",
    "DAILY_REPORT",
    "DAILY_SUMMARY",
    "DATE",
    "DOUBLE",
    "DUPLICATE_EVENTS",
    "EVENTS",
    "FLASH_SALE_ALERTS",
    "FUNNEL",
    "INT",
    "INTERACTIONS",
    "ITEM_FACTORS",
    "LIVE_EVENTS",
    "LONG",
    "MET_PRODUCTS",
    "MODEL_EVALUATION",
    "MONEY",
    "PERCENT",
    "POPULAR_PRODUCTS",
    "PRODUCT_PERFORMANCE",
    "PRODUCT_RECOMMENDATIONS",
    "PRODUCT_WINDOWS",
    "RAW_EVENTS",
    "RECORD_KEY",
    "REJECTED_EVENTS",
    "SESSIONS",
    "SIMILAR_PRODUCTS",
    "STRING",
    "STRINGS",
    "TIMESTAMP",
    "USER_FACTORS",
    "USER_SEGMENTS",
    "VECTOR",
    "Column",
    "Table",
]
