"""Refused records by the command line: from a real topic to the lake, and back to the topic."""

import json
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from clickstream_assets.commands.app import app
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.ingest.classification import misclassified_records
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.producer import ensure_topics
from clickstream_assets_tests.analytics.records import money
from clickstream_assets_tests.databases import with_settings
from clickstream_assets_tests.ingestion import Ingestion
from clickstream_assets_tests.topics import new_topic, send

NOT_UTF8 = b"\xff\x1b[31m"


@pytest.fixture
def shop(kafka: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A topic and a lake of one's own, which the environment names too."""
    settings = with_settings(new_topic(kafka), lake_path=str(tmp_path / "lake"))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", settings.kafka_bootstrap_servers)
    monkeypatch.setenv("KAFKA_TOPIC", settings.kafka_topic)
    monkeypatch.setenv("LAKE_PATH", settings.lake)
    monkeypatch.setenv("CLICKSTREAM_HOME", str(tmp_path))
    return settings


def event(**fields: object) -> bytes:
    return msgspec.json.encode(
        {"event_type": "view", "user_id": "u", "product_id": "p", "timestamp": "2024-05-01T00:00:00Z"}
        | fields
    )


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["rejected", *arguments])


def ingested(shop: Settings, duckdb_engine: DuckDBEngine, *values: bytes | None) -> Ingestion:
    send(shop, {0: values}, key=b"key")
    ingestion = Ingestion.of(shop, duckdb_engine)
    ingestion.run()
    return ingestion


def counts(ingestion: Ingestion) -> tuple[int, ...]:
    """Rows of raw_events, rejected_events, duplicate_events and events."""
    found = ingestion.counts()
    return tuple(found[name] for name in ("raw_events", "rejected_events", "duplicate_events", "events"))


def test_what_is_mended_becomes_an_event_once(shop: Settings, duckdb_engine: DuckDBEngine):
    ingestion = ingested(
        shop,
        duckdb_engine,
        event(),
        event(event_type="product_seen", n=1),
        event(event_type="product_seen", n=2),
        b"{",
    )
    assert counts(ingestion) == (4, 3, 0, 1)

    mending = ("replay", "--rule", "unknown", "--value", "product_seen", "--set", "event_type=view")
    dry = run(*mending, "--dry-run")
    assert json.loads(dry.stdout) == {"selected": 2, "would_be_sent": 2, "still_rejected": {}}
    ingestion.run()
    assert counts(ingestion) == (4, 3, 0, 1)

    for raw, duplicates in ((6, 0), (8, 2)):
        result = run(*mending)
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout.splitlines()[-1]) == {"selected": 2, "sent": 2, "still_rejected": {}}
        ingestion.run()
        assert counts(ingestion) == (raw, 3, duplicates, 3)
    assert ingestion.misclassified() == {}


def test_a_changed_setting_lets_in_what_it_allows(
    shop: Settings, duckdb_engine: DuckDBEngine, monkeypatch: pytest.MonkeyPatch
):
    early = event(timestamp="2001-01-01T00:00:00Z")
    ingestion = ingested(shop, duckdb_engine, early, b"{")
    refused = run("replay")
    assert json.loads(refused.stdout) == {
        "selected": 2,
        "sent": 0,
        "still_rejected": {"before_events_start_date": 1, "not_json": 1},
    }
    assert f"{shop.kafka_topic}/0, offset 0: timestamp: before_events_start_date" in refused.stderr

    assert (
        "before_events_start_date: before 2010-01-01. To take these too, set EVENTS_START_DATE"
        in run("list").stdout
    )

    monkeypatch.setenv("EVENTS_START_DATE", "2000-01-01")
    assert json.loads(run("replay").stdout)["sent"] == 1
    rules_changed = Ingestion(with_settings(shop, events_start_date="2000-01-01"), ingestion.lake)
    rules_changed.run()
    assert counts(rules_changed) == (3, 2, 0, 1)


