import csv
import io
import json
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from flask.testing import FlaskClient

from clickstream_assets.catalogue import LIVE_EVENTS
from clickstream_assets.settings import Settings
from clickstream_assets.stores.elasticsearch import Document, LiveEvents
from clickstream_assets_tests.api.conftest import clients_of
from clickstream_assets_tests.databases import with_settings

NOON = datetime(2024, 5, 31, 12)


def document(number: int, words: str = "", **fields: Any) -> Document:
    time = NOON + timedelta(minutes=number)
    source: dict[str, Any] = {
        "event_id": f"e{number:02}",
        "event_type": "view",
        "event_time": f"{time.isoformat()}Z",
        "event_date": time.date(),
        "user_id": f"u{number % 3}",
        "product_id": f"p{number}",
        "is_bot": False,
        "payload_hash": "h",
        "topic": "t",
        "partition": 0,
        "offset": number,
        "item": 1,
        "items": 1,
        "kafka_time": f"{time.isoformat()}Z",
        "words": words,
    }
    return Document(source["event_id"], time.date(), ("t", 0, number), msgspec.json.encode(source | fields))


@pytest.fixture(scope="module")
def client(elasticsearch: Settings) -> Iterator[FlaskClient]:
    settings = with_settings(elasticsearch, elasticsearch_alias=f"api_{uuid4().hex}")
    live = LiveEvents(settings)
    live.prepare()
    live.write(
        [
            *(document(number) for number in range(12)),
            document(12, "red shoes p12 acme", event_type="search", query="red shoes", price=19.99),
            document(
                13, "electronics.smartphone electronics smartphone p13 Acme", properties={"a": {"b": [1]}}
            ),
            document(60 * 24, "red hat", event_type="purchase"),
        ]
    )
    # Whoever may write to Elasticsearch can do this; no answer below has it.
    for foreign in ({"hello": 1}, {"event_id": "x", "event_time": "2024-05-31"}):
        live.client.index(index=live.index(NOON.date()), document=foreign)
    live.client.indices.refresh(index=settings.elasticsearch_alias)
    yield from clients_of(settings)
    for day in (NOON.date(), date(2024, 6, 1)):
        live.client.indices.delete(index=live.index(day))
    live.client.indices.delete_index_template(name=settings.elasticsearch_alias)
    live.close()


def listed(client: FlaskClient, query: str = "") -> list[dict[str, Any]]:
    answer = client.get(f"/real-time-events{query}")
    assert answer.status_code == 200, answer.text
    return answer.json["real_time_events"]


def offsets(client: FlaskClient, query: str) -> list[int]:
    return [event["offset"] for event in listed(client, query)]


def test_default_is_the_latest_ten_events(client: FlaskClient) -> None:
    assert offsets(client, "") == [1440, *range(13, 4, -1)]


def test_event_has_every_column(client: FlaskClient) -> None:
    [event] = listed(client, "?n=1&offset=1")
    assert set(event) == {*LIVE_EVENTS.column_names, "timestamp"}
    assert event["event_time"] == event["timestamp"] == "2024-05-31T12:13:00Z"
    assert event["event_date"] == "2024-05-31"
    assert event["properties"] == {"a": {"b": [1]}}
    assert event["brand"] is None
    [searched] = listed(client, "?event_type=search")
    assert (searched["query"], searched["price"]) == ("red shoes", 19.99)


def test_pages_cover_all_events_once(client: FlaskClient) -> None:
    pages = [offsets(client, f"?limit=4&offset={offset}") for offset in range(0, 20, 4)]
    assert [offset for page in pages for offset in page] == [1440, *range(13, -1, -1)]


def test_page_says_whether_there_are_more_events(client: FlaskClient) -> None:
    first = client.get("/real-time-events?n=10&limit=3")
    assert first.json["page"] == {"limit": 10, "offset": 0, "more": True}
    assert first.headers["Link"] == '<?n=10&limit=3&offset=10>; rel="next"'
    last = client.get("/real-time-events?n=10&offset=10")
    assert last.json["page"] == {"limit": 10, "offset": 10, "more": False}


def test_events_are_csv_on_request(client: FlaskClient) -> None:
    answer = client.get("/real-time-events?n=1&offset=1&format=csv")
    [event] = csv.DictReader(io.StringIO(answer.text, newline=""))
    assert set(event) == {*LIVE_EVENTS.column_names, "timestamp"}
    assert event["event_time"] == "2024-05-31T12:13:00Z"
    assert json.loads(event["properties"]) == {"a": {"b": [1]}}
    assert event["brand"] == ""


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?user_id=u2", [11, 8, 5, 2]),
        ("?user_id=u1&limit=2", [13, 10]),
        ("?event_type=purchase", [1440]),
        ("?since=2024-05-31T12:12:00Z&until=2024-06-01T12:00:00Z", [13, 12]),
        ("?since=2024-05-31T14:12:00%2B02:00", [1440, 13, 12]),
        ("?until=2024-05-31T12:01:30.5Z", [1, 0]),
        ("?q=red", [1440, 12]),
        ("?q=RED+shoes", [12]),
        ("?q=smartphone", [13]),
        ("?q=electronics.smartphone", [13]),
        ("?q=acme", [13, 12]),
        ("?q=acme+-smart*", [12]),
        ('?q="shoes+red"', []),
        ('?q="red+shoes"', [12]),
        ("?q=hat+|+p13", [1440, 13]),
        ("?q=%28%22+%2B+-", []),
        ("?user_id=nobody", []),
    ],
)
def test_filters(client: FlaskClient, query: str, expected: list[int]) -> None:
    assert offsets(client, query) == expected


def test_deepest_page_and_longest_words_are_answered(client: FlaskClient) -> None:
    assert listed(client, "?limit=1000&offset=9000") == []
    assert listed(client, f"?q={'a+' * 128}") == []
