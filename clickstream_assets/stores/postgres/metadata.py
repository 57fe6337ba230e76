"""The tables in PostgreSQL as SQLAlchemy metadata, which migrations are made from.

The catalogue says the served tables. The others are declared here: the streams and the mailed report keep in them how
far they have come, and no table of the lake stands behind them.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.types import TypeEngine

from clickstream_assets.catalogue import (
    BOOL,
    DATE,
    DOUBLE,
    INT,
    LONG,
    SERVED_TABLES,
    STRING,
    TIMESTAMP,
    Column,
    Table,
)

TIME = sa.DateTime(timezone=True)
_TYPES: dict[pa.DataType, TypeEngine[Any]] = {
    STRING: sa.Text(),
    LONG: sa.BigInteger(),
    INT: sa.Integer(),
    DOUBLE: sa.Double(),
    BOOL: sa.Boolean(),
    DATE: sa.Date(),
    TIMESTAMP: TIME,
}
_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
# The names that PostgreSQL gives, said so that every version of it gives the same.
_NAMES = {
    "pk": "%(table_name)s_pkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
}


def metadata_of(tables: Iterable[Table]) -> sa.MetaData:
    """Return metadata of served tables and of those that only PostgreSQL has."""
    metadata = sa.MetaData(naming_convention=_NAMES)
    for table in tables:
        _add_served(metadata, table)
    _add_operational(metadata)
    return metadata


def sql_type(arrow: pa.DataType) -> TypeEngine[Any]:
    """Return the type in PostgreSQL of a column of that Arrow type.

    Raises:
        KeyError: for an Arrow type that no served table has.
    """
    if pa.types.is_decimal(arrow):
        return sa.Numeric(arrow.precision, arrow.scale)
    if pa.types.is_list(arrow):
        return ARRAY(sql_type(arrow.value_type))
    return _TYPES[arrow]


def _add_served(metadata: sa.MetaData, table: Table) -> None:
    served, name = table.served, table.served_name
    assert served is not None
    columns = {column.name: _column(column, zero=served.zero_defaults) for column in table.columns}
    if served.stamp:
        columns[served.stamp] = _now(served.stamp)
    columns |= {column.name: _column(column) for column in served.more}
    first = [columns.pop(column) for column in served.order]
    key: sa.Constraint = sa.PrimaryKeyConstraint(*table.key)
    if served.surrogate_key:
        first.insert(0, _id())
        key = sa.UniqueConstraint(*table.key)
    checks = [
        sa.CheckConstraint(
            sa.column(column).in_(table.by_name[column].values or ()), name=f"{name}_{column}_check"
        )
        for column in served.checked
    ]
    made = sa.Table(name, metadata, *first, *columns.values(), key, *checks)
    for index in served.indexes:
        plain = [column.removesuffix(" DESC") for column in index.columns]
        sa.Index(
            f"{name}_{index.name or plain[0]}",
            *(
                made.c[column] if column == said else made.c[column].desc()
                for column, said in zip(plain, index.columns, strict=True)
            ),
            postgresql_where=sa.text(index.where) if index.where else None,
        )


def _column(column: Column, *, zero: bool = False) -> sa.Column[Any]:
    is_number = any(check(column.type) for check in _NUMBERS)
    default = "0" if zero and is_number and not column.nullable else column.default
    return sa.Column(
        column.name,
        sql_type(column.type),
        nullable=column.nullable,
        server_default=sa.func.now() if default == "now()" else default,
    )


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True)


def _now(name: str) -> sa.Column[Any]:
    return sa.Column(name, TIME, nullable=False, server_default=sa.func.now())


def _columns(kind: Any, *names: str, **options: Any) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, **options) for name in names]


def _add_operational(metadata: sa.MetaData) -> None:
    required = partial(_columns, nullable=False)
    json = partial(required, JSONB, server_default="{}")

    # The last notification of each alert. `notified_id` stays when late events move the start of an episode, and with
    # it the alert's own id; receivers know the alert by it.
    notified = sa.Table(
        "notified_alerts",
        metadata,
        sa.Column("notified_id", sa.Text, primary_key=True),
        *required(sa.Text, "alert_id", "product_id", "kind"),
        *required(sa.BigInteger, "sequence"),
        *required(TIME, "first_window_start", "last_window_end"),
    )
    sa.Index("notified_alerts_product_id", notified.c.product_id, notified.c.last_window_end)

    # An outbox: a row per notification and sink, written with the windows that it follows from, sent afterwards.
    outbox = sa.Table(
        "alert_notifications",
        metadata,
        _id(),
        *required(sa.Text, "notified_id"),
        *required(sa.BigInteger, "sequence"),
        *required(sa.Text, "kind", "sink"),
        *json("payload"),
        _now("created_at"),
        *_columns(TIME, "delivered_at", "failed_at"),
        *required(sa.BigInteger, "attempts", server_default="0"),
        _now("next_attempt_at"),
        sa.Column("last_error", sa.Text),
        sa.CheckConstraint(
            "kind IN ('opened', 'updated', 'resolved', 'withdrawn')", name="alert_notifications_kind_check"
        ),
        sa.UniqueConstraint("notified_id", "sequence", "sink"),
    )
    sa.Index(
        "alert_notifications_pending",
        outbox.c.next_attempt_at,
        postgresql_where=sa.text("delivered_at IS NULL AND failed_at IS NULL"),
    )

    sa.Table(
        "stream_progress",
        metadata,
        sa.Column("query", sa.Text, primary_key=True),
        *required(sa.BigInteger, "generation", "base_batch_id", "batch_id"),
        *_columns(TIME, "watermark", "floor"),
        # The rules are those that the alerts were found with; other settings find them all again.
        *json("offsets", "alert_rules"),
        # When records were last read, and up to where windows were closed because none came any more.
        _now("read_at"),
        sa.Column("idle_until", TIME),
        _now("updated_at"),
    )

    # How far the stream had come with each of its batches of the last days: windows that end by a batch's watermark
    # hold what there is up to its offsets, whatever has been read since.
    sa.Table(
        "stream_batches",
        metadata,
        sa.Column("batch_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("watermark", TIME),
        *json("offsets"),
        _now("recorded_at"),
    )

    sa.Table(
        "stream_status",
        metadata,
        sa.Column("query", sa.Text, primary_key=True),
        *required(sa.Text, "owner"),
        *required(sa.BigInteger, "batch_id"),
        sa.Column("watermark", TIME),
        *required(sa.BigInteger, "rows", "dropped_late"),
        *json("lag"),
        *_columns(sa.Double, "latency_seconds", "rows_per_second"),
        sa.Column("error", sa.Text),
        # When the lag was measured and the last batch was done; and when the next report is due, where one is promised.
        *_columns(TIME, "lag_at", "batch_at", "due_at"),
        _now("updated_at"),
    )

    # What Dagster's side measures for `GET /metrics` and `GET /api/data`, replaced whole each time.
    sa.Table(
        "measurements",
        metadata,
        sa.Column("source", sa.Text, primary_key=True),
        *required(JSONB, "samples"),
        *json("state"),
        _now("measured_at"),
    )

    # Which report went to whom, so that none goes twice.
    sa.Table(
        "report_mails",
        metadata,
        sa.Column("report_date", sa.Date, primary_key=True),
        sa.Column("recipient", sa.Text, primary_key=True),
        *required(sa.Text, "message_id"),
        _now("sent_at"),
    )

    # Requests to erase persons. Whom they are about is kept until all is done, since what the lake has of them must not
    # be published meanwhile.
    sa.Table(
        "erasures",
        metadata,
        sa.Column("erasure", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("persons", ARRAY(sa.Text)),
        _now("asked_at"),
        # When their records were gone from the lake, and when all that is made of these was.
        *_columns(TIME, "erased_at", "done_at"),
        *json("receipt"),
    )

    # Where erased records were: by it they are left out where Kafka is read again.
    sa.Table(
        "erased_places",
        metadata,
        *(
            sa.Column(name, kind, primary_key=True, autoincrement=False)
            for name, kind in (
                *(("topic", sa.Text), ("partition", sa.Integer), ("offset", sa.BigInteger)),
                ("item", sa.Integer),
            )
        ),
        *required(sa.BigInteger, "erasure"),
    )

    # What stores have in place of ids, where PSEUDONYMS is set: without its row nothing leads from one to the other.
    sa.Table(
        "pseudonyms",
        metadata,
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        *required(sa.Text, "pseudonym"),
        sa.Column("made_on", sa.Date, nullable=False, server_default=sa.func.current_date()),
        sa.UniqueConstraint("pseudonym"),
    )

    # A stamp that changes with each publication of an asset: one that is not the last is of a database that was put
    # back to an earlier time.
    sa.Table(
        "publications",
        metadata,
        sa.Column("asset", sa.Text, primary_key=True),
        *required(sa.Text, "stamp"),
        _now("published_at"),
    )


METADATA = metadata_of(SERVED_TABLES)
"""All tables but Alembic's own."""
VERSION_TABLE = "clickstream_schema_version"
"""Alembic's own: the revision that the tables are at."""
