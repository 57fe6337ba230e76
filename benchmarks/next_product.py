"""The next product, event by event, through HTTP: how often it is in the list that the API gives before the event.

    python -m benchmarks.next_product --train FILE --test FILE
    python -m benchmarks.next_product --split latest
    python -m benchmarks.next_product --split persons

The training file's events are sent to Kafka, moved in time so that the last of them is now; the jobs that the sensors
start bring them in, train on them and publish; then nothing of Dagster runs. The API is served as `clickstream api`
serves it. Before each event of the other part `GET /api/recommend/{user_id}?n=20` is asked for the visitor's list, and
then the event goes to Kafka, as a shop sends it, and the list before the next one is looked at once the API counts it:
so who the visitor is, and what they did before, is known to the API as it is in a shop, and not told it by the
benchmark. Visitors take turns, an event each.

Without `--test` a part of the file is judged: the latest fifth of its events, or all events of a fifth of its persons.
A visitor is unknown who has no event in the training part. Nothing can be known before a visitor's first event but what
is popular, so the events that come after another one of theirs are judged apart, too. `seconds_until_counted` are those
from Kafka's having an event to the first answer that counts it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import md5
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple, TypeAlias
from urllib.parse import quote

from benchmarks.growth import job
from benchmarks.load import api
from benchmarks.measure import say, servers
from clickstream_assets.ingest.files import EventFile
from clickstream_assets.recommender.next_product import ACTS
from clickstream_assets.settings import load_settings
from clickstream_assets.stores.kafka.producer import KafkaSink

REES46 = Path(__file__).parents[2] / "shared" / "data" / "rees46_multicategory_20191001_train.csv.gz"
LIST = 20
_SHARE = 5
_PATIENCE_SECONDS = 60
# Of a visitor the API keeps so many.
_EVENTS_OF_VISITOR = 50
_TYPES = {*ACTS, "cart"}

Split: TypeAlias = Literal["latest", "persons"]


class Event(NamedTuple):
    """An event of a file: whose it is, when it was, and all that was sent."""

    user_id: str
    time: datetime
    sent: dict[str, Any]


def events_of(file: Path) -> list[Event]:
    """Return a file's events with a product, in order of time."""
    found = []
    for _, value in EventFile(file):
        sent = json.loads(value)
        if sent["event_type"] in _TYPES and sent.get("product_id"):
            found.append(Event(sent["user_id"], datetime.fromisoformat(sent["timestamp"]), sent))
    return sorted(found, key=lambda event: event.time)


