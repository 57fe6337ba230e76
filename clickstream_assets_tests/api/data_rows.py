"""A shop whose data are looked at: records of today and of days before, and what was measured of its pipeline."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from clickstream_assets.catalogue import RECORD_DAYS, REJECTED_SAMPLES
from clickstream_assets.catalogue.metrics import (
    CHECK_FAILING,
    CHECKED,
    INGEST_LAG,
    INGEST_RECORDS,
    INGESTED_EVENT,
    JOB_FAILURE,
    JOB_SUCCESS,
)
from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets.stores.postgres.measurements import (
    Agreement,
    Problem,
    Sample,
    State,
    write_measurements,
)
from clickstream_assets.stores.postgres.publishing import publication
from clickstream_assets_tests.api.shop import record_day, rejected_sample
from clickstream_assets_tests.stores.postgres.rows import table

NOW = datetime.now(UTC).replace(microsecond=0)
TODAY = NOW.date()
HOUR = timedelta(hours=1)

RECORDS = [
    # Of all 200: 180 events, of which 6 are of an earlier day, 10 duplicates, 2 conflicts and 8 rejected.
    record_day(TODAY, "event", 180),
    record_day(TODAY, "late", 6),
    record_day(TODAY, "duplicate", 10),
    record_day(TODAY, "conflict", 2),
    record_day(TODAY, "rejected", 5, "unknown", "event_type"),
    record_day(TODAY, "rejected", 3, "missing", "product_id"),
    record_day(TODAY, "left_out", 4, "not_a_number", "price"),
    record_day(TODAY, "refused", 1, "mapper_parsing_exception", "price"),
    record_day(TODAY - timedelta(days=1), "event", 95),
    record_day(TODAY - timedelta(days=1), "rejected", 5, "unknown", "event_type"),
    # Fourteen days are those up to today: this is the last of them, and the one after it is not.
    record_day(TODAY - timedelta(days=13), "event", 7),
    record_day(TODAY - timedelta(days=14), "event", 1000),
]
SAMPLES = [
    *(rejected_sample(TODAY, number, "unknown", "event_type", f"<i>{number}</i>", 0) for number in range(5)),
    rejected_sample(TODAY, 9, "missing", "product_id", None, 0),
]
STREAMS = """
INSERT INTO stream_status
    (query, owner, batch_id, watermark, rows, dropped_late, lag, latency_seconds, error, lag_at, batch_at)
VALUES ('product_windows', 'me', 7, '2024-05-31 12:00Z', 1000, 3, '{"clicks/0": 5, "clicks/1": 2}', 2.5, NULL,
        '2024-05-31 12:08Z', '2024-05-31 12:05Z'),
       ('live_events', 'me', 9, NULL, 900, 0, '{}', NULL, 'the server of ann@example.org is away', NULL, NULL);
"""


def ago(hours: float) -> float:
    """Seconds since 1970 at a time before now."""
    return (NOW - hours * HOUR).timestamp()


MEASURED = [
    *(Sample(JOB_SUCCESS, (job,), ago(hours)) for job, hours in (("ingest", 1), ("refresh", 9))),
    *(Sample(JOB_FAILURE, (job,), at) for job, at in (("ingest", ago(2)), ("refresh", ago(1)), ("train", 0))),
    Sample(JOB_SUCCESS, ("train",), 0),
    Sample(CHECK_FAILING, ("events", "counts_close", "error"), 0),
    Sample(CHECKED, ("events", "counts_close"), ago(1)),
    Sample(CHECK_FAILING, ("rejected_events", "rejected_shares_are_usual", "warn"), 1),
    Sample(CHECKED, ("rejected_events", "rejected_shares_are_usual"), ago(1)),
    # Made anew since, and not checked for a day; and one whose table is as it was.
    Sample(CHECK_FAILING, ("sessions", "keys_are_unique", "error"), 0),
    Sample(CHECKED, ("sessions", "keys_are_unique"), ago(25)),
    Sample(CHECK_FAILING, ("carts", "keys_are_unique", "error"), 0),
    Sample(CHECKED, ("carts", "keys_are_unique"), ago(25)),
    Sample(CHECK_FAILING, ("product_windows", "stream_agrees_with_batch", "error"), 0),
    Sample(CHECKED, ("product_windows", "stream_agrees_with_batch"), ago(3)),
    Sample(INGEST_RECORDS, ("events",), 282),
    Sample(INGESTED_EVENT, (), ago(0.5)),
]
STATE = State(
    updated={"events": ago(1), "sessions": ago(2), "carts": ago(26), "product_windows": ago(1)},
    groups={"events": "raw", "sessions": "sessions", "carts": "sessions", "product_windows": "windows"},
    failed_runs={"ingest": "run-1", "refresh": "run-2"},
    problems=[
        Problem(
            "run_failed", "refresh", "error", "job refresh failed 3 times in a row", ago(4), "/runs/run-2"
        ),
        Problem("asset_overdue", "carts", "error", "asset carts is overdue", ago(3), "/assets/carts"),
    ],
    agreement=Agreement(
        True, "40 windows, closed up to 12:00, were compared", 40, {"late": 2, "repeated": 1, "lost": 0}
    ),
)


def publish_data(settings: Settings) -> None:
    """Publish the rows, and note what was measured."""
    with publication(settings) as transaction:
        transaction.publish(RECORD_DAYS, table(RECORD_DAYS, RECORDS))
        transaction.publish(REJECTED_SAMPLES, table(REJECTED_SAMPLES, SAMPLES))
        transaction.renew_stamp("rejected_counts")
    write_measurements(settings, "dagster", MEASURED, STATE)
    waiting = [Sample(INGEST_LAG, ("clicks", str(number)), 10 * number) for number in (0, 1, 2)]
    write_measurements(settings, "kafka", waiting)
    with connect(settings) as connection:
        connection.execute(STREAMS)