def test_the_list_counts_by_rule_and_shows_the_newest(shop: Settings, duckdb_engine: DuckDBEngine):
    ingested(shop, duckdb_engine, event(user_id=None), event(event_type="product_seen"), NOT_UTF8, None)
    text = run("list", "--limit", "2")
    assert text.exit_code == 0, text.output
    lines = text.stdout.splitlines()
    assert lines[0] == "4 records are rejected."
    assert [line.split() for line in lines[1:5]] == [
        ["1", "missing", "user_id"],
        ["1", "not_json", "(the", "record)"],
        ["1", "tombstone", "(the", "record)"],
        ["1", "unknown", "event_type"],
    ]
    assert [line.split()[0] for line in lines[-2:]] == [f"{shop.kafka_topic}/0:{n}" for n in (2, 3)]
    assert "\x1b" not in text.stdout

    assert run("list", "--rule", "unknown", "--field", "event_type").stdout.startswith(
        "1 record is rejected."
    )
    records = [json.loads(line) for line in run("list", "--format", "json").stdout.splitlines()]
    assert [record["rule"] for record in records] == ["missing", "unknown", "not_json", "tombstone"]
    assert [record["offset"] for record in records] == [0, 1, 2, 3]
    assert json.loads(records[1]["value"])["event_type"] == "product_seen"
    assert records[1]["key"] == "key"
    assert records[2]["value_base64"] == "/xtbMzFt"
    assert records[3]["value"] is None


def test_what_does_not_do_is_named_with_what_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("LAKE_PATH", str(tmp_path / "nothing"))
    result = run("list")
    assert result.exit_code == 1
    assert f"LAKE_PATH={tmp_path / 'nothing'}: there is no table rejected_events" in result.stderr
    assert not (tmp_path / "nothing").exists()


ORDER = {
    "type": "track",
    "event": "Order Completed",
    "anonymousId": "a",
    "timestamp": "2024-05-01T12:00:00Z",
    "properties": {
        "order_id": "o",
        "products": [{"sku": "p", "price": 1}, {"sku": "q", "price": "1.99 each"}],
    },
}


def test_a_record_of_another_tracker_is_shown_and_mended_in_its_words_and_sent_to_its_topic(
    shop: Settings, duckdb_engine: DuckDBEngine, monkeypatch: pytest.MonkeyPatch
):
    web = f"{shop.kafka_topic}-web"
    both = with_settings(shop, kafka_topic=f"{shop.kafka_topic},{web}=segment", kafka_topic_partitions=1)
    monkeypatch.setenv("KAFKA_TOPIC", both.kafka_topic)
    ensure_topics(both)
    send(both, {0: [msgspec.json.encode(ORDER), b"Obj\x01avro"]}, topic=web)
    ingestion = ingested(both, duckdb_engine, event(event_type="product_seen"))
    assert counts(ingestion) == (3, 3, 0, 1)

    lines = run("list").stdout.splitlines()
    assert lines[0] == "3 records are rejected."
    assert "avro: Avro is not read. Have the sender, or the connector before Kafka, write JSON" in lines[4]
    shown = [line.split("  ") for line in lines[-3:]]
    assert {(line[0], line[2], line[3]) for line in shown} == {
        (f"{web}/0:0", "not_a_number", "price (properties.products[1].price in segment)"),
        (f"{web}/0:1", "avro", "(record)"),
        (f"{shop.kafka_topic}/0:0", "unknown", "event_type"),
    }
    records = [json.loads(line) for line in run("list", "--format", "json").stdout.splitlines()]
    assert {(record["rule"], record["dialect"], record["path"]) for record in records} == {
        ("not_a_number", "segment", "properties.products[1].price"),
        ("avro", None, None),
        ("unknown", "own", "event_type"),
    }

    result = run("replay", "--field", "price", "--set", "properties.products[1].price=1.99")
    assert json.loads(result.stdout.splitlines()[-1]) == {"selected": 1, "sent": 1, "still_rejected": {}}
    ingestion.run()
    assert counts(ingestion) == (4, 3, 1, 2)
    mended = ingestion.contents()["events"][-1]
    assert (mended["topic"], mended["offset"], mended["product_id"], mended["price"]) == (
        web,
        2,
        "q",
        money("1.99"),
    )
    assert misclassified_records(ingestion.lake, 2, first_batch=1) == []

    refused = run("replay", "--rule", "avro", "--set", "event_type=view")
    assert json.loads(refused.stdout)["still_rejected"] == {"avro": 1}
    assert "avro: Avro is not read" in refused.stderr


def test_a_change_is_a_field_and_a_value(shop: Settings, duckdb_engine: DuckDBEngine):
    ingested(shop, duckdb_engine, b"{")
    result = run("replay", "--set", "event_type")
    assert result.exit_code == 1
    assert "--set event_type: write it as FIELD=VALUE" in result.stderr
    result = run("replay", "--drop", "properties.products[one]")
    assert result.exit_code == 1
    assert "--drop properties.products[one]: '[one]' of" in result.stderr
