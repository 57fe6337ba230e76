from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from typer.testing import CliRunner

from clickstream_assets.catalogue import EVENTS, ITEM_KEY, RAW_EVENTS, REJECTED_EVENTS
from clickstream_assets.commands.app import app
from clickstream_assets.engine import DuckDBEngine, SparkEngine
from clickstream_assets.ingest.classification import counts_by_hour, misclassified_records
from clickstream_assets.settings import Settings, load_settings
from clickstream_assets.stores.elasticsearch import LiveEvents
from clickstream_assets.stores.kafka.producer import ensure_topics
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres import erasures
from clickstream_assets.streaming import live_events
from clickstream_assets.streaming.checkpoint import Checkpoint, CheckpointError
from clickstream_assets.streaming.errors import ServerAwayError
from clickstream_assets.streaming.live_events import QUERY, checkpoint_of, drop_old_days, lost_since, start
from clickstream_assets.streaming.owner import OwnedError, ownership
from clickstream_assets.streaming.process import run_live_events
from clickstream_assets.streaming.source import configured
from clickstream_assets_tests.databases import free_port, fresh_database, query, with_settings
from clickstream_assets_tests.ingestion import Ingestion
from clickstream_assets_tests.tls import tls_front
from clickstream_assets_tests.topics import keyed, new_topic, send
from clickstream_assets_tests.web import Answer, Request, web_server

PRODUCT = {"X-Elastic-Product": "Elasticsearch", "Content-Type": "application/json"}


@pytest.fixture
def settings(servers: Settings, tmp_path: Path) -> Iterator[Settings]:
    """A topic of two partitions, a database, a lake, checkpoints and an alias of one's own."""
    with fresh_database(servers) as database:
        settings = with_settings(
            new_topic(database, partitions=2),
            lake_path=str(tmp_path / "lake"),
            checkpoint_path=str(tmp_path / "checkpoints"),
            elasticsearch_alias=f"live_{uuid4().hex}",
            elasticsearch_patience_seconds=5,
        )
        yield settings
    live = LiveEvents(settings)
    progress = f"{settings.elasticsearch_alias}_progress"
    for index in [*indices(settings), progress]:
        live.client.indices.delete(index=index, ignore_unavailable=True)
    for template in (settings.elasticsearch_alias, progress):
        live.client.options(ignore_status=404).indices.delete_index_template(name=template)
    live.close()


def indices(settings: Settings) -> list[str]:
    return sorted(LiveEvents(settings).client.indices.get_alias(index=f"{settings.elasticsearch_alias}-*"))


def event(event_id: str | None = None, time: str = "2024-05-31T12:00:00Z", **fields: Any) -> bytes:
    sent = {"event_type": "view", "user_id": "u1", "product_id": "p1", "timestamp": time} | fields
    return msgspec.json.encode(sent | ({"event_id": event_id} if event_id else {}))


def too_deep(event_id: str) -> bytes:
    """A valid event that is no document: Elasticsearch takes 20 levels."""
    deep: object = 1
    for _ in range(25):
        deep = {"a": deep}
    return event(event_id, properties={"deep": deep})


def run(settings: Settings, engine: SparkEngine, values: Mapping[int, Iterable[bytes | None]] = {}) -> None:
    """Send values to partitions, and bring all there is in the topic into Elasticsearch."""
    send(settings, values)
    query = start(configured(engine.session, settings), settings, {"availableNow": True})
    query.awaitTermination()


def documents(settings: Settings) -> list[dict[str, Any]]:
    live = LiveEvents(settings)
    live.client.indices.refresh(index="_all")
    return sorted(live.search({"match_all": {}}, 1000, 0), key=lambda document: document["event_id"])


def ids(settings: Settings) -> list[str]:
    return [document["event_id"] for document in documents(settings)]


def rejected(settings: Settings, engine: DuckDBEngine) -> list[dict[str, Any]]:
    lake = Lake(settings.lake, engine)
    rows = engine.to_arrow(lake.read(REJECTED_EVENTS)).to_pylist()
    return sorted(rows, key=lambda row: (row["rejected_by"], row["partition"], row["offset"]))


