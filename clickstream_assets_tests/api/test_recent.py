import json
import time
from typing import Any

import pytest

from clickstream_assets.api.recent import Recent
from clickstream_assets.recommender.next_product import Act, Met
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.tail import Arrived
from clickstream_assets_tests.databases import with_settings


def recent(**settings: Any) -> Recent:
    return Recent(with_settings(Settings(_env_file=None), **settings))


def arrived(*events: dict[str, Any], ago: float = 0, topic: str = "clickstream-events") -> list[Arrived]:
    """Make records that came now, of events some seconds ago, one second after the other."""
    now = time.time()
    return [
        Arrived(
            topic,
            int(now * 1e6),
            json.dumps({"event_type": "view", "timestamp": now - ago + place, **event}).encode(),
        )
        for place, event in enumerate(events)
    ]


def view(product_id: str, **more: Any) -> dict[str, Any]:
    return {"user_id": "u", "product_id": product_id, **more}


def ids(found: Recent, person: str, *visitors: str) -> list[str]:
    return [met.product_id for met in found.of_person(person, visitors).met]


def test_what_was_met_is_kept_newest_first_with_the_most_that_was_done():
    kept = recent()
    kept.take(
        arrived(
            *(view("a"), view("b", product_category="shoes", price=12.5, brand="north")),
            *(view("a", event_type="add_to_cart"), view("c", event_type="search")),
            ago=60,
        )
    )
    found = kept.of_person("u")
    assert found.met == [
        Met("a", Act.ADDED_TO_CART, 2),
        Met("b", Act.VIEWED, 1, "shoes", 12.5, "north"),
    ]
    # The search says of no product that it was met.
    assert (len(found.seen), found.may_be_profiled) == (3, None)
    assert kept.of_person("somebody else").met == []


@pytest.mark.parametrize(
    ("properties", "category"),
    [
        ({"category_id": "17"}, "17"),
        ({"category_id": 17}, "17"),
        ({"category_id": None}, None),
        ({"category_id": ""}, None),
        ({"of": {"category_id": "17"}}, None),
    ],
)
def test_a_category_without_a_name_is_its_id(properties: dict[str, Any], category: str | None):
    kept = recent()
    kept.take(arrived(view("a", properties=properties), view("b", product_category="shoes"), ago=60))
    assert [met.category for met in kept.of_person("u").met] == ["shoes", category]


def test_an_event_that_came_twice_counts_once_and_robots_and_rejected_records_do_not():
    kept = recent()
    records = arrived(
        view("a"),
        view("b", user_agent="Googlebot/2.1"),
        view("c", timestamp="yesterday"),
        ago=60,
    )
    kept.take(records)
    kept.take([*records, Arrived("clickstream-events", int(time.time() * 1e6), b"no JSON")])
    assert ids(kept, "u") == ["a"]
    assert kept.of_person("u").met[0].times == 1


def test_events_of_before_the_login_are_the_users_once_the_ids_came_together():
    kept = recent()
    kept.take(arrived({"anonymous_id": "x", "product_id": "a"}, ago=60))
    assert ids(kept, "anonymous:x") == ["a"]
    assert ids(kept, "u") == []
    # By what the served tables know.
    assert ids(kept, "u", "x") == ["a"]
    kept.take(arrived({"anonymous_id": "x", "user_id": "u", "event_type": "identify"}, ago=50))
    assert kept.person_of_visitor("x") == "u"
    assert ids(kept, "u") == ["a"]
    # Somebody else's by now, whatever the tables say.
    kept.take(arrived({"anonymous_id": "x", "user_id": "v", "event_type": "identify"}, ago=40))
    assert kept.person_of_visitor("x") == "v"
    assert ids(kept, "u", "x") == []
    assert ids(kept, "v") == ["a"]


def test_a_device_of_many_users_is_nobodys():
    kept = recent(identity_max_users=2)
    kept.take(
        arrived(
            {"anonymous_id": "till", "product_id": "a"},
            *({"anonymous_id": "till", "user_id": f"u{n}", "event_type": "identify"} for n in range(3)),
            ago=60,
        )
    )
    assert kept.person_of_visitor("till") is None
    assert ids(kept, "u2") == []
    assert ids(kept, "anonymous:till") == ["a"]


def test_a_visitor_with_a_session_alone_is_that_session():
    kept = recent()
    kept.take(arrived({"session_id": "s", "product_id": "a"}, ago=60))
    assert ids(kept, "session:s") == ["a"]


@pytest.mark.parametrize(
    ("stated", "expected"),
    [((False,), False), ((False, True), True), ((True, False), False), ((True,), True)],
)
def test_the_latest_consent_counts(stated: tuple[bool, ...], expected: bool):
    kept = recent()
    kept.take(arrived(*(view("a", consent=each) for each in stated), ago=60))
    assert kept.of_person("u").may_be_profiled is expected


def test_what_is_too_old_or_too_much_is_forgotten():
    kept = recent(recent_minutes=10, recent_events=5)
    kept.take(arrived(view("old"), ago=700))
    assert ids(kept, "u") == []
    kept.take(arrived(*(view(f"p{n}") for n in range(8)), ago=60))
    assert ids(kept, "u") == ["p7", "p6", "p5", "p4", "p3"]
    assert len(kept) == 5


def test_of_a_person_with_many_events_the_newest_are_kept():
    kept = recent()
    kept.take(arrived(*(view(f"p{n}") for n in range(120)), ago=600))
    assert ids(kept, "u") == [f"p{n}" for n in range(119, 69, -1)]


def test_records_are_read_in_the_dialect_of_their_topic():
    kept = recent(kafka_topic="web=segment,app")
    track = {
        "type": "track",
        "event": "Product Viewed",
        "userId": "u",
        "messageId": "m",
        "timestamp": "",
        "properties": {"product_id": "a"},
    }
    sent = {**track, "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    kept.take([Arrived("web", int(time.time() * 1e6), json.dumps(sent).encode())])
    assert ids(kept, "u") == ["a"]


def test_who_asked_to_be_erased_is_forgotten_up_to_then():
    kept = recent()
    now = time.time()
    kept.take(
        arrived(
            view("a", anonymous_id="phone", consent=True, timestamp=now - 60),
            view("b", timestamp=now - 50),
            {**view("c", timestamp=now - 50), "user_id": "other"},
        )
    )
    assert ids(kept, "u") == ["b", "a"]
    kept.erase({"u": int((now - 20) * 1e6)})
    assert ids(kept, "u") == []
    assert kept.of_person("u").may_be_profiled is None
    assert kept.person_of_visitor("phone") is None
    assert ids(kept, "other") == ["c"]
    # What Kafka gives once more is left out; what comes after that is a new person's.
    kept.take(arrived(view("b", timestamp=now - 50), view("d", timestamp=now - 10)))
    assert ids(kept, "u") == ["d"]
    kept.erase({"u": int((now - 20) * 1e6)})
    assert ids(kept, "u") == ["d"]
    assert len(kept) == 2
