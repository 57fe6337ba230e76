"""Rule of persons, event by event in plain loops, and random histories to try it on."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from clickstream_assets.analytics.identity import IdentityRules

Event = dict[str, Any]
START = datetime(2024, 5, 1, tzinfo=UTC)
RULES = IdentityRules(lookback=timedelta(days=2), max_users=3)


def person_of(event: Event, events: Iterable[Event], rules: IdentityRules = RULES) -> str:
    """Return whose an event is among all `events`, in whatever order these are."""
    if user := tied_user(event, events, rules):
        return f"user:{user}" if user.startswith(("anonymous:", "session:", "user:")) else user
    if event["anonymous_id"]:
        return f"anonymous:{event['anonymous_id']}"
    return f"session:{event['session_id']}"


def tied_user(event: Event, events: Iterable[Event], rules: IdentityRules = RULES) -> str | None:
    """Return the sender's id of the user that an event is of, if it is of one."""
    if event["user_id"] or not event["anonymous_id"]:
        return event["user_id"]
    ties = sorted(
        (other["event_time"], other["event_id"], other["user_id"])
        for other in events
        if other["user_id"] and other["anonymous_id"] == event["anonymous_id"]
    )
    if not ties or len({user for *_, user in ties}) > rules.max_users:
        return None
    before = [user for at, _, user in ties if at <= event["event_time"]]
    if before:
        return before[-1]
    first_at, _, first = ties[0]
    return first if first_at - event["event_time"] <= rules.lookback else None


def random_histories(*seeds: int, days: int = 8, size: int = 120) -> list[Event]:
    """Return events of a few devices and users: some of one user, some shared, one a crowd's; many of one moment.

    Each seed's have ids of their own. Texts are user ids and anonymous ids at once, and some look like persons' ids.
    """
    return [event for seed in seeds for event in _history(seed, days, size)]


def _history(seed: int, days: int, size: int) -> Iterator[Event]:
    source = random.Random(seed)
    users = [f"{name}{seed}" for name in ("a", "b", "c", "d", "x", "anonymous:x", "session:s", "user:a")]
    a, b, c, d, x, visitor, _, named = users
    owners: dict[str, list[str]] = {
        f"x{seed}": [a],
        f"y{seed}": [a, b],
        f"a{seed}": [b],
        f"crowd{seed}": users,
        f"shared{seed}": [c, d, x],
        f"user:a{seed}": [visitor, named],
        f"never{seed}": [],
    }
    for number in range(size):
        anonymous_id = source.choice([None, *owners])
        is_named = source.random() < (0.25 if anonymous_id else 0.7)
        # Whole hours, so that several are of the same moment and of the lookback's very end.
        moment = START + timedelta(hours=source.randrange(days * 24))
        its_users = owners[anonymous_id] if anonymous_id else users
        yield {
            "event_id": f"{source.randrange(10**6):06d}-{seed}-{number}",
            "event_time": moment,
            "event_date": moment.date(),
            "user_id": source.choice(its_users) if is_named and its_users else None,
            "anonymous_id": anonymous_id,
            "session_id": source.choice([f"s{seed}", f"t{seed}"]),
        }
