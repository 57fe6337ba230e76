"""Persons asked for by their own ids, where the served tables have pseudonyms; of others an id is what they have.

What is no id that is known is taken as it is: for a pseudonym, as lists and pages show them, or for nobody.
"""

from __future__ import annotations

from collections.abc import Collection

from psycopg import Connection, sql
from psycopg.rows import DictRow

from clickstream_assets.api.database import database
from clickstream_assets.catalogue import who
from clickstream_assets.settings import Settings


def kept_id(kind: str, sent_id: str) -> str | sql.Composed:
    """Return what the served tables have in place of an id of a kind, as a value or an SQL expression."""
    if not database().settings.pseudonyms:
        return sent_id
    return sql.SQL(
        "coalesce((SELECT pseudonym FROM pseudonyms WHERE kind = {kind} AND id = {id}), {id})"
    ).format(kind=sql.Literal(kind), id=sql.Literal(sent_id))


def kept_person(person: str) -> str | sql.Composed:
    """Return how the served tables name a person, as a value or an SQL expression."""
    if not database().settings.pseudonyms:
        return person
    kind, sent_id = who.kind_and_id(person)
    beginning = who.person_of(kind, "")
    return sql.SQL(
        "coalesce({beginning} || (SELECT pseudonym FROM pseudonyms WHERE kind = {kind} AND id = {id}), {person})"
    ).format(
        beginning=sql.Literal(beginning),
        kind=sql.Literal(kind),
        id=sql.Literal(sent_id),
        person=sql.Literal(person),
    )


def valued(connection: Connection[DictRow], kept: str | sql.Composed) -> str:
    """Return a value, or that of an SQL expression."""
    if isinstance(kept, str):
        return kept
    row = connection.execute(sql.SQL("SELECT {} AS kept").format(kept)).fetchone()
    assert row is not None
    return str(row["kept"])


def persons_as_sent(
    connection: Connection[DictRow], persons: Collection[str], settings: Settings | None = None
) -> dict[str, str]:
    """Return persons by the ids of their senders, by how the served tables name them.

    Args:
        connection: to PostgreSQL.
        persons: as the served tables name them.
        settings: say whether these have pseudonyms (default: the running application's).
    """
    if not (settings or database().settings).pseudonyms or not persons:
        return {person: person for person in persons}
    pseudonyms = [who.kind_and_id(person)[1] for person in persons]
    rows = connection.execute(
        "SELECT kind, id, pseudonym FROM pseudonyms WHERE pseudonym = ANY(%s)", [pseudonyms]
    ).fetchall()
    found = {who.person_of(row["kind"], row["pseudonym"]): row for row in rows}
    return {
        person: who.person_of(found[person]["kind"], found[person]["id"]) if person in found else person
        for person in persons
    }
