"""The SQL of the daily analytics: as `queries`, read-only on a connection that the caller holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, LiteralString

from psycopg import Connection, sql
from psycopg.rows import DictRow

from clickstream_assets.api.queries import Page, by, conditions_of, page_of
from clickstream_assets.catalogue import (
    CAMPAIGN_ATTRIBUTION,
    CARTS,
    CATEGORY_CONVERSION,
    COHORT_RETENTION,
    CUSTOMER_SEGMENTS,
    FUNNEL,
    PRODUCT_PERFORMANCE,
    USER_SEGMENTS,
    Table,
)
from clickstream_assets.catalogue.rfm import RFM_SEGMENTS

CART_SORTS = ("last_activity_at", "value", "opened_at")
PRODUCT_SORTS = (
    *("rank", "view_count", "add_to_carts", "purchases", "quantity", "revenue", "users", "buyers"),
    "conversion_rate",
)
CATEGORY_SORTS = ("conversion_rate", "views", "add_to_carts", "purchases", "revenue", "users")
SUMMARY_FIGURES = (
    *("total_events", "users", "buyer_count", "window_shopper_count", "buyer_rate", "sessions"),
    *("orders", "revenue", "average_order_value", "conversion_rate"),
)
"""What of a day's summary the list of reports shows."""

ACTIVITY_SEGMENTS = ("buyer", "window_shopper")
RFM_SEGMENT_NAMES = tuple(segment.name for segment in RFM_SEGMENTS)
CART_ABANDONER = "cart_abandoner"

USER_DAY_COLUMNS = [*USER_SEGMENTS.column_names, *CUSTOMER_SEGMENTS.column_names[2:]]
"""What is known of a user on a day: both tables' columns, their common key once."""

# A full join, because a customer has a row on days without a visit, and a visitor need not be a customer.
_USER_DAYS: LiteralString = """(
    (SELECT * FROM user_segments WHERE {condition}) AS active
    FULL JOIN (SELECT * FROM customer_segments WHERE {condition}) AS customer USING (report_date, user_id)
)"""


@dataclass(frozen=True)
class Days:
    """Days that a list is about: one, a range with both its ends, or, where all is null, the newest one."""

    day: date | None = None
    since: date | None = None
    until: date | None = None

    def conditions(self, table: str) -> list[sql.Composable]:
        """As SQL, for a table with a column report_date."""
        if self == Days():
            newest: LiteralString = "report_date = (SELECT max(report_date) FROM {})"
            return [sql.SQL(newest).format(sql.Identifier(table))]
        return [*conditions_of({"report_date = {}": self.day}), *_between(self.since, self.until)]


@dataclass(frozen=True)
class ProductHistory:
    """A product's days, and their totals; no totals where no day at all is known of it."""

    days: Page
    totals: dict[str, Any] | None


def user_segments(
    connection: Connection[DictRow],
    user_id: str,
    *,
    limit: int,
    offset: int,
    since: date | None = None,
    until: date | None = None,
) -> Page | None:
    """Days of a user with USER_DAY_COLUMNS, the newest first; None for a user of whom there is none at all."""
    condition = sql.SQL("user_id = {}").format(sql.Literal(user_id))
    if not _exists(connection, "user_segments", condition) and not _exists(
        connection, "customer_segments", condition
    ):
        return None
    return page_of(
        connection,
        sql.SQL(_USER_DAYS).format(condition=sql.SQL(" AND ").join([condition, *_between(since, until)])),
        USER_DAY_COLUMNS,
        [],
        [by("report_date", "desc")],
        limit,
        offset,
    )


def newest_segment_day(connection: Connection[DictRow]) -> date | None:
    """The newest day with segments of either kind."""
    row = connection.execute(
        "SELECT greatest((SELECT max(report_date) FROM user_segments), "
        "(SELECT max(report_date) FROM customer_segments)) AS day"
    ).fetchone()
    return row["day"] if row else None