def test_event_is_a_document_with_every_column(settings: Settings, spark_engine: SparkEngine):
    full = {
        "price": 19.99,
        "quantity": 2,
        "product_category": "electronics.smartphone",
        "brand": "Acme",
        "consent": True,
        "properties": {"colour": "blue", "sizes": [1, 2.5]},
        "page": "/home",
    }
    run(
        settings, spark_engine, {0: [event("a", "2024-05-31T12:00:00.123456+02:00", **full), b"broken", None]}
    )
    run(settings, spark_engine, {0: [b"broken"]})
    [document] = documents(settings)
    kafka_time = datetime.fromisoformat(document.pop("kafka_time"))
    assert abs(datetime.now(UTC) - kafka_time) < timedelta(hours=1)
    assert len(document.pop("payload_hash")) == 32
    assert document == {
        "event_id": "a",
        "event_type": "view",
        "event_time": "2024-05-31T10:00:00.123456Z",
        "event_date": "2024-05-31",
        "user_id": "u1",
        "product_id": "p1",
        "product_category": "electronics.smartphone",
        "brand": "Acme",
        "price": 19.99,
        "quantity": 2,
        "consent": True,
        "properties": {"colour": "blue", "sizes": [1, 2.5], "page": "/home"},
        "is_bot": False,
        "topic": settings.kafka_topic,
        "partition": 0,
        "offset": 0,
        "item": 1,
        "items": 1,
    }
    live = LiveEvents(settings)
    for asked in (
        {"match": {"words": "smartphone"}},
        {"match": {"words": "ACME"}},
        {"term": {"properties.colour": "blue"}},
        {"term": {"product_category": "electronics.smartphone"}},
        {"range": {"price": {"gte": 19.99, "lt": 20}}},
    ):
        assert len(live.search(asked, 10, 0)) == 1, asked


def test_first_record_of_an_id_is_the_document_also_when_it_comes_again_later(
    settings: Settings, spark_engine: SparkEngine
):
    run(
        settings,
        spark_engine,
        {0: [event("a", price=1), event("b")], 1: [event("a", "2024-06-01T00:00:00Z", price=2)]},
    )
    # A page has no words to be found by.
    page = event("page", event_type="page_view", product_id=None)
    run(settings, spark_engine, {1: [event("a", price=3), page, event("c")]})
    assert [(d["event_id"], d.get("price")) for d in documents(settings)] == [
        ("a", 1),
        ("b", None),
        ("c", None),
        ("page", None),
    ]


@pytest.mark.long
def test_same_events_again_from_the_first_change_nothing(
    settings: Settings, spark_engine: SparkEngine, duckdb_engine: DuckDBEngine
):
    send(settings, {p: [event(f"{p}{n}") for n in range(20)] for p in range(2)})
    run(settings, spark_engine, {1: [too_deep("deep")]})
    before = documents(settings), rejected(settings, duckdb_engine)
    Checkpoint(settings, QUERY, {}).remove()
    run(settings, spark_engine)
    assert (documents(settings), rejected(settings, duckdb_engine)) == before
    assert (len(before[0]), len(before[1])) == (40, 1)


def test_event_that_elasticsearch_refuses_is_rejected_with_the_reason_and_every_record_is_accounted_for(
    settings: Settings, spark_engine: SparkEngine, duckdb_engine: DuckDBEngine
):
    values = [event("a"), too_deep("deep"), b"broken", event("b"), event("ü" * 256)]
    send(settings, {1: values}, key=b"k")
    ingestion = Ingestion.of(settings, duckdb_engine)
    ingestion.run()
    run(settings, spark_engine)
    assert ids(settings) == ["a", "b", "ü" * 256]

    by_elasticsearch, by_ingest = rejected(settings, duckdb_engine)
    assert (by_ingest["offset"], by_ingest["rejected_by"], by_ingest["batch"]) == (2, "ingest", 1)
    assert by_elasticsearch["rule"] == (
        "document_parsing_exception: The provided [flattened] field [properties] exceeds the maximum depth limit of "
        "[20]."
    )
    assert (
        by_elasticsearch.items()
        >= {
            "topic": settings.kafka_topic,
            "partition": 1,
            "offset": 1,
            "batch": 0,
            "key": b"k",
            "value": values[1],
            "rejected_by": "elasticsearch",
        }.items()
    )

    query_id = msgspec.json.decode(Path(settings.checkpoints, QUERY, "metadata").read_bytes())["id"]
    table = DeltaTable(ingestion.lake.path(REJECTED_EVENTS))
    assert table.transaction_version(f"{QUERY} {query_id}") == 1

    [hour] = counts_by_hour(ingestion.lake, 1)
    assert (hour[RAW_EVENTS.name], hour[EVENTS.name], hour[REJECTED_EVENTS.name]) == (5, 4, 1)
    assert misclassified_records(ingestion.lake, 1) == []
    send(settings, {0: [b"broken too", too_deep("deeper")]})
    ingestion.run()
    run(settings, spark_engine)
    assert [row["rejected_by"] for row in rejected(settings, duckdb_engine)] == ["elasticsearch"] * 2 + [
        "ingest"
    ] * 2


