"""The status of a query, by Spark's progress reports."""

import json
from datetime import UTC, datetime

from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.partition import TopicPartition
from clickstream_assets.stores.kafka.topic import Offsets
from clickstream_assets.streaming.process import ManagedQuery
from clickstream_assets.streaming.status import Status

P0, P1, P2 = (TopicPartition("events", number) for number in range(3))


class Report:
    def __init__(self, batch_id: int, rows: int, late: int) -> None:
        dedupe = {"operatorName": "dedupeWithinWatermark"}
        self.json = json.dumps(
            {
                "batchId": batch_id,
                "numInputRows": rows,
                "processedRowsPerSecond": 10.0,
                "eventTime": {"watermark": "2024-05-01T12:00:00.000Z"},
                "stateOperators": [
                    {"operatorName": "stateStoreSave", "numRowsDroppedByWatermark": 0},
                    dedupe | {"numRowsDroppedByWatermark": 0},
                    dedupe | {"numRowsDroppedByWatermark": late},
                ],
                "sources": [{"endOffset": '{"events":{"0":5,"1":6}}'}],
            }
        )


class Query:
    isActive = True

    def __init__(self, *reports: Report) -> None:
        self.recentProgress = reports


def test_a_batch_is_taken_in_once_however_often_it_is_reported():
    status = Status("q")
    status.take_in(Query(Report(0, 10, 1), Report(1, 5, 2)))  # type: ignore[arg-type]
    assert (status.rows, status.dropped_late, status.batch_id) == (15, 3, 1)
    first_batches_at = status.batch_at
    status.take_in(Query(Report(1, 5, 2)))  # type: ignore[arg-type]
    assert status.batch_at == first_batches_at
    status.take_in(Query(Report(1, 5, 2), Report(2, 1, 0)))  # type: ignore[arg-type]
    assert (status.rows, status.dropped_late, status.batch_id) == (16, 3, 2)
    assert (status.unwritten_rows, status.unwritten_late) == (16, 3)
    status.update_lag({P0: Offsets(0, 9), P1: Offsets(0, 6), P2: Offsets(3, 4)})
    assert status.lag == {P0: 4, P1: 0, P2: 1}
    assert status.watermark == datetime(2024, 5, 1, 12, tzinfo=UTC)


def test_a_query_is_at_fault_from_when_a_server_is_away_until_a_batch_succeeds_or_nothing_is_left():
    query = Query()
    managed = ManagedQuery(Status("q"), Settings(_env_file=None), lambda _: query, dict)  # type: ignore[arg-type, return-value]
    status = managed.status
    managed.observe({P0: Offsets(0, 0)}, None)
    managed.start({})
    managed.observe({P0: Offsets(0, 0)}, None)
    assert (status.fault, status.lag) == (None, {P0: 0})
    measured = status.lag_at

    managed.observe(None, "no broker answers")
    assert (status.fault, status.lag, status.lag_at) == ("no broker answers", {P0: 0}, measured)
    # Kafka is back, with records that the query has yet to read.
    managed.observe({P0: Offsets(0, 5), P1: Offsets(0, 6)}, None)
    assert (status.fault, status.lag) == ("no broker answers", {P0: 5, P1: 6})
    query.recentProgress = (Report(0, 11, 0),)
    managed.observe({P0: Offsets(0, 9), P1: Offsets(0, 6)}, None)
    assert (status.fault, status.lag) == (None, {P0: 4, P1: 0})

    status.error = "the query was stopped"
    managed.observe({P0: Offsets(0, 9), P1: Offsets(0, 6)}, None)
    assert status.error
    managed.observe({P0: Offsets(0, 5), P1: Offsets(0, 6)}, None)
    assert status.error is None
