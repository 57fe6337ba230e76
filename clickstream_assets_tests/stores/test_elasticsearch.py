from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from clickstream_assets.settings import Settings
from clickstream_assets.stores.elasticsearch import (
    Document,
    ElasticsearchError,
    ElasticsearchProblem,
    LiveEvents,
    Outcome,
    Written,
)
from clickstream_assets_tests.databases import free_port, with_settings
from clickstream_assets_tests.tls import tls_front
from clickstream_assets_tests.web import Answer, Request, web_server

DAY = date(2024, 5, 31)
CREATED, REPLACED, THERE = (Outcome(w) for w in (Written.CREATED, Written.REPLACED, Written.THERE))
PRODUCT = {"X-Elastic-Product": "Elasticsearch", "Content-Type": "application/json"}


def document(event_id: str, day: date = DAY, offset: int = 0, **fields: object) -> Document:
    record = {"topic": "t", "partition": 0, "offset": offset}
    source = {"event_id": event_id, "event_time": f"{day}T12:00:00Z"} | record | fields
    return Document(event_id, day, ("t", 0, offset), msgspec.json.encode(source))


@pytest.fixture
def live(elasticsearch: Settings) -> Iterator[LiveEvents]:
    """An alias of its own, ready to be written to."""
    alias = f"live_{uuid4().hex}"
    live = LiveEvents(
        with_settings(elasticsearch, elasticsearch_alias=alias, elasticsearch_patience_seconds=5)
    )
    live.prepare()
    yield live
    for index in live.client.indices.get_alias(index=f"{alias}-*"):
        live.client.indices.delete(index=index)
    live.client.indices.delete_index_template(name=alias)
    live.close()


def everything(live: LiveEvents) -> list[dict[str, Any]]:
    live.client.indices.refresh(index="_all")
    return live.search({"match_all": {}}, 100, 0)


def found(live: LiveEvents) -> list[str]:
    return [event["event_id"] for event in everything(live)]


def days(live: LiveEvents) -> list[str]:
    prefix = live.index(DAY)[:-10]
    return sorted(index.removeprefix(prefix) for index in live.client.indices.get_alias(index=prefix + "*"))


def write(live: LiveEvents, *documents: Document) -> list[Outcome]:
    """Write as a batch of the stream does."""
    live.prepare()
    return live.write(documents)


def test_first_record_of_an_id_is_its_document_whatever_day_it_is_of_and_whenever_it_comes(live: LiveEvents):
    next_day = date(2024, 6, 1)
    batch = [document("a", offset=5), document("b", offset=6)]
    assert write(live, *batch) == [CREATED, CREATED]
    # Once more in the same batch, before a search can see it.
    assert live.write(batch) == [THERE, THERE]
    assert write(live, document("a", next_day, offset=7), document("b", next_day, offset=2)) == [
        THERE,
        REPLACED,
    ]
    assert write(live, document("b", next_day, offset=1)) == [REPLACED]
    assert write(live, *batch, document("c", offset=8)) == [THERE, THERE, CREATED]
    assert [(e["event_id"], e["offset"], e["event_time"][:10]) for e in everything(live)] == [
        ("b", 1, "2024-06-01"),
        ("a", 5, "2024-05-31"),
        ("c", 8, "2024-05-31"),
    ]


def test_first_record_replaces_one_that_no_search_finds_yet(live: LiveEvents):
    """As where two of Spark's workers write the same id at the same time."""
    assert live.write([document("a", offset=5), document("b", offset=6)]) == [CREATED, CREATED]
    assert live.write([document("a", offset=4), document("b", offset=7)]) == [REPLACED, THERE]
    assert [(d["event_id"], d["offset"]) for d in everything(live)] == [("a", 4), ("b", 6)]


@pytest.mark.parametrize("first_written", [1, 2])
def test_documents_of_several_days_that_were_written_at_once_are_settled(
    live: LiveEvents, first_written: int
):
    next_day = date(2024, 6, 1)
    both = [[document("a", offset=1), document("c")], [document("a", next_day, offset=2), document("b")]]
    for documents in both if first_written == 1 else reversed(both):
        assert live.write(documents) == [CREATED, CREATED]
    assert len(everything(live)) == 4
    live.settle(["a", "b"])
    assert sorted((d["event_id"], d["event_time"][:10]) for d in everything(live)) == [
        ("a", "2024-05-31"),
        ("b", "2024-05-31"),
        ("c", "2024-05-31"),
    ]
    live.settle([])


