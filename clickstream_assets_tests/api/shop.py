"""The rows of a small shop, of two days unless said otherwise."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from clickstream_assets.catalogue import (
    CAMPAIGN_ATTRIBUTION,
    CARTS,
    CATEGORY_CONVERSION,
    COHORT_RETENTION,
    CUSTOMER_SEGMENTS,
    DAILY_REPORT,
    DAILY_SUMMARY,
    FLASH_SALE_ALERTS,
    FUNNEL,
    HOURLY_SUMMARY,
    IDENTITIES,
    PERSON_PREDICTIONS,
    PRODUCT_PERFORMANCE,
    PRODUCT_WINDOWS,
    PRODUCTS,
    PURCHASE_MODELS,
    RECORD_DAYS,
    REJECTED_COUNTS,
    REJECTED_SAMPLES,
    SESSIONS,
    USER_SEGMENTS,
    Table,
)
from clickstream_assets.catalogue.units import percent
from clickstream_assets.reports.document import DayRows, make_report
from clickstream_assets.stores.postgres.publishing import Publication
from clickstream_assets_tests.reports.days import DAY as REPORT_DAY
from clickstream_assets_tests.reports.days import NOW as REPORT_TIME
from clickstream_assets_tests.reports.days import report, summary
from clickstream_assets_tests.stores.postgres.rows import DAY, session, table

DAY_BEFORE = DAY - timedelta(days=1)
EMPTY_DAY = REPORT_DAY + timedelta(days=1)
NOON = datetime(DAY.year, DAY.month, DAY.day, 12, tzinfo=UTC)
STRANGE_PRODUCTS = ["a/b", "a//b", "/", "..", 'ü "🐍", x', "a\r\nb", "50%", "?x=1#y", "=1+1"]

Row = dict[str, Any]


def user_segment(day: date, user: str, segment: str) -> Row:
    bought = segment == "buyer"
    return {
        "report_date": day,
        "user_id": user,
        "segment": segment,
        "events": 3,
        "views": 2,
        "add_to_carts": 0,
        "purchases": int(bought),
        "revenue": Decimal("19.9900") if bought else Decimal(0),
    }


def customer(day: date, user: str, rfm_segment: str | None, abandoned_carts: int = 0) -> Row:
    scores = dict.fromkeys(("r_score", "f_score", "m_score"), 5) if rfm_segment else {}
    return {
        "report_date": day,
        "user_id": user,
        "rfm_segment": rfm_segment,
        "recency_days": 0 if rfm_segment else None,
        "frequency": 1 if rfm_segment else 0,
        "monetary": Decimal("19.9900") if rfm_segment else Decimal(0),
        "refunds": Decimal("5.0000") if rfm_segment else Decimal(0),
        "net_monetary": Decimal("14.9900") if rfm_segment else Decimal(0),
        **scores,
        "abandoned_carts": abandoned_carts,
        "abandoned_value": Decimal(10 * abandoned_carts),
    }


def cart(number: int, user: str, state: str, value: str) -> Row:
    """Return a cart that was opened at noon, and whose last activity is `number` hours later."""
    return {
        "cart_id": f"c{number}",
        "user_id": user,
        "state": state,
        "opened_at": NOON,
        "last_activity_at": NOON + timedelta(hours=number),
        "last_activity_date": DAY,
        "items": 2,
        "quantity": 3,
        "value": Decimal(value),
        "currency": "EUR" if number else None,
        "product_ids": ["p1", 'p"2,'],
    }


def product_day(day: date, product: str, rank: int, views: int, purchases: int = 0) -> Row:
    return {
        "report_date": day,
        "product_id": product,
        "view_count": views,
        "rank": rank,
        "product_category": "books" if product == "p1" else None,
        "add_to_carts": purchases,
        "purchases": purchases,
        "quantity": 2 * purchases,
        "revenue": purchases * Decimal("0.1000"),
        "refunds": Decimal("0.0500"),
        "net_revenue": purchases * Decimal("0.1000") - Decimal("0.0500"),
        "users": views,
        "buyers": purchases,
        "conversion_rate": round(Decimal(100 * purchases) / views, 2),
    }


def product(name: str, price: str, **more: Any) -> Row:
    return {
        **dict.fromkeys(PRODUCTS.column_names),
        "product_id": name,
        "name": f"Product {name}",
        "price": Decimal(price),
        "currency": "EUR",
        **more,
    }


def category_day(day: date, category: str, views: int, purchases: int) -> Row:
    return {
        "report_date": day,
        "category": category,
        "views": views,
        "purchases": purchases,
        "conversion_rate": round(Decimal(100 * purchases) / views, 2),
        "add_to_carts": purchases,
        "revenue": purchases * Decimal("0.1000"),
        "refunds": Decimal(0),
        "net_revenue": purchases * Decimal("0.1000"),
        "users": views,
    }


def hour_of(day: date, hour: int, events: int) -> Row:
    return {
        "report_date": day,
        "hour_start": datetime(day.year, day.month, day.day, hour, tzinfo=UTC),
        "total_events": events,
        "users": events,
        "sessions": 2,
        "converted_sessions": 1,
        "conversion_rate": Decimal(50),
        "views": events - 1,
        "add_to_carts": 0,
        "purchases": 1,
        "orders": 1,
        "revenue": Decimal("9.5000"),
        "refunds": Decimal("1.5000"),
        "net_revenue": Decimal(8),
    }


def funnel_steps(day: date, dimension: str, value: str, *users: int) -> list[Row]:
    steps = zip(("view", "add_to_cart", "purchase"), users, (None, *users), strict=False)
    return [
        {
            "report_date": day,
            "dimension": dimension,
            "value": value,
            "step": step,
            "step_number": number,
            "users": count,
            "conversion_from_previous": round(Decimal(100 * count) / before, 2) if before else None,
            "conversion_from_first": round(Decimal(100 * count) / users[0], 2),
        }
        for number, (step, count, before) in enumerate(steps, start=1)
    ]


def campaign_day(day: date, model: str, campaign: str, orders: str, revenue: str) -> Row:
    return {
        "report_date": day,
        "model": model,
        "campaign": campaign,
        "orders": Decimal(orders),
        "revenue": Decimal(revenue),
    }


def cohort_week(week: date, weeks_since: int, users: int, active: int) -> Row:
    return {
        "cohort_week": week,
        "weeks_since": weeks_since,
        "users": users,
        "active_users": active,
        "retention_rate": percent(active, users),
    }


def window(number: int, product_id: str, views: int) -> Row:
    start = NOON + timedelta(minutes=5 * number)
    return {
        "window_start": start,
        "window_end": start + timedelta(minutes=10),
        "window_date": start.date(),
        "product_id": product_id,
        "views": views,
        "add_to_carts": 0,
        "purchases": number,
        "total_events": views + number,
        "distinct_users": 1,
        "first_event_time": start,
        "last_event_time": start + timedelta(minutes=1),
        "is_final": number < 3,
        "batch_id": 1,
    }


def alert(number: int, product_id: str, state: str) -> Row:
    start = NOON + timedelta(minutes=5 * number)
    return {
        "window_start": start,
        "window_end": start + timedelta(minutes=10),
        "product_id": product_id,
        "views": 120,
        "purchases": 3,
        "alert_id": f"a{number}",
        "state": state,
        "conversion_rate": Decimal("2.50"),
        "first_window_start": start,
        "last_window_end": start + timedelta(minutes=15),
        "windows": 2,
        "is_confirmed": True,
        "resolved_at": start + timedelta(minutes=15) if state == "resolved" else None,
    }


def rejected_hour(number: int, rule: str, field: str, records: int, by: str = "ingest") -> Row:
    return {
        "hour": NOON + timedelta(hours=number),
        "rule": rule,
        "field": field,
        "rejected_by": by,
        "records": records,
        "received": 200,
        "share": round(Decimal(100 * records) / 200, 2),
    }


def record_day(day: date, outcome: str, records: int, rule: str = "", field: str = "") -> Row:
    return {"arrival_date": day, "outcome": outcome, "rule": rule, "field": field, "records": records}


def rejected_sample(day: date, number: int, rule: str, field: str, value: str | None, hour: int = 12) -> Row:
    """Return a sample of a record with this offset."""
    return {
        "arrival_date": day,
        "rule": rule,
        "field": field,
        "rejected_value": value,
        "kafka_time": datetime(day.year, day.month, day.day, hour, number, tzinfo=UTC),
        "topic": "clicks",
        "partition": number % 2,
        "offset": number,
        "item": 1,
    }


def identity(anonymous_id: str, user: str, hour: int, *, is_latest: bool) -> Row:
    return {
        "anonymous_id": anonymous_id,
        "user_id": user,
        "first_tied_at": NOON + timedelta(hours=hour),
        "is_latest": is_latest,
    }


def report_day(day: date, content: Row) -> Row:
    return {"report_date": day, "generated_at": REPORT_TIME, "report": json.dumps(content)}


ROWS: dict[Table, list[Row]] = {
    SESSIONS: [
        *(
            session(
                f"s{n:02}",
                total_events=n % 7,
                user_id=f"u{n % 3}",
                campaign="spring" if n in (2, 3) else None,
                furthest_step="view" if n == 3 else "purchase",
                client_session_ids=["x", "y"] if n == 6 else None,
            )
            for n in range(1, 15)
        ),
        session("other-day", session_date=DAY.replace(month=6, day=1), total_events=50),
        session("visit", user_id="anonymous:stranger", total_events=1),
        session("robot", is_bot=True, bot_reason="view_rate", total_events=9000),
    ],
    PRODUCT_WINDOWS: [window(n, f"p{p}", 100 * p) for n in range(5) for p in (1, 2)],
    FLASH_SALE_ALERTS: [alert(0, "p1", "resolved"), alert(1, "p2", "resolved"), alert(4, "p1", "open")],
    USER_SEGMENTS: [
        user_segment(DAY_BEFORE, "u1", "buyer"),
        user_segment(DAY_BEFORE, "u2", "window_shopper"),
        user_segment(DAY, "u1", "window_shopper"),
        user_segment(DAY, "u2", "buyer"),
        user_segment(DAY, "a/b", "window_shopper"),
    ],
    CUSTOMER_SEGMENTS: [
        customer(DAY_BEFORE, "u1", "champions"),
        customer(DAY, "u1", "champions", abandoned_carts=2),
        customer(DAY, "u2", "new_customer"),
        customer(DAY, "u3", None, abandoned_carts=1),
    ],
    CARTS: [
        cart(0, "u1", "abandoned", "5.0000"),
        cart(1, "u1", "converted", "12345678901234.5678"),
        cart(2, "u2", "open", "0.0001"),
        cart(3, "u2", "abandoned", "7.5000"),
        cart(4, "=cmd", "recovered", "7.5000"),
    ],
    PRODUCT_PERFORMANCE: [
        product_day(DAY_BEFORE, "p1", 2, 10, 1),
        product_day(DAY_BEFORE, "p2", 1, 20, 3),
        product_day(DAY, "p1", 1, 30, 2),
        product_day(DAY, "p2", 2, 20),
        *(product_day(DAY, name, rank, 1) for rank, name in enumerate(STRANGE_PRODUCTS, start=3)),
    ],
    PRODUCTS: [
        product(
            "p1", "9.9900", category="books", brand="Acme", available=True, image="https://a.example/1.png"
        ),
        product("p2", "0.5000", category="toys.wood", available=False, link="https://a.example/2"),
        # Nobody met it.
        product("p9", "12.0000", category="books", brand="Ajax"),
    ],
    CATEGORY_CONVERSION: [
        category_day(DAY_BEFORE, "books", 10, 1),
        category_day(DAY, "books", 30, 2),
        category_day(DAY, "toys", 20, 3),
        category_day(DAY, "unknown", 40, 0),
    ],
    FUNNEL: [
        *funnel_steps(DAY_BEFORE, "overall", "all", 8, 4, 1),
        *funnel_steps(DAY, "overall", "all", 10, 4, 3),
        *funnel_steps(DAY, "category", "books", 5, 2, 0),
        *funnel_steps(DAY, "segment", "buyer", 3, 3, 3),
    ],
    CAMPAIGN_ATTRIBUTION: [
        campaign_day(DAY_BEFORE, "last_touch", "spring", "1", "9.9900"),
        campaign_day(DAY, "last_touch", "spring", "1", "5.0000"),
        campaign_day(DAY, "last_touch", "(direct)", "1", "19.9900"),
        campaign_day(DAY, "linear", "spring", "0.3333", "1.6667"),
    ],
    COHORT_RETENTION: [
        *(cohort_week(date(2024, 5, 20), weeks, 10, 10 - weeks) for weeks in range(2)),
        cohort_week(date(2024, 5, 27), 0, 4, 4),
    ],
    REJECTED_COUNTS: [
        rejected_hour(0, "unknown", "event_type", 3),
        rejected_hour(1, "missing", "user_id", 2),
        rejected_hour(1, "missing", "product_id", 5),
        rejected_hour(1, "not_json", "(record)", 2),
        rejected_hour(1, "mapper_parsing_exception", "price", 1, by="elasticsearch"),
        *(
            rejected_hour(24 * (REPORT_DAY - DAY).days, *row)
            for row in (("not_json", "(record)", 1), ("not_a_number", "price", 4, "nobody"))
        ),
    ],
    RECORD_DAYS: [
        record_day(DAY_BEFORE, "event", 90),
        record_day(DAY_BEFORE, "rejected", 10, "not_json", "(record)"),
        record_day(DAY, "event", 180),
        record_day(DAY, "late", 4),
        record_day(DAY, "duplicate", 7),
        record_day(DAY, "rejected", 3, "unknown", "event_type"),
        record_day(DAY, "rejected", 5, "missing", "product_id"),
    ],
    REJECTED_SAMPLES: [
        rejected_sample(DAY_BEFORE, 1, "not_json", "(record)", None),
        rejected_sample(DAY, 2, "unknown", "event_type", "=teleport"),
        rejected_sample(DAY, 3, "unknown", "event_type", "<b>peek</b>"),
        rejected_sample(DAY, 4, "missing", "product_id", None),
    ],
    IDENTITIES: [
        identity("phone", "u1", 0, is_latest=True),
        identity("laptop", "u1", 2, is_latest=False),
        identity("laptop", "u2", 3, is_latest=True),
    ],
    PURCHASE_MODELS: [
        {
            "predicted": f"purchase_in_{what}",
            "model_version": "7-2026-02-28",
            "accepted": what != "28_days",
            "reason": "log loss",
            "last_day": date(2026, 2, 28),
        }
        for what in ("7_days", "28_days", "session")
    ],
    PERSON_PREDICTIONS: [
        {
            "user_id": "anonymous:phone",
            "probability_7_days": 0.125,
            "probability_28_days": None,
            "reasons": ["bought not long ago", "was there lately"],
        }
    ],
    DAILY_SUMMARY: [summary()],
    HOURLY_SUMMARY: [hour_of(DAY_BEFORE, 23, 5), hour_of(DAY, 9, 10), hour_of(DAY, 10, 4)],
    DAILY_REPORT: [
        report_day(REPORT_DAY, report()),
        report_day(EMPTY_DAY, make_report(EMPTY_DAY, DayRows(), {}, REPORT_TIME)),
    ],
}


def publish_rows(transaction: Publication) -> None:
    """Publish the shop's rows."""
    for served, rows in ROWS.items():
        transaction.publish(served, table(served, rows))
