"""The visitor that a request is about, as the served tables and their last events know them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

from psycopg import Connection
from psycopg.rows import DictRow

from clickstream_assets.api import queries
from clickstream_assets.api.database import database
from clickstream_assets.api.moment import moment
from clickstream_assets.api.recent import Lately

_NOTHING = Lately([], [], None)


class Visitor(NamedTuple):
    """A visitor; of one who refuses to be profiled nothing is known but who they are."""

    known: queries.Known
    lately: Lately


@contextmanager
def visitor_now(
    person: str = "", anonymous_id: str | None = None
) -> Iterator[tuple[Connection[DictRow], Visitor]]:
    """Give a snapshot of the database, and the person, or the visitor of an anonymous id, as of now."""
    recent = moment().recent
    if anonymous_id is not None and (user := recent.person_of_visitor(anonymous_id)):
        # Of a moment ago: the served tables know it after the next refresh.
        person, anonymous_id = user, None
    with database().snapshot() as connection:
        known = queries.known(connection, person, anonymous_id)
        lately = recent.of_person(known.person, known.anonymous_ids)
        # What they stated in these minutes is later than what is published.
        agreed = known.may_be_profiled if lately.may_be_profiled is None else lately.may_be_profiled
        known = replace(known, may_be_profiled=agreed)
        yield connection, Visitor(known, lately) if agreed else Visitor(known.of_nobody(), _NOTHING)
