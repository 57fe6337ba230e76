import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from clickstream_assets.api.database import EXTENSION
from clickstream_assets.catalogue import REJECTED_COUNTS, SESSIONS
from clickstream_assets.catalogue.metrics import (
    CHECK_FAILING,
    CHECKED,
    INGEST_LAG,
    INGEST_RECORDS,
    MEASURED,
    METRICS,
)
from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets.stores.postgres.measurements import Sample, write_measurements
from clickstream_assets.stores.postgres.publishing import publication
from clickstream_assets_tests.api.conftest import clients_of
from clickstream_assets_tests.databases import fresh_database
from clickstream_assets_tests.stores.postgres.rows import row_of, session, sessions, table

BATCH = ("clickstream_ingest_", "clickstream_check_", "clickstream_rejected_")
STATEMENTS = """
INSERT INTO stream_status
    (query, owner, batch_id, watermark, rows, dropped_late, lag, latency_seconds, error, updated_at, lag_at, batch_at)
VALUES ('product_windows', 'me', 7, '2024-05-31 12:00Z', 1000, 3, '{"clicks/0": 5, "web/0": 0}', 2.5, NULL,
        '2024-05-31 12:10Z', '2024-05-31 12:08Z', '2024-05-31 12:05Z'),
       ('live_events', 'me', 9, NULL, 900, 0, '{"clicks/0": 1}', NULL, 'away', '2024-05-31 12:11Z', NULL, NULL);
INSERT INTO flash_sale_alerts (window_start, window_end, product_id, views, purchases, alert_id, state, conversion_rate,
    first_window_start, last_window_end, windows)
SELECT now(), now(), 'p', 120, 3, n::text, CASE WHEN n < 3 THEN 'open' ELSE 'resolved' END, 2.50, now(), now(), 1
FROM generate_series(1, 5) AS n;
INSERT INTO alert_notifications (notified_id, sequence, kind, sink, delivered_at, failed_at)
VALUES ('a', 1, 'opened', 'console', now(), NULL), ('b', 1, 'opened', 'console', NULL, NULL),
       ('a', 1, 'opened', 'webhook', NULL, now()), ('b', 1, 'opened', 'webhook', NULL, NULL),
       ('b', 2, 'resolved', 'webhook', NULL, NULL);
"""


@pytest.fixture
def client(postgres: Settings) -> Iterator[FlaskClient]:
    with fresh_database(postgres) as own:
        with connect(own) as connection:
            connection.execute(STATEMENTS)
        yield from clients_of(own)


def database_of(client: FlaskClient) -> Settings:
    """Settings that name the client's database."""
    return client.application.extensions[EXTENSION].settings


def rejected_counts(*rows: tuple[int, str, str, str, int]) -> pa.Table:
    """Counts of rejected records: how many hours ago, rule, field, by whom and how many."""
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    return table(
        REJECTED_COUNTS,
        [
            row_of(
                REJECTED_COUNTS,
                **{"hour": hour - timedelta(hours=ago), "rule": rule, "field": field},
                **{"rejected_by": rejected_by, "records": records, "share": Decimal(0)},
            )
            for ago, rule, field, rejected_by, records in rows
        ],
    )


def scraped(text: str) -> dict[tuple[str, ...], float]:
    """Return every sample's value by its name and the values of its labels in the order of their names."""
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_streams_alerts_and_notifications_are_measured(client: FlaskClient) -> None:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    samples = scraped(answer.text)
    # What this process has done for other tests is counted too.
    others = (
        "clickstream_api",
        "clickstream_collected",
        "clickstream_exposures",
        "clickstream_recent_events",
    )
    assert ("clickstream_recent_events_timestamp_seconds",) in samples
    streams = {key: value for key, value in samples.items() if not key[0].startswith(others)}
    assert streams == {
        ("clickstream_postgres_up",): 1,
        ("clickstream_stream_lag_records", "0", "product_windows", "clicks"): 5,
        ("clickstream_stream_lag_records", "0", "product_windows", "web"): 0,
        ("clickstream_stream_lag_records", "0", "live_events", "clicks"): 1,
        ("clickstream_stream_latency_seconds", "product_windows"): 2.5,
        ("clickstream_stream_failing", "product_windows"): 0,
        ("clickstream_stream_failing", "live_events"): 1,
        ("clickstream_stream_updated_timestamp_seconds", "product_windows"): 1717157400,
        ("clickstream_stream_updated_timestamp_seconds", "live_events"): 1717157460,
        ("clickstream_stream_lag_timestamp_seconds", "product_windows"): 1717157280,
        ("clickstream_stream_batch_timestamp_seconds", "product_windows"): 1717157100,
        ("clickstream_stream_watermark_timestamp_seconds", "product_windows"): 1717156800,
        ("clickstream_stream_records_total", "product_windows"): 1000,
        ("clickstream_stream_records_total", "live_events"): 900,
        ("clickstream_stream_late_events_total", "product_windows"): 3,
        ("clickstream_stream_late_events_total", "live_events"): 0,
        ("clickstream_alerts_open",): 2,
        ("clickstream_notifications", "console", "pending"): 1,
        ("clickstream_notifications", "console", "failed"): 0,
        ("clickstream_notifications", "webhook", "pending"): 2,
        ("clickstream_notifications", "webhook", "failed"): 1,
    }


