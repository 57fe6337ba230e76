"""Topics that are not what they were: records that Kafka deleted unread, and a topic that was made anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.topic import DataLossError
from clickstream_assets_tests.databases import with_settings
from clickstream_assets_tests.faults.account import Part, take_account
from clickstream_assets_tests.faults.plugin import Fault
from clickstream_assets_tests.ingestion import Ingestion
from clickstream_assets_tests.streaming.test_process import traffic
from clickstream_assets_tests.topics import delete_records, make_anew, new_topic, send

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
