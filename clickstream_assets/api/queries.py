"""The SQL of the API: read-only, on a connection that the caller holds."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import DictRow

from clickstream_assets.analytics.schema import SESSIONS
from clickstream_assets.postgres.tables import SERVED_TABLES

SESSION_SORTS = ("total_events", "start_time", "duration_seconds", "revenue")


@dataclass(frozen=True)
class Recommendations:
    """What there is to recommend to one user.

    Attributes:
        personal: product_id, confidence_score, algorithm and reason, best first.
        popular: product_id and score of products to fill up with, best first.
        known_user: Whether anything is published for the user, excluded or not.
        anything_published: Whether anything is published for anybody.
        model_version: The model of the user's rows; for an unknown user, the one published last.
    """

    personal: list[dict[str, Any]]
    popular: list[dict[str, Any]]
    known_user: bool
    anything_published: bool
    model_version: str | None


def recommendations(
    connection: Connection[DictRow], user_id: str, n: int, excluded: Collection[str]
) -> Recommendations:
    """Up to `n` products for a user, none of them in `excluded`."""
    published = connection.execute(
        "SELECT product_id, confidence_score, algorithm, reason, model_version FROM product_recommendations "
        "WHERE user_id = %s ORDER BY rank, product_id",
        [user_id],
    ).fetchall()
    personal = [row for row in published if row["product_id"] not in excluded][:n]
    taken = [*excluded, *(row["product_id"] for row in personal)]
    popular = connection.execute(
        "SELECT product_id, score FROM popular_products WHERE product_id <> ALL(%s) "
        "ORDER BY rank, product_id LIMIT %s",
        [taken, n - len(personal)],
    ).fetchall()
    return Recommendations(
        personal=personal,
        popular=popular,
        known_user=bool(published),
        anything_published=bool(published or popular) or _anything_published(connection),
        model_version=published[0]["model_version"] if published else _latest_model(connection),
    )


def _anything_published(connection: Connection[DictRow]) -> bool:
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM product_recommendations) OR EXISTS (SELECT FROM popular_products) "
        "AS found"
    ).fetchone()
    return row is not None and bool(row["found"])


def _latest_model(connection: Connection[DictRow]) -> str | None:
    row = connection.execute(
        "SELECT model_version FROM published_models ORDER BY published_at DESC LIMIT 1"
    ).fetchone()
    return row["model_version"] if row else None


@dataclass(frozen=True)
class SessionQuery:
    """Which sessions, in which order; `sort` is one of `SESSION_SORTS`, `order` is asc or desc."""

    limit: int
    offset: int
    sort: str
    order: str
    include_bots: bool
    user_id: str | None = None
    session_date: date | None = None


def sessions(connection: Connection[DictRow], query: SessionQuery) -> list[dict[str, Any]]:
    """Sessions with all their columns; equals are ordered by session id."""
    conditions: list[sql.Composable] = [sql.SQL("true")]
    if not query.include_bots:
        conditions.append(sql.SQL("NOT is_bot"))
    if query.user_id is not None:
        conditions.append(sql.SQL("user_id = {}").format(query.user_id))
    if query.session_date is not None:
        conditions.append(sql.SQL("session_date = {}").format(query.session_date))
    statement = sql.SQL(
        "SELECT {columns} FROM clickstream_sessions WHERE {conditions} "
        "ORDER BY {sort} {order}, session_id LIMIT {limit} OFFSET {offset}"
    ).format(
        columns=sql.SQL(", ").join(map(sql.Identifier, SESSIONS.column_names)),
        conditions=sql.SQL(" AND ").join(conditions),
        sort=sql.Identifier(query.sort),
        order=sql.SQL("ASC" if query.order == "asc" else "DESC"),
        limit=query.limit,
        offset=query.offset,
    )
    return connection.execute(statement).fetchall()


def missing_tables(connection: Connection[Any]) -> list[str]:
    """Names of the served tables that the database does not have."""
    return [
        table.name
        for table in SERVED_TABLES
        if connection.execute("SELECT to_regclass(%s) IS NULL", [table.name]).fetchone() == (True,)
    ]
