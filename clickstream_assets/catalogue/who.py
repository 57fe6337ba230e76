"""Tables of who is who: which ids are one person."""

from clickstream_assets.catalogue.table import (
    BOOL,
    DATE,
    LONG,
    STRING,
    TIMESTAMP,
    Column,
    Index,
    Served,
    Table,
)

VISITOR, SESSION_ONLY, NAMED = "anonymous:", "session:", "user:"
"""Beginnings of persons' ids: of a visitor without a name, of one with a session id alone, and of a user whose own id
begins with one of the three.
"""
PERSON = "The person: the sender's user id; of who has none, anonymous: or session: and that id"


PERSON_COLUMNS = ("user_id", "unit")
"""Columns that name a person, in the tables that are made of events; in those before, `user_id` is the sender's."""


ID_KINDS = {"user_id": "user", "anonymous_id": "anonymous", "session_id": "session"}
"""By the columns of events that name their visitor, what kind of id each has."""


def person_of_user(user_id: str) -> str:
    """Return the person of a sender's user id: the id itself, unless it could be taken for a visitor's."""
    return NAMED + user_id if user_id.startswith((VISITOR, SESSION_ONLY, NAMED)) else user_id


def person_of_visitor(anonymous_id: str) -> str:
    """Return the person of an anonymous id that is tied to nobody."""
    return VISITOR + anonymous_id


def user_of_person(person: str) -> str | None:
    """Return the sender's user id of a person; None of a visitor's, who has none."""
    if person.startswith((VISITOR, SESSION_ONLY)):
        return None
    return person.removeprefix(NAMED)


def kind_and_id(person: str) -> tuple[str, str]:
    """Return the kind of the sender's id that a person is named by, one of ID_KINDS, and the id."""
    for beginning, kind in ((VISITOR, "anonymous"), (SESSION_ONLY, "session")):
        if person.startswith(beginning):
            return kind, person.removeprefix(beginning)
    return "user", person.removeprefix(NAMED)


def person_of(kind: str, sent_id: str) -> str:
    """Return the person whom a sender's id of a kind names."""
    if kind == "user":
        return person_of_user(sent_id)
    return (VISITOR if kind == "anonymous" else SESSION_ONLY) + sent_id


IDENTITY_TIES = Table(
    "identity_ties",
    "one anonymous id on one day, from a moment on at which it came with another user id than before on that day",
    (
        Column("tie_date", DATE, "Day of tied_at"),
        Column("anonymous_id", STRING, "The sender's id of a visitor or device"),
        Column("user_id", STRING, "The sender's user id that it came with"),
        Column("tied_at", TIMESTAMP, "Time of the event that had both ids"),
        Column("event_id", STRING, "That event"),
    ),
    key=("event_id", "tie_date"),
    partition_by=("tie_date",),
)

IDENTITY_CHANGES = Table(
    "identity_changes",
    "one time in which events of an anonymous id without a user id have another person since an ingest batch",
    (
        Column("batch", LONG, "Number of the ingest batch that changed it"),
        Column("anonymous_id", STRING, "The sender's id of a visitor or device"),
        Column("since", TIMESTAMP, "From when on"),
        Column("until", TIMESTAMP, "Until when, not included; null is without end", nullable=True),
        Column("user_before", STRING, "User that it was tied to then; null is none", nullable=True),
        Column("user_after", STRING, "User that it is tied to now; null is none", nullable=True),
    ),
    key=("batch", "anonymous_id", "since"),
)

IDENTITIES = Table(
    "identities",
    "one anonymous id and one user that it was tied to; an id of more than IDENTITY_MAX_USERS users has none",
    (
        Column("anonymous_id", STRING, "The sender's id of a visitor or device", filter=True),
        Column("user_id", STRING, PERSON, filter=True),
        Column("first_tied_at", TIMESTAMP, "When it was first tied to this user", sort=True),
        Column("is_latest", BOOL, "Whether events of the id without a user id are this person's now"),
    ),
    key=("anonymous_id", "user_id"),
    served=Served(indexes=(Index(("user_id",)),)),
    in_lake=False,
)
