from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets_tests.api.conftest import clients_of
from clickstream_assets_tests.databases import fresh_database

STATEMENTS = """
INSERT INTO stream_status
    (query, owner, batch_id, watermark, rows, dropped_late, lag, latency_seconds, error, updated_at)
VALUES ('product_windows', 'me', 7, '2024-05-31 12:00Z', 1000, 3, '{"0": 5, "1": 0}', 2.5, NULL, '2024-05-31 12:10Z'),
       ('live_events', 'me', 9, NULL, 900, 0, '{"0": 1}', NULL, 'away', '2024-05-31 12:11Z');
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
    streams = {key: value for key, value in samples.items() if not key[0].startswith("clickstream_api")}
    assert streams == {
        ("clickstream_postgres_up",): 1,
        ("clickstream_stream_lag_records", "0", "product_windows"): 5,
        ("clickstream_stream_lag_records", "1", "product_windows"): 0,
        ("clickstream_stream_lag_records", "0", "live_events"): 1,
        ("clickstream_stream_latency_seconds", "product_windows"): 2.5,
        ("clickstream_stream_failing", "product_windows"): 0,
        ("clickstream_stream_failing", "live_events"): 1,
        ("clickstream_stream_updated_timestamp_seconds", "product_windows"): 1717157400,
        ("clickstream_stream_updated_timestamp_seconds", "live_events"): 1717157460,
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
