"""The products that visitors met in the last minutes, in memory, and whose these events are."""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from threading import Lock
from time import time
from typing import Any, NamedTuple, TypeVar

from clickstream_assets.catalogue.products import CATEGORY_ID
from clickstream_assets.catalogue.units import MINUTE, SECOND
from clickstream_assets.catalogue.who import SESSION_ONLY, VISITOR, person_of_user, person_of_visitor
from clickstream_assets.ingest.fields import Rejection, ValidationRules
from clickstream_assets.ingest.parsing import parse_record
from clickstream_assets.recommender.next_product import ACTS, Act, Met, recent_products
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.tail import Arrived

V = TypeVar("V")

# Of one person: those of the products that a list is made from, and again.
_EVENTS_OF_PERSON = 50


class Seen(NamedTuple):
    """A product event of a visitor.

    Attributes:
        time: When, in microseconds since 1970.
        met: What they met.
        named_category: The category of `met`; none if that is an id.
    """

    time: int
    met: Met
    named_category: str | None


class Lately(NamedTuple):
    """A person's last events.

    Attributes:
        seen: The product events, the newest first.
        met: The different products of these, the newest first.
        may_be_profiled: False if the latest consent that they stated lately is a no; None if they stated none.
    """

    seen: list[Seen]
    met: list[Met]
    may_be_profiled: bool | None

    @property
    def purchases(self) -> list[tuple[str, int]]:
        """Product and time, in microseconds since 1970, of each purchase."""
        return [(event.met.product_id, event.time) for event in self.seen if event.met.act is Act.BOUGHT]

    def session(self, gap: int) -> list[Seen]:
        """Return the events of the session that is under way, in order; none if it is over.

        Args:
            gap: inactivity that ends a session, in microseconds.
        """
        found: list[Seen] = []
        after = int(time() * SECOND)
        for event in self.seen:
            if after - event.time > gap:
                break
            found.append(event)
            after = event.time
        return found[::-1]


