"""Persons who do not agree to being profiled have no row in what says what they are like, or may want.

By `profiling_refusals`: who refuses has no such row, of whatever day; who agrees again has those from that day on.
"""

from __future__ import annotations

from datetime import date

import psycopg
from psycopg import sql

from clickstream_assets.catalogue import PROFILING_REFUSALS, SERVED_TABLES, Table

_PERSON = "user_id"


def profiles() -> list[Table]:
    """Return the served tables of which a row says of a person what they are like."""
    return [table for table in SERVED_TABLES if table.served and table.served.profiles]


def without_refusers(connection: psycopg.Connection, table: Table, rows: sql.Identifier) -> int:
    """Delete rows of who does not agree from a table that has the columns of one of `profiles`; return how many."""
    of_day = (
        sql.SQL("OR theirs.{} < refusal.agreed_on").format(sql.Identifier(table.day)) if table.day else None
    )
    found = sql.SQL(
        "FROM {refusals} AS refusal WHERE refusal.{person} = theirs.{person} AND (refusal.agreed_on IS NULL {of_day})"
    ).format(
        refusals=sql.Identifier(PROFILING_REFUSALS.served_name),
        person=sql.Identifier(_PERSON),
        of_day=of_day or sql.SQL(""),
    )
    # Asked first, so that a publication of the same table under way need not be waited for.
    asked = sql.SQL("SELECT EXISTS (SELECT FROM {} AS theirs WHERE EXISTS (SELECT {}))").format(rows, found)
    if connection.execute(asked).fetchone() != (True,):
        return 0
    return connection.execute(
        sql.SQL("DELETE FROM {} AS theirs WHERE EXISTS (SELECT {})").format(rows, found)
    ).rowcount


def keep_refusals(connection: psycopg.Connection) -> None:
    """Keep what the table of refusals says, before another is published in this transaction."""
    connection.execute(
        sql.SQL(
            "CREATE TEMPORARY TABLE refusals_before ON COMMIT DROP AS SELECT user_id, agreed_on FROM {}"
        ).format(sql.Identifier(PROFILING_REFUSALS.served_name))
    )


def first_day_agreed_to(connection: psycopg.Connection) -> date | None:
    """Return the first day from which on persons agree who did not, by what `keep_refusals` has kept."""
    row = connection.execute(
        sql.SQL(
            "SELECT min(after.agreed_on) FROM {} AS after JOIN refusals_before AS before USING (user_id) "
            "WHERE after.agreed_on < coalesce(before.agreed_on, 'infinity')"
        ).format(sql.Identifier(PROFILING_REFUSALS.served_name))
    ).fetchone()
    return row[0] if row else None
