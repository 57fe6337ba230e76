"""The SQL of the API: read-only, on a connection that the caller holds."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, LiteralString

from psycopg import Connection, sql
from psycopg.rows import DictRow

from clickstream_assets.catalogue import FLASH_SALE_ALERTS, PRODUCT_WINDOWS, SERVED_TABLES, SESSIONS

SESSION_SORTS = ("total_events", "start_time", "duration_seconds", "revenue")
WINDOW_SORTS = ("window_start", "views", "add_to_carts", "purchases", "total_events", "distinct_users")


@dataclass(frozen=True)
class Page:
    """Rows of a list from `offset` on, at most `limit`, and whether there are more after them."""

    rows: list[dict[str, Any]]
    limit: int
    offset: int
    more: bool


@dataclass(frozen=True)
class Recommendations:
    """What there is to recommend to one user.

    Attributes:
        personal: product_id, confidence_score, algorithm and reason, best first.
        popular: product_id and score of products to fill up with, best first.
        known_user: Whether the user has met any product, so that what is published is made for them too.
        anything_published: Whether anything is published for anybody.
        model_version: The model that is being served.
    """

    personal: list[dict[str, Any]]
    popular: list[dict[str, Any]]
    known_user: bool
    anything_published: bool
    model_version: str | None


def recommendations(
    connection: Connection[DictRow], user_id: str, n: int, excluded: Collection[str]
) -> Recommendations:
    """Up to `n` products for a user, none of them in `excluded` or one that the user has met."""
    published = connection.execute(
        "SELECT product_id, confidence_score, algorithm, reason FROM product_recommendations "
        "WHERE user_id = %s ORDER BY rank, product_id",
        [user_id],
    ).fetchall()
    history = connection.execute(
        "SELECT product_ids FROM met_products WHERE user_id = %s", [user_id]
    ).fetchone()
    personal = [row for row in published if row["product_id"] not in excluded][:n]
    met = history["product_ids"] if history else []
    taken = [*excluded, *met, *(row["product_id"] for row in personal)]
    popular = connection.execute(
        "SELECT product_id, score FROM popular_products WHERE product_id <> ALL(%s) "
        "ORDER BY rank, product_id LIMIT %s",
        [taken, n - len(personal)],
    ).fetchall()
    return Recommendations(
        personal=personal,
        popular=popular,
        known_user=history is not None,
        anything_published=bool(published or popular) or _anything_published(connection),
        model_version=_served_model(connection),
    )


def _anything_published(connection: Connection[DictRow]) -> bool:
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM product_recommendations) OR EXISTS (SELECT FROM popular_products) "
        "AS found"
    ).fetchone()
    return row is not None and bool(row["found"])


def _served_model(connection: Connection[DictRow]) -> str | None:
    row = connection.execute(
        "SELECT model_version FROM served_models WHERE answers = 'recommendations'"
    ).fetchone()
    return row["model_version"] if row else None


@dataclass(frozen=True)
class SessionQuery:
    """Which sessions, in which order; `sort` is one of `SESSION_SORTS`, `order` is asc or desc.

    `since` and `until` are the first and the last day that sessions may have started on.
    """

    limit: int
    offset: int
    sort: str
    order: str
    include_bots: bool
    user_id: str | None = None
    session_date: date | None = None
    since: date | None = None
    until: date | None = None
    campaign: str | None = None
    furthest_step: str | None = None


def sessions(connection: Connection[DictRow], query: SessionQuery) -> Page:
    """Sessions with all their columns; equals are ordered by session id."""
    conditions = conditions_of(
        {
            "user_id = {}": query.user_id,
            "session_date = {}": query.session_date,
            "session_date >= {}": query.since,
            "session_date <= {}": query.until,
            "campaign = {}": query.campaign,
            "furthest_step = {}": query.furthest_step,
        }
    )
    if not query.include_bots:
        conditions.append(sql.SQL("NOT is_bot"))
    return page_of(
        connection,
        "clickstream_sessions",
        SESSIONS.column_names,
        conditions,
        [by(query.sort, query.order), by("session_id")],
        query.limit,
        query.offset,
    )


@dataclass(frozen=True)
class WindowQuery:
    """Which windows, in which order; `sort` is one of `WINDOW_SORTS`, `state` open or closed."""

    limit: int
    offset: int
    sort: str
    order: str
    product_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    state: str | None = None


def windows(connection: Connection[DictRow], query: WindowQuery) -> Page:
    """Windows with all their columns; equals are ordered by start, the latest first, and product id."""
    conditions = conditions_of(
        {
            "product_id = {}": query.product_id,
            "window_start >= {}": query.since,
            "window_start < {}": query.until,
            "is_final = {}": None if query.state is None else query.state == "closed",
        }
    )
    ties = [by("window_start", "desc")] if query.sort != "window_start" else []
    return page_of(
        connection,
        "product_windows",
        PRODUCT_WINDOWS.column_names,
        conditions,
        [by(query.sort, query.order), *ties, by("product_id")],
        query.limit,
        query.offset,
    )


@dataclass(frozen=True)
class AlertQuery:
    """Which alerts; `state` is open or resolved."""

    limit: int
    offset: int
    product_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    state: str | None = None


def alerts(connection: Connection[DictRow], query: AlertQuery) -> Page:
    """Alerts with all their columns, those that began last first; equals are ordered by alert id."""
    conditions = conditions_of(
        {
            "product_id = {}": query.product_id,
            "first_window_start >= {}": query.since,
            "first_window_start < {}": query.until,
            "state = {}": query.state,
        }
    )
    return page_of(
        connection,
        "flash_sale_alerts",
        [*FLASH_SALE_ALERTS.column_names, "detected_at"],
        conditions,
        [by("first_window_start", "desc"), by("alert_id")],
        query.limit,
        query.offset,
    )


def conditions_of(wanted: Mapping[LiteralString, object]) -> list[sql.Composable]:
    """The conditions that have a value, with the value in place."""
    return [
        sql.SQL(condition).format(sql.Literal(value))
        for condition, value in wanted.items()
        if value is not None
    ]


def by(column: str, order: str = "asc") -> sql.Composable:
    """A part of an order: a column, and asc or desc."""
    return sql.SQL("{} {}").format(sql.Identifier(column), sql.SQL("ASC" if order == "asc" else "DESC"))


def page_of(
    connection: Connection[DictRow],
    table: str | sql.Composable,
    columns: Iterable[str],
    conditions: Iterable[sql.Composable],
    order: Iterable[sql.Composable],
    limit: int,
    offset: int,
) -> Page:
    """Rows of a table, or of what may stand for one; `order` ends in a key, so that pages do not overlap."""
    statement = sql.SQL(
        "SELECT {columns} FROM {table} WHERE {conditions} ORDER BY {order} LIMIT {limit} OFFSET {offset}"
    ).format(
        columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
        table=sql.Identifier(table) if isinstance(table, str) else table,
        conditions=sql.SQL(" AND ").join([sql.SQL("true"), *conditions]),
        order=sql.SQL(", ").join(order),
        # One more than asked for tells whether there are more.
        limit=limit + 1,
        offset=offset,
    )
    rows = connection.execute(statement).fetchall()
    return Page(rows[:limit], limit, offset, more=len(rows) > limit)


@dataclass(frozen=True)
class StreamStatus:
    """How the streams and what they tell are doing.

    Attributes:
        streams: per query its name, lag per partition, latency_seconds, records read and dropped as late, `failing`
            as 0 or 1; and `updated` and `watermark` in seconds since 1970.
        open_alerts: How many alerts are open.
        notifications: per sink, how many are pending and how many have failed.
    """

    streams: list[dict[str, Any]]
    open_alerts: int
    notifications: list[dict[str, Any]]


def stream_status(connection: Connection[DictRow]) -> StreamStatus:
    """What the streams last reported."""
    streams = connection.execute(
        "SELECT query, lag, latency_seconds, rows, dropped_late, (error IS NOT NULL)::int AS failing, "
        "extract(epoch FROM updated_at)::float8 AS updated, extract(epoch FROM watermark)::float8 AS watermark "
        "FROM stream_status ORDER BY query"
    ).fetchall()
    alerts = connection.execute(
        "SELECT count(*) AS open FROM flash_sale_alerts WHERE state = 'open'"
    ).fetchall()
    notifications = connection.execute(
        "SELECT sink, count(*) FILTER (WHERE delivered_at IS NULL AND failed_at IS NULL) AS pending, "
        "count(failed_at) AS failed FROM alert_notifications GROUP BY sink ORDER BY sink"
    ).fetchall()
    return StreamStatus(streams=streams, open_alerts=alerts[0]["open"], notifications=notifications)


def missing_tables(connection: Connection[Any]) -> list[str]:
    """Names of the served tables that the database does not have."""
    return [
        table.served_name
        for table in SERVED_TABLES
        if connection.execute("SELECT to_regclass(%s) IS NULL", [table.served_name]).fetchone() == (True,)
    ]