def parts(events: list[Event], split: Split) -> tuple[list[Event], list[Event]]:
    """Split events into those to train on and those to judge by."""
    if split == "latest":
        cut = events[len(events) * (_SHARE - 1) // _SHARE].time
        held_out = [event.time >= cut for event in events]
    else:
        held_out = [
            int(md5(event.user_id.encode(), usedforsecurity=False).hexdigest()[:8], 16) % _SHARE == 0
            for event in events
        ]
    pairs = list(zip(events, held_out, strict=True))
    return [event for event, out in pairs if not out], [event for event, out in pairs if out]


class Asked(NamedTuple):
    """An event, beside the list that was asked for before it.

    Attributes:
        place: The product's place in the list, from 1; 0 if it is not there.
        is_known: Whether the visitor has an event in the training part.
        is_first: Whether the visitor has none before this one.
        is_other: Whether it is another product than that of the visitor's event before.
    """

    place: int
    is_known: bool
    is_first: bool
    is_other: bool


class Client:
    """Asks the API for lists, on one connection."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_SECONDS)

    def recommended(self, user_id: str) -> tuple[list[str], int]:
        """Return the list for a visitor, and how many of their events count."""
        self._connection.request("GET", f"/api/recommend/{quote(user_id, safe='')}?n={LIST}")
        response = self._connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            raise SystemExit(f"the API answered {response.status}: {answer}")
        if problem := answer["in_the_moment"]["problem"]:
            raise SystemExit(f"the last events do not count: {problem}")
        return [item["product_id"] for item in answer["items"]], answer["in_the_moment"]["events"]

    def wait_for_model(self) -> None:
        """Wait until the API has a model of the next product, and has read all that Kafka has."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            self._connection.request("GET", "/api/recommend/nobody")
            answer = json.loads(self._connection.getresponse().read())
            if answer["in_the_moment"]["model_version"] and not answer["in_the_moment"]["problem"]:
                return
            time.sleep(0.2)
        raise SystemExit(f"no model is served: {answer['message']}")


def train(events: Iterable[Event]) -> None:
    """Send events as if the last of them were now, bring them in, and publish what is trained on them."""
    events = list(events)
    moved = datetime.now(UTC) - events[-1].time
    with KafkaSink(load_settings()) as topic:
        for event in events:
            topic.send(event.user_id.encode(), _at(event, event.time + moved))
    ingested = job("ingest")
    job("refresh", ingested["dirty_days"])
    job("train")


def _at(event: Event, moment: datetime) -> bytes:
    return json.dumps(event.sent | {"timestamp": moment.isoformat()}).encode()


def judge(client: Client, train_part: Iterable[Event], test_part: Iterable[Event]) -> Iterator[Asked | float]:
    """Ask before each event, and send it; yields what was found, and the seconds until each event counted."""
    before = {event.user_id: event.sent["product_id"] for event in train_part}
    known = set(before)
    of_visitor: defaultdict[str, list[Event]] = defaultdict(list)
    for event in test_part:
        of_visitor[event.user_id].append(event)
    counted: dict[str, int] = {}
    sent_at = 0.0
    with KafkaSink(load_settings()) as topic:
        for turn in count():
            events = [its[turn] for its in of_visitor.values() if turn < len(its)]
            if not events:
                return
            for event in events:
                whose = event.user_id
                listed, counts = client.recommended(whose)
                while turn and counts < min(counted[whose] + 1, _EVENTS_OF_VISITOR):
                    if time.monotonic() - sent_at > _PATIENCE_SECONDS:
                        raise SystemExit(f"an event of {whose} does not count after {_PATIENCE_SECONDS} s")
                    time.sleep(0.05)
                    listed, counts = client.recommended(whose)
                if turn and event is events[0]:
                    yield time.monotonic() - sent_at
                counted[whose] = counts
                product_id = event.sent["product_id"]
                yield Asked(
                    place=listed.index(product_id) + 1 if product_id in listed else 0,
                    is_known=whose in known,
                    is_first=whose not in before,
                    is_other=before.get(whose) != product_id,
                )
                before[whose] = product_id
            now = datetime.now(UTC)
            for place, event in enumerate(events):
                topic.send(event.user_id.encode(), _at(event, now + timedelta(microseconds=place)))
            topic.flush()
            sent_at = time.monotonic()


def figures(asked: Iterable[Asked]) -> dict[str, Any]:
    """Return hit rate and mean reciprocal rank in lists of LIST, of all visitors and of the unknown ones."""
    asked = list(asked)
    kinds: Mapping[str, list[Asked]] = {
        "every_event": asked,
        "after_another_event": [each for each in asked if not each.is_first],
        "another_product": [each for each in asked if not each.is_first and each.is_other],
        "first_event": [each for each in asked if each.is_first],
    }
    return {
        name: {
            "all": _of(its),
            "unknown": _of([each for each in its if not each.is_known]),
        }
        for name, its in kinds.items()
    }


def _of(asked: list[Asked]) -> dict[str, Any]:
    hits = [1 / each.place if each.place else 0.0 for each in asked]
    size = max(1, len(asked))
    return {
        "events": len(asked),
        f"hit_rate_{LIST}": round(sum(map(bool, hits)) / size, 4),
        f"mrr_{LIST}": round(sum(hits) / size, 4),
    }


def measure(train_part: list[Event], test_part: list[Event]) -> dict[str, Any]:
    """Train on one part and judge by the other, on servers of their own."""
    with servers() as home:
        os.environ.update(COMPUTE_ENGINE="duckdb", CLICKSTREAM_HOME=str(home))
        train(train_part)
        with api(1) as (port, _):
            client = Client(port)
            client.wait_for_model()
            found = list(judge(client, train_part, test_part))
    waits = [each for each in found if isinstance(each, float)]
    return {
        "trained_on": len(train_part),
        **figures(each for each in found if isinstance(each, Asked)),
        "seconds_until_counted": {"median": round(median(waits), 2), "most": round(max(waits), 2)}
        if waits
        else None,
    }


def main() -> None:
    """Judge, and print the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--train", type=Path, default=REES46, help="Any file that `clickstream replay` reads."
    )
    parser.add_argument("--test", type=Path, help="Another one, to judge by.")
    parser.add_argument("--split", choices=["latest", "persons"], default="latest")
    parser.add_argument("--first", type=int, help="Judge by the first so many events alone.")
    given = parser.parse_args()
    events = events_of(given.train)
    train_part, test_part = (events, events_of(given.test)) if given.test else parts(events, given.split)
    say(f"{len(train_part):,} events to train on, {len(test_part):,} to judge by")
    print(json.dumps(measure(train_part, test_part[: given.first])))


if __name__ == "__main__":
    main()
