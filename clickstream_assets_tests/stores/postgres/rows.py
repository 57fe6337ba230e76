"""Rows to publish, as Arrow tables of the served schemas."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from clickstream_assets.catalogue import (
    BOOL,
    LONG,
    MET_PRODUCTS,
    MONEY_SUM,
    POPULAR_PRODUCTS,
    PRODUCT_RECOMMENDATIONS,
    SESSIONS,
    STRING,
    USER_SEGMENTS,
    Table,
)

DAY = date(2024, 5, 31)


def table(schema: Table, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as an Arrow table of the schema; columns that a row does not name are null."""
    return pa.Table.from_pylist(rows, schema=schema.arrow)


def row_of(schema: Table, **given: Any) -> dict[str, Any]:
    """A row of a table: of each column the given value, or one that it may have."""
    examples = {BOOL: False, LONG: 0, MONEY_SUM: Decimal(0)}
    row: dict[str, Any] = {}
    for column in schema.columns:
        text = column.name if column.type == STRING else None
        row[column.name] = column.values[0] if column.values else examples.get(column.type, text)
    return row | given


def session(session_id: str, **changes: Any) -> dict[str, Any]:
    """One session of a person, on `DAY` unless said otherwise."""
    day = changes.get("session_date", DAY)
    start = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    person = {
        "session_id": session_id,
        "session_date": day,
        "user_id": "u1",
        "start_time": start,
        "end_time": start + timedelta(seconds=90),
        "duration_seconds": 90,
        "total_events": 3,
        "views": 2,
        "purchases": 1,
        "distinct_products": 2,
        "entry_product_id": "p1",
        "exit_product_id": "p2",
        "revenue": Decimal("19.9900"),
        "bot_reason": None,
        "furthest_step": "purchase",
        "campaign": None,
    }
    return row_of(SESSIONS, **person | changes)


def sessions(*rows: dict[str, Any]) -> pa.Table:
    """Sessions as Arrow."""
    return table(SESSIONS, list(rows))


def segments(**segment_by_user: str) -> pa.Table:
    """Segments of `DAY` as Arrow."""
    return table(
        USER_SEGMENTS,
        [
            row_of(USER_SEGMENTS, report_date=DAY, user_id=user, segment=segment, events=1, views=1)
            for user, segment in segment_by_user.items()
        ],
    )


def recommendations(users: list[str], products: list[str], model_version: str = "m1") -> pa.Table:
    """Every product to every user, best first, as Arrow."""
    return table(
        PRODUCT_RECOMMENDATIONS,
        [
            {
                "user_id": user,
                "product_id": product,
                "rank": rank,
                "confidence_score": 1 / rank,
                "algorithm": "als",
                "reason": f"Because you looked at {product}",
                "reason_product_id": product,
                "model_version": model_version,
            }
            for user in users
            for rank, product in enumerate(products, start=1)
        ],
    )


def met(**products_by_user: list[str]) -> pa.Table:
    """Products that users have met, as Arrow."""
    rows = [{"user_id": user, "product_ids": products} for user, products in products_by_user.items()]
    return table(MET_PRODUCTS, rows)


def popular(products: list[str]) -> pa.Table:
    """Popular products, best first, as Arrow."""
    return table(
        POPULAR_PRODUCTS,
        [
            {
                "rank": rank,
                "product_id": product,
                "score": 100.0 / rank,
                "users": 5,
                "recent_users": 5,
                "purchases": 1,
                "trend": float(rank),
                "trending_rank": len(products) + 1 - rank,
                "repeat_rate": 0.2,
            }
            for rank, product in enumerate(products, start=1)
        ],
    )
