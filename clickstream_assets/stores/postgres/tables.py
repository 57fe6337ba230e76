"""The tables that are published to PostgreSQL: their names there, and which schema they carry.

The tables themselves are made by `migrations/`; a test holds the two equal.
"""

from dataclasses import dataclass

import pyarrow as pa

from clickstream_assets.catalogue import (
    CAMPAIGN_ATTRIBUTION,
    CARTS,
    CATEGORY_CONVERSION,
    COHORT_RETENTION,
    CUSTOMER_SEGMENT_DAYS,
    CUSTOMER_SEGMENTS,
    DAILY_REPORT,
    DAILY_SUMMARY,
    DOUBLE,
    FLASH_SALE_ALERTS,
    FUNNEL,
    LONG,
    MET_PRODUCTS,
    MODEL_EVALUATION,
    POPULAR_PRODUCTS,
    PRODUCT_PERFORMANCE,
    PRODUCT_RECOMMENDATIONS,
    PRODUCT_WINDOWS,
    SESSIONS,
    STRING,
    USER_SEGMENTS,
    Column,
    Table,
)


@dataclass(frozen=True)
class ServedTable:
    """A table in PostgreSQL, and the schema of the rows that are published into it.

    Attributes:
        name: Its name in PostgreSQL.
        schema: The columns and the key that rows are matched by.
        stamp: A further timestamp column that is set whenever a row is inserted or changed.
    """

    name: str
    schema: Table
    stamp: str | None = None


CLICKSTREAM_SESSIONS_TABLE = ServedTable("clickstream_sessions", SESSIONS)
USER_SEGMENTS_TABLE = ServedTable("user_segments", USER_SEGMENTS)
CARTS_TABLE = ServedTable("carts", CARTS)
CUSTOMER_SEGMENTS_TABLE = ServedTable("customer_segments", CUSTOMER_SEGMENTS)
CUSTOMER_SEGMENT_DAYS_TABLE = ServedTable("customer_segment_days", CUSTOMER_SEGMENT_DAYS)
COHORT_RETENTION_TABLE = ServedTable("cohort_retention", COHORT_RETENTION)
CAMPAIGN_ATTRIBUTION_TABLE = ServedTable("campaign_attribution", CAMPAIGN_ATTRIBUTION)
PRODUCT_PERFORMANCE_TABLE = ServedTable("product_performance", PRODUCT_PERFORMANCE)
CATEGORY_CONVERSION_TABLE = ServedTable("category_conversion", CATEGORY_CONVERSION)
DAILY_SUMMARY_TABLE = ServedTable("daily_summary", DAILY_SUMMARY, stamp="generated_at")
FUNNEL_TABLE = ServedTable("funnel", FUNNEL)
DAILY_REPORT_TABLE = ServedTable("daily_report", DAILY_REPORT)
PRODUCT_RECOMMENDATIONS_TABLE = ServedTable(
    "product_recommendations", PRODUCT_RECOMMENDATIONS, stamp="published_at"
)
PRODUCT_WINDOWS_TABLE = ServedTable("product_windows", PRODUCT_WINDOWS)
FLASH_SALE_ALERTS_TABLE = ServedTable("flash_sale_alerts", FLASH_SALE_ALERTS)
MET_PRODUCTS_TABLE = ServedTable("met_products", MET_PRODUCTS)
POPULAR_PRODUCTS_TABLE = ServedTable("popular_products", POPULAR_PRODUCTS)
MODEL_EVALUATION_TABLE = ServedTable("model_evaluation", MODEL_EVALUATION)

PUBLISHED_MODELS_TABLE = ServedTable(
    "published_models",
    Table(
        "published_models",
        "one model that was put before the shoppers",
        (
            Column("model_version", STRING, "Version of the model", nullable=False),
            Column("algorithm", STRING, "als, item_knn or popularity", nullable=False),
            Column("reason", STRING, "Why this algorithm was chosen", nullable=False),
            Column("metric_name", STRING, "The metric that the choice was made by", nullable=False),
            Column("metric", DOUBLE, "Its value for this model"),
            Column("baseline_metric", DOUBLE, "Its value for popularity, on the same split"),
            Column(
                "trained_on", STRING, "Version of the lake's table that it was trained on", nullable=False
            ),
            Column("users", LONG, "Users with recommendations", nullable=False),
            Column("rows", LONG, "Recommendations", nullable=False),
        ),
        key=("model_version",),
    ),
    stamp="published_at",
)

# A pointer of its own: a model that is served again after another one has had its row, and its stamp, since then.
SERVED_MODELS_TABLE = ServedTable(
    "served_models",
    Table(
        "served_models",
        "one kind of answer: recommendations",
        (
            Column("answers", STRING, "recommendations", nullable=False),
            Column("model_version", STRING, "The model of published_models that gives them", nullable=False),
        ),
        key=("answers",),
    ),
    stamp="served_since",
)

SERVED_TABLES = (
    PRODUCT_WINDOWS_TABLE,
    FLASH_SALE_ALERTS_TABLE,
    CLICKSTREAM_SESSIONS_TABLE,
    USER_SEGMENTS_TABLE,
    CARTS_TABLE,
    CUSTOMER_SEGMENTS_TABLE,
    CUSTOMER_SEGMENT_DAYS_TABLE,
    COHORT_RETENTION_TABLE,
    CAMPAIGN_ATTRIBUTION_TABLE,
    PRODUCT_PERFORMANCE_TABLE,
    CATEGORY_CONVERSION_TABLE,
    DAILY_SUMMARY_TABLE,
    FUNNEL_TABLE,
    DAILY_REPORT_TABLE,
    PRODUCT_RECOMMENDATIONS_TABLE,
    MET_PRODUCTS_TABLE,
    POPULAR_PRODUCTS_TABLE,
    MODEL_EVALUATION_TABLE,
    PUBLISHED_MODELS_TABLE,
    SERVED_MODELS_TABLE,
)


def postgres_type(arrow: pa.DataType) -> str:
    """The PostgreSQL type, as `format_type` writes it, of a column of that Arrow type.

    Raises:
        KeyError: for an Arrow type that no served table has.
    """
    if pa.types.is_decimal(arrow):
        return f"numeric({arrow.precision},{arrow.scale})"
    if pa.types.is_timestamp(arrow) and arrow.tz:
        return "timestamp with time zone"
    if pa.types.is_list(arrow):
        return f"{postgres_type(arrow.value_type)}[]"
    return {
        pa.string(): "text",
        pa.int64(): "bigint",
        pa.int32(): "integer",
        pa.float64(): "double precision",
        pa.bool_(): "boolean",
        pa.date32(): "date",
    }[arrow]