def segment_counts(connection: Connection[DictRow], day: date | None, *, limit: int, offset: int) -> Page:
    """Users per segment of a day: report_date, kind (activity, rfm or carts), segment, users."""
    counts = sql.SQL(
        """(
        SELECT report_date, 'activity' AS kind, segment, count(*) AS users
            FROM user_segments GROUP BY report_date, segment
        UNION ALL SELECT report_date, 'rfm', rfm_segment, count(*)
            FROM customer_segments WHERE rfm_segment IS NOT NULL GROUP BY report_date, rfm_segment
        UNION ALL SELECT report_date, 'carts', {abandoner}, count(*)
            FROM customer_segments WHERE abandoned_carts > 0 GROUP BY report_date
        ) AS counts"""
    ).format(abandoner=sql.Literal(CART_ABANDONER))
    return page_of(
        connection,
        counts,
        ["report_date", "kind", "segment", "users"],
        [sql.SQL("report_date = {}").format(sql.Literal(day))],
        [by("kind"), by("users", "desc"), by("segment")],
        limit,
        offset,
    )


def segment_users(
    connection: Connection[DictRow], day: date | None, segment: str, *, limit: int, offset: int
) -> Page:
    """Users of a segment on a day with USER_DAY_COLUMNS, by user id."""
    condition: sql.Composable
    if segment in ACTIVITY_SEGMENTS:
        condition = sql.SQL("segment = {}").format(sql.Literal(segment))
    elif segment == CART_ABANDONER:
        condition = sql.SQL("abandoned_carts > 0")
    else:
        condition = sql.SQL("rfm_segment = {}").format(sql.Literal(segment))
    return page_of(
        connection,
        sql.SQL(_USER_DAYS).format(condition=sql.SQL("report_date = {}").format(sql.Literal(day))),
        USER_DAY_COLUMNS,
        [condition],
        [by("user_id")],
        limit,
        offset,
    )


