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
from clickstream_assets.api.pseudonyms import kept_id, kept_person, persons_as_sent, valued
from clickstream_assets.api.recent import Lately
from clickstream_assets.catalogue.who import kind_and_id, person_of_visitor

_NOTHING = Lately([], [], None)


class Visitor(NamedTuple):
    """A visitor; of one who refuses to be profiled nothing is known but who they are.

    Attributes:
        known: What the served tables know of them, by pseudonyms where these have some.
        lately: What they did in the last minutes.
        person: The person, by the id that their sender has.
    """

    known: queries.Known
    lately: Lately
    person: str


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
        if anonymous_id is None:
            known = queries.known(connection, valued(connection, kept_person(person)))
        else:
            known = queries.known(connection, "", kept_id("anonymous", anonymous_id))
        # What came in the last minutes is held by the ids that it came with.
        own = [person_of_visitor(each) for each in known.anonymous_ids]
        sent = persons_as_sent(connection, [known.person, *own])
        name = sent[known.person]
        lately = recent.of_person(name, [kind_and_id(sent[each])[1] for each in own])
        # What they stated in these minutes is later than what is published.
        agreed = known.may_be_profiled if lately.may_be_profiled is None else lately.may_be_profiled
        known = replace(known, may_be_profiled=agreed)
        visitor = Visitor(known, lately, name)
        yield connection, visitor if agreed else Visitor(known.of_nobody(), _NOTHING, name)
