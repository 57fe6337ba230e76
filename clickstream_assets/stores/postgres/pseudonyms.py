"""Pseudonyms in place of the ids that senders name visitors by: a random one for each id, where PSEUDONYMS is set.

The table has both, and nothing else leads from one to the other: no key, and no hash. Whoever's rows are deleted is
nobody from then on, and gets other pseudonyms if they come back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from clickstream_assets.catalogue.who import kind_and_id, person_of
from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import connect, explained

SESSION_DAYS = 30
"""Days after which a session's id is forgotten: no visit lasts as long, and each brings one."""
# Ids in a statement.
_AT_ONCE = 20_000

_KNOWN = "SELECT id, pseudonym FROM pseudonyms WHERE kind = %s AND id = ANY(%s)"
# In order, so that two who make the same ones at once wait for each other, and not both.
_MAKE = (
    "INSERT INTO pseudonyms (kind, id, pseudonym) "
    "SELECT %s, id, replace(gen_random_uuid()::text, '-', '') FROM unnest(%s::text[]) AS new (id) ORDER BY id "
    "ON CONFLICT DO NOTHING RETURNING id, pseudonym"
)


def pseudonyms_of(settings: Settings, kind: str, ids: Collection[str]) -> dict[str, str]:
    """Return the pseudonym of each id, the same whoever asks first, and makes those that are missing.

    Args:
        settings: say where the database is.
        kind: what the ids are, one of `who.ID_KINDS`.
        ids: as senders have them.

    Raises:
        PostgresError: the database cannot be reached, or does not carry it out.
    """
    found: dict[str, str] = {}
    if not ids:
        return found
    # Each statement is a transaction: nobody waits for the others of a large batch.
    with explained(settings), connect(settings, autocommit=True) as connection:
        for some in _chunks(sorted(set(ids))):
            missing = some
            # What another makes meanwhile is not returned, and can be read after that; or is forgotten by then.
            while missing:
                found |= connection.execute(_KNOWN, [kind, missing]).fetchall()
                if missing := [each for each in missing if each not in found]:
                    found |= connection.execute(_MAKE, [kind, missing]).fetchall()
                    missing = [each for each in missing if each not in found]
    return found


def kept_persons(settings: Settings, persons: Iterable[str]) -> list[str]:
    """Return persons as the tables name them; one of whom no id is known is taken for a pseudonym.

    Args:
        settings: say where the database is, and whether there are pseudonyms.
        persons: user ids, `anonymous:` or `session:` and an id, or the same with pseudonyms.

    Raises:
        PostgresError: the database cannot be reached.
    """
    named = list(persons)
    if not settings.pseudonyms:
        return named
    known: dict[tuple[str, str], str] = {}
    by_kind: dict[str, list[str]] = {}
    for kind, sent_id in map(kind_and_id, named):
        by_kind.setdefault(kind, []).append(sent_id)
    with explained(settings), connect(settings) as connection:
        for kind, ids in by_kind.items():
            known |= {(kind, sent_id): kept for sent_id, kept in connection.execute(_KNOWN, [kind, ids])}
    return [
        person_of(kind, known[kind, sent_id]) if (kind, sent_id) in known else person
        for person, (kind, sent_id) in zip(named, map(kind_and_id, named), strict=True)
    ]


def rows(settings: Settings, pseudonyms: Collection[str]) -> list[dict[str, Any]]:
    """Return the rows of some pseudonyms: `kind`, `id` and `pseudonym`, in order of both ids.

    Raises:
        PostgresError: the database cannot be reached.
    """
    statement = "SELECT kind, id, pseudonym FROM pseudonyms WHERE pseudonym = ANY(%s) ORDER BY kind, id"
    with explained(settings), connect(settings) as connection:
        found = connection.execute(statement, [sorted(pseudonyms)]).fetchall()
    return [dict(zip(("kind", "id", "pseudonym"), row, strict=True)) for row in found]


def forget(settings: Settings, pseudonyms: Collection[str]) -> int:
    """Delete the rows of some pseudonyms; can be repeated.

    Returns:
        How many there were.

    Raises:
        PostgresError: the database cannot be reached, or does not carry it out.
    """
    with explained(settings), connect(settings) as connection:
        return sum(
            connection.execute("DELETE FROM pseudonyms WHERE pseudonym = ANY(%s)", [some]).rowcount
            for some in _chunks(sorted(set(pseudonyms)))
        )


def forget_old_sessions(settings: Settings) -> int:
    """Delete the rows of sessions' ids that are older than SESSION_DAYS; can be repeated.

    Returns:
        How many there were.

    Raises:
        PostgresError: the database cannot be reached, or does not carry it out.
    """
    # An order line of a session that has no other id is told from a repetition by it.
    days = max(SESSION_DAYS, settings.event_id_days + 1)
    statement = "DELETE FROM pseudonyms WHERE kind = 'session' AND made_on < current_date - %s::int"
    with explained(settings), connect(settings) as connection:
        return connection.execute(statement, [days]).rowcount


def _chunks(ids: list[str]) -> Iterator[list[str]]:
    return (ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE))
