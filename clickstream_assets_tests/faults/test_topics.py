"""Topics that are not what they were: records that Kafka deleted unread, and a topic that was made anew."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.topic import DataLossError
from clickstream_assets_tests.databases import with_settings
from clickstream_assets_tests.faults.account import Part, take_account
from clickstream_assets_tests.faults.plugin import Fault
from clickstream_assets_tests.ingestion import Ingestion
from clickstream_assets_tests.streaming.streams import Shop, new_shop
from clickstream_assets_tests.streaming.test_process import (
    QUICK,
    documents,
    has_caught_up,
    has_documents,
    running,
    traffic,
    wait_until,
)
from clickstream_assets_tests.topics import delete_records, make_anew, new_topic, send

CLICKSTREAM = str(Path(sys.executable).with_name("clickstream"))
OF = (Part.TOPIC, Part.LAKE)


@pytest.mark.fault("records_deleted_unread")
def test_records_that_kafka_deleted_unread_stop_the_ingest_until_a_person_lets_them_go(
    kafka: Settings, duckdb_engine: DuckDBEngine, tmp_path: Path, fault: Fault
):
    settings = with_settings(new_topic(kafka), lake_path=str(tmp_path / "lake"))
    events = traffic(0, 100)
    send(settings, {0: [json.dumps(event).encode() for event in events[:40]]})
    Ingestion.of(settings, duckdb_engine).run()
    send(settings, {0: [json.dumps(event).encode() for event in events[40:]]})
    delete_records(settings, settings.first_topic, 0, before=60)
    with pytest.raises(DataLossError) as lost:
        Ingestion.of(settings, duckdb_engine).run()
    fault.saw(str(lost.value))
    with fault.until_healthy():
        Ingestion.of(with_settings(settings, allow_data_loss=True), duckdb_engine).run()
    unread = {event["event_id"] for event in events[40:60]}
    fault.settle(take_account(settings, events, OF, absent=dict.fromkeys(OF, unread)), let_go=len(unread))


@pytest.mark.fault("topic_made_anew")
def test_a_topic_that_was_made_anew_is_not_read_on_until_a_person_names_another(
    kafka: Settings, duckdb_engine: DuckDBEngine, tmp_path: Path, fault: Fault
):
    settings = with_settings(new_topic(kafka), lake_path=str(tmp_path / "lake"))
    events = traffic(0, 100)
    values = [json.dumps(event).encode() for event in events]
    send(settings, {0: values[:20]})
    Ingestion.of(settings, duckdb_engine).run()
    make_anew(settings)
    # More than before: by its offsets alone it would pass for the old one, and the first twenty be lost.
    send(settings, {0: values[20:80]})
    with pytest.raises(DataLossError) as anew:
        Ingestion.of(settings, duckdb_engine).run()
    fault.saw(str(anew.value))
    # What the new one has is copied to one of another name, where the shop goes on.
    other = with_settings(new_topic(kafka), lake_path=settings.lake_path)
    send(other, {0: values[20:]})
    with fault.until_healthy():
        Ingestion.of(other, duckdb_engine).run()
    fault.settle(take_account(other, events, OF))


def ids_of(found: list[tuple[str, str, dict[str, Any]]]) -> set[str]:
    return {number for number, _, _ in found}


def rebuilt(shop: Shop) -> subprocess.CompletedProcess[str]:
    command = [CLICKSTREAM, "stream", "--rebuild"]
    return subprocess.run(command, env=shop.environment(), capture_output=True, text=True, check=False)


@pytest.mark.long
@pytest.mark.spark
@pytest.mark.timeout(1800)
@pytest.mark.fault("records_deleted_before_stream")
def test_a_stream_that_was_away_for_longer_than_kafka_keeps_records_is_rebuilt_from_the_lake(
    servers: Settings, tmp_path: Path, fault: Fault
):
    log = tmp_path / "stream.log"
    with new_shop(servers, tmp_path, partitions=3, **QUICK) as shop:
        with running(shop, log):
            shop.send(traffic(0, 100))
            wait_until(lambda: has_caught_up(shop) and has_documents(shop), log)
        shop.send(traffic(100, 100))
        shop.ingest()
        delete_records(shop.settings, shop.settings.first_topic, 0, before=150)
        # Live events are a view of what Kafka has; windows have all that the lake has.
        unread = {event["event_id"] for event in shop.sent[100:150]}
        others = {event["event_id"] for event in shop.sent} - unread
        with running(shop, log) as process:
            wait_until(lambda: process.poll() is not None, log)
        assert process.returncode == 1
        fault.saw(log.read_text(), r"Kafka no longer has records of .*")
        with fault.until_healthy():
            assert rebuilt(shop).returncode == 0
            with running(shop, log):
                # Later than all before: windows of which Kafka has not all any more are final.
                shop.send(traffic(100_000, 100))
                others |= {event["event_id"] for event in shop.sent[200:]}
                wait_until(lambda: has_caught_up(shop) and others <= ids_of(documents(shop.settings)), log)
        shop.ingest()
        fault.settle(take_account(shop.settings, shop.sent, absent={Part.DOCUMENTS: unread}))


@pytest.mark.long
@pytest.mark.spark
@pytest.mark.timeout(1800)
@pytest.mark.fault("topic_made_anew_under_stream")
def test_a_topic_that_is_made_anew_under_a_stream_stops_it_until_a_person_names_another(
    servers: Settings, tmp_path: Path, fault: Fault
):
    log = tmp_path / "stream.log"
    with new_shop(servers, tmp_path, partitions=3, **QUICK) as shop:
        with running(shop, log) as process:
            shop.send(traffic(0, 100))
            wait_until(lambda: has_caught_up(shop) and has_documents(shop), log)
            shop.ingest()
            make_anew(shop.settings, partitions=3)
            # More than before: by its offsets alone it would pass for the old one.
            shop.send(traffic(100, 200))
            wait_until(lambda: process.poll() is not None, log)
        assert process.returncode == 1
        fault.saw(log.read_text(), r"KAFKA_TOPIC: .* is another topic than .*")
        # As the lake has the old one's events, from where it ends the new one would be read.
        refused = rebuilt(shop)
        assert refused.returncode == 1
        assert "is another topic than the one that was ingested" in refused.stderr
        with fault.until_healthy():
            # What the new one has is copied to one of another name, where the shop goes on.
            copied, shop.sent = shop.sent[100:], shop.sent[:100]
            shop.settings = with_settings(
                shop.settings, kafka_topic=new_topic(shop.settings, partitions=3).kafka_topic
            )
            shop.send(copied)
            shop.ingest()
            assert rebuilt(shop).returncode == 0
            with running(shop, log):
                # Later than all before: windows of which this topic has not all are final.
                shop.send(traffic(100_000, 100))
                wait_until(lambda: has_caught_up(shop) and has_documents(shop), log)
        shop.ingest()
        fault.settle(take_account(shop.settings, shop.sent))