def carts(
    connection: Connection[DictRow],
    *,
    limit: int,
    offset: int,
    sort: str,
    order: str,
    state: str | None = None,
    user_id: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Page:
    """Carts whose last activity is at `since` or later and before `until`; equals are ordered by cart id."""
    wanted: dict[LiteralString, object] = {
        "state = {}": state,
        "user_id = {}": user_id,
        "last_activity_at >= {}": since,
        "last_activity_at < {}": until,
    }
    return _rows(connection, CARTS, conditions_of(wanted), [by(sort, order), by("cart_id")], limit, offset)


def funnel(
    connection: Connection[DictRow],
    days: Days,
    *,
    limit: int,
    offset: int,
    dimension: str | None = None,
    value: str | None = None,
) -> Page:
    """Steps of groups in order, the newest day first."""
    return _rows(
        connection,
        FUNNEL,
        [*days.conditions("funnel"), *conditions_of({"dimension = {}": dimension, "value = {}": value})],
        [by("report_date", "desc"), by("dimension"), by("value"), by("step_number")],
        limit,
        offset,
    )


def products(
    connection: Connection[DictRow],
    days: Days,
    *,
    limit: int,
    offset: int,
    sort: str,
    order: str,
    category: str | None = None,
) -> Page:
    """Products on days; equals are ordered by day, the newest first, and product id."""
    return _rows(
        connection,
        PRODUCT_PERFORMANCE,
        [*days.conditions("product_performance"), *conditions_of({"product_category = {}": category})],
        [by(sort, order), by("report_date", "desc"), by("product_id")],
        limit,
        offset,
    )


def product(
    connection: Connection[DictRow],
    product_id: str,
    *,
    limit: int,
    offset: int,
    since: date | None = None,
    until: date | None = None,
) -> ProductHistory:
    """A product's days from `since` to `until`, the newest first, and the totals of all of these."""
    condition = sql.SQL("product_id = {}").format(sql.Literal(product_id))
    conditions = [condition, *_between(since, until)]
    days = _rows(connection, PRODUCT_PERFORMANCE, conditions, [by("report_date", "desc")], limit, offset)
    if not days.rows and not _exists(connection, "product_performance", condition):
        return ProductHistory(days, None)
    [totals] = connection.execute(
        sql.SQL(
            "SELECT count(*) AS days, coalesce(sum(view_count), 0)::bigint AS view_count, "
            "coalesce(sum(add_to_carts), 0)::bigint AS add_to_carts, "
            "coalesce(sum(purchases), 0)::bigint AS purchases, coalesce(sum(quantity), 0)::bigint AS quantity, "
            "coalesce(sum(revenue), 0) AS revenue FROM product_performance WHERE {}"
        ).format(sql.SQL(" AND ").join(conditions))
    ).fetchall()
    # In Python, which rounds half to even as the days' own rates are; PostgreSQL rounds half up.
    rate = Decimal(100 * totals["purchases"]) / totals["view_count"] if totals["view_count"] else Decimal(0)
    return ProductHistory(days, {**totals, "conversion_rate": round(rate, 2)})


def categories(
    connection: Connection[DictRow],
    days: Days,
    *,
    limit: int,
    offset: int,
    sort: str,
    order: str,
    category: str | None = None,
) -> Page:
    """Categories on days; equals are ordered by day, the newest first, and category."""
    return _rows(
        connection,
        CATEGORY_CONVERSION,
        [*days.conditions("category_conversion"), *conditions_of({"category = {}": category})],
        [by(sort, order), by("report_date", "desc"), by("category")],
        limit,
        offset,
    )


def attribution(
    connection: Connection[DictRow],
    days: Days,
    *,
    limit: int,
    offset: int,
    model: str | None = None,
    campaign: str | None = None,
) -> Page:
    """Campaigns' shares, the newest day first, by model, the highest revenue first."""
    return _rows(
        connection,
        CAMPAIGN_ATTRIBUTION,
        [
            *days.conditions("campaign_attribution"),
            *conditions_of({"model = {}": model, "campaign = {}": campaign}),
        ],
        [by("report_date", "desc"), by("model"), by("revenue", "desc"), by("campaign")],
        limit,
        offset,
    )


def cohorts(
    connection: Connection[DictRow],
    *,
    limit: int,
    offset: int,
    since: date | None = None,
    until: date | None = None,
) -> Page:
    """Weeks of the cohorts whose own week begins from `since` to `until`, the newest cohort first."""
    wanted: dict[LiteralString, object] = {"cohort_week >= {}": since, "cohort_week <= {}": until}
    return _rows(
        connection,
        COHORT_RETENTION,
        conditions_of(wanted),
        [by("cohort_week", "desc"), by("weeks_since")],
        limit,
        offset,
    )


def reports(
    connection: Connection[DictRow],
    *,
    limit: int,
    offset: int,
    since: date | None = None,
    until: date | None = None,
) -> Page:
    """Days with a report, the newest first: generated_at and SUMMARY_FIGURES, null for a day without events."""
    source = sql.SQL(
        "(SELECT report_date, report.generated_at, {figures} FROM daily_report AS report "
        "LEFT JOIN daily_summary USING (report_date)) AS reports"
    ).format(figures=sql.SQL(", ").join(map(sql.Identifier, SUMMARY_FIGURES)))
    return page_of(
        connection,
        source,
        ["report_date", "generated_at", *SUMMARY_FIGURES],
        _between(since, until),
        [by("report_date", "desc")],
        limit,
        offset,
    )


def report(connection: Connection[DictRow], day: date) -> str | None:
    """A day's report as JSON text."""
    row = connection.execute("SELECT report FROM daily_report WHERE report_date = %s", [day]).fetchone()
    return row["report"] if row else None


def report_days(connection: Connection[DictRow]) -> Mapping[str, Any]:
    """The first and the last day with a report, and how many there are."""
    [row] = connection.execute(
        "SELECT min(report_date) AS first, max(report_date) AS last, count(*) AS count FROM daily_report"
    ).fetchall()
    return row


def _rows(
    connection: Connection[DictRow],
    table: Table,
    conditions: list[sql.Composable],
    order: list[sql.Composable],
    limit: int,
    offset: int,
) -> Page:
    """Rows of a table that has the same name in PostgreSQL, with all columns of its schema."""
    return page_of(connection, table.name, table.column_names, conditions, order, limit, offset)


def _between(since: date | None, until: date | None) -> list[sql.Composable]:
    return conditions_of({"report_date >= {}": since, "report_date <= {}": until})


def _exists(connection: Connection[DictRow], table: str, condition: sql.Composable) -> bool:
    statement = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {}) AS found")
    row = connection.execute(statement.format(sql.Identifier(table), condition)).fetchone()
    return row is not None and bool(row["found"])