def test_document_that_was_replaced_meanwhile_is_not_deleted(live: LiveEvents):
    """One worker deletes the copy that it found, when another has replaced it by the first record."""
    next_day = date(2024, 6, 1)
    live.write([document("a", offset=9)])
    live.prepare()
    find = live._find

    def find_and_be_late(ids: Sequence[str]) -> dict[str, Any]:
        copies = find(ids)
        other = LiveEvents(live._settings)
        assert other.write([document("a", offset=1)]) == [REPLACED]
        other.close()
        return copies

    live._find = find_and_be_late  # type: ignore[method-assign]
    assert live.write([document("a", next_day, offset=5)]) == [REPLACED]
    live._find = find  # type: ignore[method-assign]
    live.settle(["a"])
    assert [(d["event_id"], d["offset"]) for d in everything(live)] == [("a", 1)]


def test_two_documents_of_an_id_that_a_crash_left_become_one(live: LiveEvents):
    first, later = document("a", offset=1), document("a", date(2024, 6, 1), offset=2)
    for left in (later, first):
        live.client.index(index=live.index(left.day), id=left.id, document=msgspec.json.decode(left.source))
    assert write(live, first) == [THERE]
    assert [event["offset"] for event in everything(live)] == [1]


def test_a_copy_of_an_index_behind_the_alias_is_neither_read_nor_written(live: LiveEvents):
    batch = [document("a", offset=2), document("b", offset=3)]
    write(live, *batch)
    live.prepare()
    copies = [live.index(DAY) + "-copy", live._settings.elasticsearch_alias + "-old"]
    for copy in copies:
        for original in batch:
            source = msgspec.json.decode(original.source)
            live.client.index(index=copy, id=original.id, document=source, refresh=True)
        live.client.indices.put_alias(index=copy, name=live._settings.elasticsearch_alias)
    assert found(live) == ["a", "b"]
    # Sent again, and an earlier record of one of them, on another day.
    assert write(live, *batch) == [THERE, THERE]
    assert write(live, document("a", date(2024, 6, 1), offset=1)) == [REPLACED]
    live.settle(["a", "b"])
    assert [(event["event_id"], event["offset"]) for event in everything(live)] == [("a", 1), ("b", 3)]
    for copy in copies:
        assert live.client.count(index=copy)["count"] == 2


def test_a_document_of_somebody_else_with_an_id_of_ours_is_replaced(live: LiveEvents):
    for foreign in ({"hello": 1}, {"topic": "t", "partition": "0", "offset": None}):
        live.client.index(index=live.index(DAY), id="a", document=foreign)
        assert write(live, document("a")) == [REPLACED]
        assert [(event["event_id"], event["offset"]) for event in everything(live)] == [("a", 0)]
        assert write(live, document("a")) == [THERE]


def test_documents_are_in_the_index_of_their_day_and_found_latest_first(live: LiveEvents):
    live.write(
        [document("a"), document("c", date(2024, 6, 2)), document("b", date(2024, 6, 1)), document("d")]
    )
    assert days(live) == ["2024.05.31", "2024.06.01", "2024.06.02"]
    assert found(live) == ["c", "b", "a", "d"]


def test_document_that_is_refused_has_a_reason_and_stops_no_other(live: LiveEvents):
    deep: object = 1
    for _ in range(25):
        deep = {"a": deep}
    outcomes = live.write([document("a"), document("deep", properties=deep), document("b")])
    assert [o.written for o in outcomes] == [Written.CREATED, Written.REFUSED, Written.CREATED]
    assert outcomes[1].error == "document_parsing_exception"
    assert "exceeds the maximum depth limit of [20]" in (outcomes[1].reason or "")


def test_document_for_which_the_whole_request_is_refused_stops_no_other(live: LiveEvents):
    documents = [document("a"), document("x" * 600), document("b")]
    outcomes = live.write(documents)
    assert [o.written for o in outcomes] == [Written.CREATED, Written.REFUSED, Written.CREATED]
    assert "id is too long" in (outcomes[1].reason or "").replace("id [" + "x" * 600 + "]", "id")
    assert found(live) == ["a", "b"]