class Recent:
    """The newest product events: of the last RECENT_MINUTES, and RECENT_EVENTS at most.

    Records are read as ingest reads them: in any dialect, by its rules. Robots, by their user agent, and what is
    rejected are left out; a robot by its pace is not known yet. An anonymous id is the user's that it came with last;
    before that, it is who the served tables say (`queries.known`). An event that came twice counts once.
    """

    def __init__(self, settings: Settings) -> None:
        self._rules = ValidationRules.of(settings)
        self._by_topic = {topic: self._rules.of_topic(topic) for topic in settings.topics}
        self._most = settings.recent_events
        self._age = settings.recent_minutes * MINUTE
        self._max_users = settings.identity_max_users
        self._lock = Lock()
        self._events: dict[str, deque[Seen]] = {}
        self._order: deque[tuple[str, Seen]] = deque()
        # Users that an anonymous id came with, the latest last; the ids that came last, too.
        self._users: OrderedDict[str, dict[str, None]] = OrderedDict()
        self._visitors: dict[str, set[str]] = {}
        self._consents: OrderedDict[str, tuple[int, bool]] = OrderedDict()
        # Persons who asked to be erased, and when: a worker that starts reads Kafka's last minutes anew.
        self._erased: dict[str, int] = {}

    def __len__(self) -> int:
        """Return the number of events that are held."""
        return len(self._order)

    def take(self, records: Iterable[Arrived]) -> None:
        """Add what came."""
        found: list[Any] = [
            event
            for record in records
            for event in parse_record(record.value, record.kafka_time, self._by_topic[record.topic])
            if not isinstance(event, Rejection)
        ]
        with self._lock:
            for event in found:
                if not event.is_bot:
                    self._add(event)
            self._forget(int(time() * SECOND) - self._age)

    def _add(self, event: Any) -> None:
        user, visitor = event.user_id, event.anonymous_id
        if user is not None:
            key = person_of_user(user)
        elif visitor is not None:
            key = person_of_visitor(visitor)
        else:
            key = SESSION_ONLY + event.session_id
        if event.event_time <= self._erased.get(key, 0):
            return
        if user is not None and visitor is not None:
            self._tie(visitor, key)
        if event.consent is not None:
            time_before, agreed = self._consents.get(key, (event.event_time, True))
            if event.event_time > time_before or (event.event_time == time_before and agreed):
                _put(self._consents, key, (event.event_time, event.consent), self._most)
        act = ACTS.get(event.event_type)
        if act is None or event.product_id is None:
            return
        price = None if event.price is None else float(event.price)
        category = event.product_category or category_id(event.properties)
        met = Met(event.product_id, act, category=category, price=price, brand=event.brand)
        seen = Seen(event.event_time, met, event.product_category)
        own = self._events.setdefault(key, deque(maxlen=_EVENTS_OF_PERSON))
        if seen not in own:
            own.append(seen)
            self._order.append((key, seen))

    def _tie(self, visitor: str, person: str) -> None:
        users = self._users.get(visitor, {})
        for before in users:
            self._visitors.get(before, set()).discard(visitor)
        users.pop(person, None)
        users[person] = None
        dropped = _put(self._users, visitor, users, self._most)
        if dropped:
            for before in dropped[1]:
                self._visitors.get(before, set()).discard(dropped[0])
        if len(users) <= self._max_users:
            self._visitors.setdefault(person, set()).add(visitor)

    def _forget(self, since: int) -> None:
        """Forget events that are too many or too old, in the order that they came."""
        while self._order and (len(self._order) > self._most or self._order[0][1].time < since):
            key, seen = self._order.popleft()
            own = self._events.get(key)
            # Of a person with many, the oldest are gone already.
            if own and own[0] == seen:
                own.popleft()
                if not own:
                    del self._events[key]

    def erase(self, persons: Mapping[str, int]) -> None:
        """Forget what persons did up to a time, and whose their devices were.

        Args:
            persons: by each, as the served tables name them, when they asked for it, microseconds since 1970.
        """
        with self._lock:
            new = {person: asked for person, asked in persons.items() if self._erased.get(person) != asked}
            self._erased = dict(persons)
            for person, asked in new.items():
                own = self._events.pop(person, ())
                if kept := [seen for seen in own if seen.time > asked]:
                    self._events[person] = deque(kept, maxlen=_EVENTS_OF_PERSON)
                self._consents.pop(person, None)
                for visitor in self._visitors.pop(person, set()):
                    self._users.get(visitor, {}).pop(person, None)
            if new:
                self._order = deque((key, seen) for key, seen in self._order if seen.time > new.get(key, 0))

    def person_of_visitor(self, visitor: str) -> str | None:
        """Return the user that an anonymous id came with last; None if it lately came with none, or with too many."""
        with self._lock:
            users = self._users.get(visitor, {})
            return next(reversed(users)) if users and len(users) <= self._max_users else None

    def of_person(self, person: str, visitors: Iterable[str] = ()) -> Lately:
        """Return what a person did lately.

        Args:
            person: as the served tables name them.
            visitors: anonymous ids that the served tables say are theirs.
        """
        since = int(time() * SECOND) - self._age
        with self._lock:
            ids = {*visitors, *self._visitors.get(person, ())}
            # One that is somebody else's by now.
            ids = {each for each in ids if next(reversed(self._users.get(each, {person: None}))) == person}
            keys = [person, *(VISITOR + each for each in ids)]
            seen = [event for key in keys for event in self._events.get(key, ()) if event.time >= since]
            consents = [self._consents[key] for key in keys if key in self._consents]
        seen.sort(key=lambda event: event.time, reverse=True)
        met = recent_products(event.met for event in seen)
        agreed = min(consents, key=lambda consent: (-consent[0], consent[1]))[1] if consents else None
        return Lately(seen, met, agreed)


def category_id(properties: str | None) -> str | None:
    """Return the id of an event's category, where its properties, a JSON object as text, have one."""
    if properties is None or CATEGORY_ID not in properties:
        return None
    found = json.loads(properties).get(CATEGORY_ID)
    return str(found) if isinstance(found, str | int) and found != "" else None


def _put(kept: OrderedDict[str, V], key: str, value: V, most: int) -> tuple[str, V] | None:
    """Keep a value as the newest; return the oldest one, if it is one too many and was dropped."""
    kept[key] = value
    kept.move_to_end(key)
    return kept.popitem(last=False) if len(kept) > most else None