def test_stream_goes_on_where_it_was_when_elasticsearch_is_back(
    settings: Settings, spark_engine: SparkEngine, duckdb_engine: DuckDBEngine
):
    run(settings, spark_engine, {0: [event("a")]})
    send(settings, {0: [event("b"), too_deep("deep")], 1: [event("c")]})
    away = with_settings(
        settings, elasticsearch_url=f"http://127.0.0.1:{free_port()}", elasticsearch_patience_seconds=0
    )
    with pytest.raises(
        Exception, match="Elasticsearch cannot be reached: no answer from ELASTICSEARCH_URL=http"
    ):
        run(away, spark_engine)
    assert ids(settings) == ["a"]
    run(settings, spark_engine)
    assert ids(settings) == ["a", "b", "c"]
    assert len(rejected(settings, duckdb_engine)) == 1


def test_events_that_elasticsearch_had_and_has_no_more_are_written_again(
    settings: Settings, spark_engine: SparkEngine, monkeypatch: pytest.MonkeyPatch
):
    run(settings, spark_engine, {0: [event("a")], 1: [event("b")]})
    live = LiveEvents(settings)
    then = live.progress(settings.topics)
    assert then == keyed(settings, {0: 1, 1: 1})
    run(settings, spark_engine, {0: [event("c")], 1: [event("d")]})
    assert lost_since(settings) is None
    before = documents(settings)

    def put_back() -> None:
        """As from a snapshot of the time when there were two events."""
        (index,) = indices(settings)
        for document_id in ("c", "d"):
            live.client.delete(index=index, id=document_id)
        live.keep_progress(then)

    put_back()
    assert lost_since(settings) == then
    run(settings, spark_engine)
    assert documents(settings) == before
    assert lost_since(settings) is None
    # While the query runs; its next batch does not hide it.
    put_back()
    with monkeypatch.context() as patch:
        patch.setattr(live_events, "lost_since", lambda _: None)
        with pytest.raises(Exception, match="and had more; those after are written again"):
            run(settings, spark_engine, {0: [event("e")]})
    run(settings, spark_engine)
    assert [document["event_id"] for document in documents(settings)] == ["a", "b", "c", "d", "e"]
    assert live.progress(settings.topics) == keyed(settings, {0: 3, 1: 2})
    live.client.indices.delete(
        index=",".join([*indices(settings), f"{settings.elasticsearch_alias}_progress"])
    )
    run(settings, spark_engine)
    assert [document["event_id"] for document in documents(settings)] == ["a", "b", "c", "d", "e"]
    live.close()


@pytest.mark.long
def test_one_document_per_id_does_not_depend_on_how_records_come_in_batches(
    settings: Settings, spark_engine: SparkEngine
):
    """The first record of an id, by partition and offset, also when others of another day were read before it."""
    next_day = "2024-06-01T12:00:00Z"
    run(settings, spark_engine, {1: [event("a"), event("b", price=1)], 0: [event("c", price=1)]})
    run(
        settings,
        spark_engine,
        {0: [event("a", next_day, price=2)], 1: [event("b", next_day), event("c", next_day)]},
    )
    in_two = documents(settings)
    assert [(d["event_id"], d["event_date"], d.get("price")) for d in in_two] == [
        ("a", "2024-06-01", 2),
        ("b", "2024-05-31", 1),
        ("c", "2024-05-31", 1),
    ]
    for index in indices(settings):
        LiveEvents(settings).client.indices.delete(index=index)
    Checkpoint(settings, QUERY, {}).remove()
    run(settings, spark_engine)
    assert documents(settings) == in_two