def test_long_texts_and_strange_keys_are_no_reason_to_refuse(live: LiveEvents):
    properties = {"text": "y" * 40_000, "": 1, "..": [[1, 2], {"x": None}], "n": 1e300, "ü 🐍": "\n"}
    assert live.write([document("a", properties=properties)]) == [CREATED]
    assert found(live) == ["a"]


def test_full_cluster_is_waited_for_and_refuses_no_document(live: LiveEvents):
    patient = LiveEvents(with_settings(live._settings, elasticsearch_patience_seconds=0))
    live.write([document("a")])
    documents = [document("b"), document("next", date(2024, 6, 1))]
    live.client.cluster.put_settings(persistent={"cluster.max_shards_per_node": 1})
    try:
        with pytest.raises(
            ElasticsearchError, match=r"maximum normal shards open.* set LIVE_EVENTS_RETENTION_DAYS"
        ) as caught:
            patient.write(documents)
    finally:
        live.client.cluster.put_settings(persistent={"cluster.max_shards_per_node": None})
    assert caught.value.problem is ElasticsearchProblem.FULL
    assert live.write(documents) == [THERE, CREATED]


def test_index_that_may_not_be_written_is_an_error_and_no_fault_of_the_documents(live: LiveEvents):
    live.write([document("a")])
    live.client.indices.put_settings(index=live.index(DAY), settings={"index.blocks.read_only": True})
    try:
        with pytest.raises(ElasticsearchError, match="index read-only") as caught:
            live.write([document("b")])
    finally:
        live.client.indices.put_settings(index=live.index(DAY), settings={"index.blocks.read_only": None})
    assert caught.value.problem is ElasticsearchProblem.NOT_ALLOWED


def test_days_are_dropped_by_age_and_the_newest_stays(live: LiveEvents):
    newest = date(2024, 6, 10)
    live.write([document(str(day), day) for day in (DAY, date(2024, 6, 1), date(2024, 6, 2), newest)])
    live.client.indices.create(index=live.index(DAY)[:-10] + "older")
    assert live.drop_days(keep=9, today=date(2024, 6, 12)) == [DAY]
    # By the newest day, also long after it; what is in the future does not count.
    assert live.drop_days(keep=9, today=date(2030, 1, 1)) == []
    assert live.drop_days(keep=9, today=date(2024, 6, 9)) == []
    assert live.drop_days(keep=8, today=date(2030, 1, 1)) == [date(2024, 6, 1)]
    assert days(live) == ["2024.06.02", "2024.06.10", "older"]
    assert live.drop_days(keep=0, today=date(2030, 1, 1)) == [date(2024, 6, 2)]
    assert found(live) == ["2024-06-10"]


def test_nothing_is_found_before_anything_was_written(elasticsearch: Settings):
    live = LiveEvents(with_settings(elasticsearch, elasticsearch_alias="never_written"))
    assert live.search({"match_all": {}}, 10, 0) == []
    assert live.drop_days(keep=1, today=DAY) == []


def test_index_with_the_name_of_the_alias_is_named(elasticsearch: Settings):
    name = f"older_{uuid4().hex}"
    live = LiveEvents(with_settings(elasticsearch, elasticsearch_alias=name))
    live.client.indices.create(index=name)
    try:
        with pytest.raises(ElasticsearchError, match=f"has an index called {name}") as caught:
            live.prepare()
    finally:
        live.client.indices.delete(index=name)
    assert caught.value.problem is ElasticsearchProblem.IN_THE_WAY


def bulk_answer(*statuses: int) -> Answer:
    """An answer to a bulk request, item by item."""
    items = [
        {
            "create": {"_index": "i", "_id": str(n), "status": status}
            | ({"error": {"type": f"error_{status}", "reason": "busy"}} if status >= 400 else {})
        }
        for n, status in enumerate(statuses)
    ]
    return Answer(200, msgspec.json.encode({"errors": True, "items": items}), PRODUCT)


NOTHING_FOUND = Answer(200, msgspec.json.encode({"hits": {"hits": []}}), PRODUCT)


def to_bulk(request: Request) -> bool:
    return request.path.startswith("/_bulk")