@pytest.mark.parametrize(
    ("due", "failing"), [("NULL", 0), ("now() + interval '9 seconds'", 0), ("now() - interval '1 second'", 1)]
)
def test_a_stream_that_does_not_report_when_it_promised_to_is_failing(
    client: FlaskClient, due: str, failing: int
) -> None:
    with connect(database_of(client)) as connection:
        connection.execute(f"UPDATE stream_status SET due_at = {due}".encode())
    samples = scraped(client.get("/metrics").text)
    assert samples["clickstream_stream_failing", "product_windows"] == failing


def test_what_was_measured_elsewhere_is_shown_with_its_age(client: FlaskClient) -> None:
    database, at = database_of(client), datetime(2024, 5, 31, 11, 30, tzinfo=UTC)
    write_measurements(
        database, "kafka", [Sample(INGEST_LAG, ("web", "0"), 5), Sample(INGEST_LAG, ("web", "1"), 7)]
    )
    write_measurements(database, "kafka", [Sample(INGEST_LAG, ("web", "0"), 6)])
    write_measurements(
        database,
        "dagster",
        [
            Sample(INGEST_RECORDS, ("events",), 12),
            Sample(CHECK_FAILING, ("events", "counts_close", "error"), 1),
        ],
    )
    with connect(database) as connection:
        connection.execute("UPDATE measurements SET measured_at = '2024-05-31 12:00Z' WHERE source = 'kafka'")
        # Of another version of the product.
        connection.execute(
            "UPDATE measurements SET samples = samples || '[[\"unknown\", [], 1]]' WHERE source = 'dagster'"
        )
    with publication(database) as transaction:
        transaction.publish(SESSIONS, sessions(session("a"), session("b", start_time=at, end_time=at)))
        transaction.publish(
            REJECTED_COUNTS,
            rejected_counts(
                (0, "unknown", "event_type", "ingest", 3),
                (5, "unknown", "(record)", "ingest", 4),
                (40, "unknown", "event_type", "ingest", 50),
                (1, "document_parsing_exception: [1:2] failed", "(record)", "elasticsearch", 1),
                (1, "document_parsing_exception: [3:4] failed", "(record)", "elasticsearch", 1),
            ),
        )
    samples = scraped(client.get("/metrics").text)
    assert samples["clickstream_measured_timestamp_seconds", "kafka"] == 1717156800
    assert abs(samples["clickstream_measured_timestamp_seconds", "dagster"] - time.time()) < 60
    assert samples["clickstream_published_event_timestamp_seconds",] == 1717156890
    measured = {
        key: value for key, value in samples.items() if key[0] in METRICS and key[0].startswith(BATCH)
    }
    assert measured == {
        ("clickstream_ingest_lag_records", "0", "web"): 6,
        ("clickstream_ingest_records_total", "events"): 12,
        ("clickstream_check_failing", "events", "counts_close", "error"): 1,
        ("clickstream_rejected_records", "ingest", "unknown"): 7,
        ("clickstream_rejected_records", "elasticsearch", "document_parsing_exception"): 2,
    }


def test_every_metric_of_the_catalogue_is_shown_with_its_labels(client: FlaskClient) -> None:
    database = database_of(client)
    elsewhere = [
        metric
        for metric in METRICS.values()
        if metric is CHECKED or metric.age in (CHECKED.name, MEASURED.name)
    ]
    write_measurements(database, "dagster", [Sample(m, tuple(m.labels), 1) for m in elsewhere])
    with publication(database) as transaction:
        transaction.publish(SESSIONS, sessions(session("a")))
        counts = rejected_counts(
            (0, "unknown", "event_type", "ingest", 3), (0, "not_a_number", "price", "nobody", 1)
        )
        transaction.publish(REJECTED_COUNTS, counts)
    client.get("/health/live")
    shown: dict[str, tuple[str, set[str]]] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        shown[name] = (family.type, {label for sample in family.samples for label in sample.labels} - {"le"})
    assert shown == {name: (str(metric.kind), set(metric.labels)) for name, metric in METRICS.items()}


def test_requests_are_counted_by_what_clients_cannot_make_up(client: FlaskClient) -> None:
    def count(*labels: str) -> float:
        name = "clickstream_api_request_seconds_count"
        return scraped(client.get("/metrics").text).get((name, *labels), 0)

    labels = [
        ("GET", "/api/recommend/<any_text:user_id>", "503"),
        ("GET", "none", "404"),
        ("other", "none", "405"),
    ]
    before = [count(*each) for each in labels]
    client.get("/api/recommend/somebody")
    client.get("/nowhere/at/all")
    client.open("/sessions", method="INVENTED")
    assert [count(*each) for each in labels] == [n + 1 for n in before]