def test_days_past_their_retention_are_dropped(
    settings: Settings, spark_engine: SparkEngine, caplog: pytest.LogCaptureFixture
):
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=ago) for ago in (0, 3, 4)] + [date(2024, 5, 31)]
    all_days = with_settings(settings, live_events_retention_days=0)
    run(all_days, spark_engine, {0: [event(str(day), f"{day}T00:00:00Z") for day in days]})
    alias = settings.elasticsearch_alias
    names = {"/_all/_alias", f"/{alias}-*/_alias"}
    listed = msgspec.json.encode({f"{alias}-{day:%Y.%m.%d}": {"aliases": {}} for day in days})

    def without_delete_rights(request: Request) -> Answer:
        return Answer(200, listed, PRODUCT) if request.path in names else Answer(403, b"{}", PRODUCT)

    settings = with_settings(settings, live_events_retention_days=3)
    with web_server(without_delete_rights) as server:
        drop_old_days(with_settings(settings, elasticsearch_url=server.url))
    assert [request.method for request in server.requests] == ["GET", "DELETE"]
    assert "stay for now: Elasticsearch does not allow this" in caplog.text
    assert ids(settings) == sorted(map(str, days))
    drop_old_days(settings)
    assert ids(settings) == sorted(str(day) for day in days[:2])


def test_days_past_their_retention_get_no_index(settings: Settings, spark_engine: SparkEngine):
    today = datetime.now(UTC).date()
    strays = [event(f"stray {n}", f"{today - timedelta(days=31 + n)}T00:00:00Z") for n in range(50)]
    now = event("now", f"{today}T00:00:00Z")
    run(settings, spark_engine, {0: [*strays, now]})
    assert ids(settings) == ["now"]
    # The oldest day that is kept.
    run(settings, spark_engine, {0: [*strays, event("then", f"{today - timedelta(days=30)}T00:00:00Z")]})
    assert ids(settings) == ["now", "then"]
    assert len(indices(settings)) == 2


def test_checkpoint_of_another_topic_is_refused(settings: Settings, spark_engine: SparkEngine):
    run(settings, spark_engine)
    other = new_topic(settings).kafka_topic
    with pytest.raises(CheckpointError, match=f"KAFKA_TOPIC is '{other}'"):
        run(with_settings(settings, kafka_topic=other), spark_engine)


def test_records_of_persons_who_were_erased_are_left_out_when_it_begins_anew(
    settings: Settings, spark_engine: SparkEngine
):
    run(
        settings,
        spark_engine,
        {0: [event("ann", user_id="ann"), event("bob"), event("ann-2", user_id="ann")]},
    )
    number, _ = erasures.ask(settings, ["ann"], [])
    places = [dict(zip(ITEM_KEY, (settings.first_topic, 0, offset, 1), strict=True)) for offset in (0, 2)]
    erasures.keep_places(settings, {number: pa.Table.from_pylist(places)})
    live = LiveEvents(settings)
    assert live.erase(["ann"], [], []) == 2
    checkpoint_of(settings).remove()
    # Who comes back later is a new person.
    run(settings, spark_engine, {0: [event("ann-3", user_id="ann")]})
    assert ids(settings) == ["ann-3", "bob"]
    live.close()