def ids_in(request: Request) -> list[str]:
    return [msgspec.json.decode(line)["create"]["_id"] for line in request.body.splitlines()[::2]]


def test_only_what_a_busy_server_has_not_taken_is_sent_again(elasticsearch: Settings):
    answers = iter(
        [
            Answer(503, b"{}", PRODUCT),
            bulk_answer(429, 201, 503, 201),
            Answer(429, b"{}", PRODUCT),
            bulk_answer(201, 409),
        ]
    )
    there = {"_index": "i", "_id": "c", "found": True, "_seq_no": 1, "_primary_term": 1}
    there["_source"] = dict(zip(("topic", "partition", "offset"), document("c").record, strict=True))

    def answer(request: Request) -> Answer:
        if request.path.startswith("/_mget"):
            return Answer(200, msgspec.json.encode({"docs": [there]}), PRODUCT)
        return next(answers) if to_bulk(request) else NOTHING_FOUND

    with web_server(answer) as server:
        live = LiveEvents(with_settings(elasticsearch, elasticsearch_url=server.url))
        assert live.write([document(name) for name in "abcd"]) == [CREATED, CREATED, THERE, CREATED]
    sent = [ids_in(request) for request in server.requests if to_bulk(request)]
    assert sent == [list("abcd")] * 2 + [["a", "c"]] * 2


def test_server_that_stays_busy_is_an_error_after_the_patience(elasticsearch: Settings):
    def answer(request: Request) -> Answer:
        if not to_bulk(request):
            return NOTHING_FOUND
        return bulk_answer(*(429 if name == "a" else 201 for name in ids_in(request)))

    with web_server(answer) as server:
        live = LiveEvents(
            with_settings(elasticsearch, elasticsearch_url=server.url, elasticsearch_patience_seconds=0.5)
        )
        with pytest.raises(ElasticsearchError, match="error_429: busy") as caught:
            live.write([document("a"), document("b")])
    assert caught.value.problem is ElasticsearchProblem.BUSY
    assert len(server.requests) > 2


def test_server_that_is_away_is_named_without_the_password(elasticsearch: Settings):
    port = free_port()
    live = LiveEvents(
        with_settings(
            elasticsearch,
            elasticsearch_url=f"http://user:s3cret@127.0.0.1:{port}",
            elasticsearch_patience_seconds=0,
        )
    )
    for ask in (live.check, live.prepare, lambda: live.write([document("a")])):
        with pytest.raises(ElasticsearchError, match=f"ELASTICSEARCH_URL=http://127.0.0.1:{port}") as caught:
            ask()
        assert caught.value.problem is ElasticsearchProblem.UNREACHABLE
        assert "s3cret" not in str(caught.value)


def test_wrong_key_is_named(elasticsearch: Settings):
    with web_server(lambda _: Answer(401, b"{}", PRODUCT)) as server:
        live = LiveEvents(
            with_settings(elasticsearch, elasticsearch_url=server.url, elasticsearch_api_key="a key")
        )
        with pytest.raises(ElasticsearchError, match="set ELASTICSEARCH_API_KEY"):
            live.prepare()
        with pytest.raises(ElasticsearchError) as caught:
            live.write([document("a")])
    assert caught.value.problem is ElasticsearchProblem.NOT_ALLOWED
    assert server.requests[0].headers["authorization"] == "ApiKey a key"
    assert len(server.requests) == 2


@pytest.fixture
def encrypted(elasticsearch: Settings, tmp_path: Path) -> Iterator[Settings]:
    """Settings that reach the server by a TLS front, whose authority they know."""
    with tls_front(port_of(elasticsearch), tmp_path) as front:
        yield with_settings(
            elasticsearch,
            elasticsearch_url=f"https://127.0.0.1:{front.port}",
            elasticsearch_ca_file=front.ca_file,
            elasticsearch_alias=f"live_{uuid4().hex}",
        )


def port_of(settings: Settings) -> int:
    return int(settings.elasticsearch_url.rpartition(":")[2])


def test_a_private_authority_is_trusted_where_the_settings_name_it(encrypted: Settings):
    with closing(LiveEvents(encrypted)) as live:
        live.check()
        live.prepare()
        assert live.write([document("a")]) == [CREATED]
        assert found(live) == ["a"]
        live.client.indices.delete(index=live.index(DAY))
        live.client.indices.delete_index_template(name=encrypted.elasticsearch_alias)


