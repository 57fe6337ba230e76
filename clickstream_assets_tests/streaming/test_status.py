"""The status of a query, by Spark's progress reports."""

import json
from datetime import UTC, datetime

from clickstream_assets.stores.kafka.topic import Offsets
from clickstream_assets.streaming.status import Status


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
    def __init__(self, *reports: Report) -> None:
        self.recentProgress = reports


def test_a_batch_is_taken_in_once_however_often_it_is_reported():
    status = Status("q")
    assert status.take_in(Query(Report(0, 10, 1), Report(1, 5, 2))) == (15, 3)  # type: ignore[arg-type]
    assert status.take_in(Query(Report(1, 5, 2), Report(2, 1, 0))) == (1, 0)  # type: ignore[arg-type]
    assert (status.rows, status.dropped_late, status.batch_id) == (16, 3, 2)
    status.update_lag({0: Offsets(0, 9), 1: Offsets(0, 6), 2: Offsets(3, 4)})
    assert status.lag == {0: 4, 1: 0, 2: 1}
    assert status.watermark == datetime(2024, 5, 1, 12, tzinfo=UTC)