def test_a_rebuild_has_live_events_begin_anew(
    pipeline_env: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("CHECKPOINT_PATH", str(tmp_path / "checkpoints"))
    settings = load_settings()
    ensure_topics(settings)
    Checkpoint(settings, QUERY, {"KAFKA_TOPIC": "other"}).open({})
    with pytest.raises(CheckpointError, match=r"KAFKA_TOPIC is .* and was 'other'.*--rebuild"):
        checkpoint_of(settings).open({})
    done = CliRunner().invoke(app, ["stream", "--rebuild"])
    assert done.exit_code == 0, done.output
    assert "that of live events with the earliest record" in done.output
    checkpoint_of(settings).open({})


def test_run_notes_how_it_went_and_leaves_the_streams_to_their_owner(
    settings: Settings, spark_engine: SparkEngine
):
    send(settings, {0: [event("a"), b"broken"], 1: [event("b")]})
    with fresh_database(settings) as own:
        session = configured(spark_engine.session, own)
        with ownership(own, "stream"), pytest.raises(OwnedError, match="clickstream stream, process"):
            run_live_events(own, lambda: session)
        status = run_live_events(own, lambda: session)
        assert (status.rows, status.lag, ids(own)) == (3, keyed(settings, {0: 0, 1: 0}), ["a", "b"])
        assert query(own, "SELECT query, rows FROM stream_status") == [("live_events", 3)]
        away = with_settings(
            own, elasticsearch_url="http://u:s3cret@127.0.0.1:1", elasticsearch_patience_seconds=0
        )
        send(settings, {0: [event("c")]})
        with pytest.raises(
            ServerAwayError, match="cannot be reached: no answer from ELASTICSEARCH_URL=http://127"
        ) as caught:
            run_live_events(away, lambda: session)
        assert "s3cret" not in str(caught.value)


def test_sparks_workers_reach_a_server_whose_certificate_is_of_a_private_authority(
    settings: Settings, spark_engine: SparkEngine, tmp_path: Path
):
    with tls_front(int(settings.elasticsearch_url.rpartition(":")[2]), tmp_path) as front:
        url = f"https://127.0.0.1:{front.port}"
        encrypted = with_settings(settings, elasticsearch_url=url, elasticsearch_ca_file=front.ca_file)
        run(encrypted, spark_engine, {0: [event("a")]})
    assert ids(settings) == ["a"]


def test_stream_and_ingest_give_an_id_the_same_pseudonym_whoever_sees_it_first(
    settings: Settings, spark_engine: SparkEngine, duckdb_engine: DuckDBEngine
):
    with fresh_database(settings) as database:
        settings = with_settings(settings, postgres_db=database.postgres_db, pseudonyms=True)
        agent = {"user_agent": "Ann's browser/1.0", "session_id": "visit-1"}
        run(
            settings,
            spark_engine,
            {0: [event("a", user_id="ann-7", anonymous_id="phone-a", **agent), event("b", user_id="bob-8")]},
        )
        send(settings, {1: [event("c", user_id="carl-9"), event("d", user_id="ann-7", quantity="many")]})
        with ThreadPoolExecutor(2) as pool:
            # Both see Carl first at the same moment.
            for done in (
                pool.submit(Ingestion.of(settings, duckdb_engine).run),
                pool.submit(run, settings, spark_engine),
            ):
                done.result()
        found = query(settings, "SELECT kind, id, pseudonym FROM pseudonyms")
        kept = {(kind, sent_id): pseudonym for kind, sent_id, pseudonym in found}
        users = {"a": "ann-7", "b": "bob-8", "c": "carl-9", "d": "ann-7"}
        expected = {number: kept["user", user] for number, user in users.items()}
        live = documents(settings)
        assert {document["event_id"]: document["user_id"] for document in live} == expected
        lake = Lake(settings.lake, duckdb_engine)
        rows = duckdb_engine.to_arrow(lake.read(EVENTS)).to_pylist()
        assert {row["event_id"]: row["user_id"] for row in rows} == expected
        first = live[0]
        assert (first["anonymous_id"], first["session_id"]) == (
            kept["anonymous", "phone-a"],
            kept["session", "visit-1"],
        )
        assert live[3]["field_problems"] == [{"field": "quantity", "rule": "not_a_number", "value": None}]
        texts = repr(live)
        names = ("ann-7", "bob-8", "carl-9", "phone-a", "visit-1", "browser", "many")
        assert [each for each in names if each in texts] == []


def test_an_event_that_elasticsearch_refuses_is_kept_without_what_it_said(
    settings: Settings, spark_engine: SparkEngine, duckdb_engine: DuckDBEngine
):
    with fresh_database(settings) as database:
        settings = with_settings(settings, postgres_db=database.postgres_db, pseudonyms=True)
        run(settings, spark_engine, {0: [too_deep("deep"), event("a")]})
        assert ids(settings) == ["a"]
        (row,) = rejected(settings, duckdb_engine)
        assert (row["rejected_by"], row["key"], row["value"]) == ("elasticsearch", None, None)