def test_an_authority_that_is_not_named_is_not_trusted_and_not_waited_for(encrypted: Settings):
    unknown = with_settings(encrypted, elasticsearch_ca_file=None, elasticsearch_patience_seconds=600)
    with (
        closing(LiveEvents(unknown)) as live,
        pytest.raises(ElasticsearchError, match="set ELASTICSEARCH_CA_FILE to a PEM file") as caught,
    ):
        live.prepare()
    assert caught.value.problem is ElasticsearchProblem.UNTRUSTED
    assert encrypted.elasticsearch_url in str(caught.value)


def test_a_certificate_for_another_name_is_not_trusted(elasticsearch: Settings, tmp_path: Path):
    with tls_front(port_of(elasticsearch), tmp_path, name="search.shop.example") as front:
        url = f"https://127.0.0.1:{front.port}"
        other = with_settings(elasticsearch, elasticsearch_url=url, elasticsearch_ca_file=front.ca_file)
        with pytest.raises(
            ElasticsearchError, match=r"search\.shop\.example.*ELASTICSEARCH_URL to a name"
        ) as caught:
            LiveEvents(other).check()
    assert caught.value.problem is ElasticsearchProblem.UNTRUSTED


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_of_authorities_that_cannot_be_used_is_named(tmp_path: Path, content: str | None):
    file = tmp_path / "ca.pem"
    if content:
        file.write_text(content)
    settings = Settings(
        _env_file=None, elasticsearch_url="https://search.shop.example", elasticsearch_ca_file=file
    )
    with pytest.raises(ElasticsearchError, match=f"ELASTICSEARCH_CA_FILE={file} cannot be used"):
        LiveEvents(settings).check()


def test_a_server_without_encryption_is_told_from_one_that_is_away(elasticsearch: Settings):
    url = elasticsearch.elasticsearch_url.replace("http:", "https:")
    with pytest.raises(ElasticsearchError, match="no secure connection to ELASTICSEARCH_URL=https"):
        LiveEvents(with_settings(elasticsearch, elasticsearch_url=url)).check()


def test_a_file_of_authorities_does_not_matter_without_encryption(elasticsearch: Settings):
    LiveEvents(with_settings(elasticsearch, elasticsearch_ca_file="/nonexistent")).check()


def test_events_of_a_person_are_found_and_erased_by_all_of_their_ids(live: LiveEvents):
    whose = [
        {"user_id": "ann"},
        {"user_id": "ann", "anonymous_id": "tv"},
        {"user_id": "bob", "anonymous_id": "phone-a"},
        {"anonymous_id": "phone-a"},
        {"anonymous_id": "tv"},
        {"session_id": "s1"},
        {"anonymous_id": "phone-b", "session_id": "s1"},
    ]
    none: dict[str, Any] = dict.fromkeys(("user_id", "anonymous_id", "session_id"))
    live.write([document(f"e{number}", **none | ids) for number, ids in enumerate(whose)])
    ids = ({"ann"}, {"phone-a"}, {"s1"})
    assert len(everything(live)) == 7
    assert sorted(event["event_id"] for event in live.events_of(*ids)) == ["e0", "e1", "e3", "e5"]
    assert live.erase(*ids) == 4
    live.expunge()
    assert live.events_of(*ids) == []
    assert sorted(event["event_id"] for event in everything(live)) == ["e2", "e4", "e6"]


def test_of_a_shared_device_only_what_is_at_some_places_is_erased(live: LiveEvents):
    none: dict[str, Any] = dict.fromkeys(("user_id", "anonymous_id", "session_id"))
    whose = [
        {"anonymous_id": "tv"},
        {"anonymous_id": "tv"},
        {"anonymous_id": "tv", "user_id": "bob"},
        {"user_id": "ann"},
    ]
    documents = [document(f"e{number}", offset=number, **none | ids) for number, ids in enumerate(whose)]
    live.write(documents)
    assert live.erase_at({each.record for each in documents[1:]}, {"tv"}) == 1
    assert sorted(event["event_id"] for event in everything(live)) == ["e0", "e2", "e3"]
