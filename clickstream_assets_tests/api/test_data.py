"""How the data are, by the API and on its page: rows and measurements counted by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.measurements import State, write_measurements
from clickstream_assets_tests.api.conftest import clients_of
from clickstream_assets_tests.api.data_rows import TODAY, ago, publish_data
from clickstream_assets_tests.databases import free_port, fresh_database, with_settings

DAGSTER = "https://dagster.example.org/"


@pytest.fixture(scope="module")
def settings(postgres: Settings, elasticsearch: Settings) -> Iterator[Settings]:
    with fresh_database(postgres) as own:
        publish_data(own)
        yield with_settings(
            own, elasticsearch_url=elasticsearch.elasticsearch_url, dagster_url=DAGSTER, kafka_topic="clicks"
        )


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[FlaskClient]:
    yield from clients_of(settings)


@pytest.fixture
def empty(postgres: Settings) -> Iterator[FlaskClient]:
    with fresh_database(postgres) as own:
        yield from clients_of(own)


def data_of(client: FlaskClient) -> dict[str, Any]:
    answer = client.get("/api/data")
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json
    return content


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_ingest_is_as_far_as_was_measured_last(client: FlaskClient) -> None:
    said = data_of(client)
    ingest = said["ingest"]
    assert ingest["waiting_records"] == 30
    assert [(row["topic"], row["partition"], row["records"]) for row in ingest["waiting"]] == [
        ("clicks", 0, 0),
        ("clicks", 1, 10),
        ("clicks", 2, 20),
    ]
    assert (seconds(ingest["ingested_at"]), seconds(ingest["newest_event_at"])) == (ago(1), ago(0.5))
    assert ingest["published_event_at"] is None
    assert [row["source"] for row in said["sources"]] == ["dagster", "kafka"]
    assert all(0 <= seconds(said["asked_at"]) - seconds(row["measured_at"]) < 600 for row in said["sources"])


def test_days_are_the_last_fourteen_on_which_records_came(client: FlaskClient) -> None:
    names = ("events", "late", "duplicates", "conflicts", "rejected", "left_out", "refused")
    days = [(row["date"], row["received"], *(row[name] for name in names)) for row in data_of(client)["days"]]
    assert days == [
        (str(TODAY), 200, 180, 6, 10, 2, 8, 4, 1),
        (str(TODAY - timedelta(days=1)), 100, 95, 0, 0, 0, 5, 0, 0),
        (str(TODAY - timedelta(days=13)), 7, 7, 0, 0, 0, 0, 0, 0),
    ]


def test_streams_say_their_state_and_lag_and_nothing_that_an_error_said(client: FlaskClient) -> None:
    live, windows = data_of(client)["streams"]
    assert windows == {
        "query": "product_windows",
        "is_failing": False,
        "waiting_records": 7,
        "waiting_measured_at": "2024-05-31T12:08:00Z",
        "latency_seconds": 2.5,
        "records": 1000,
        "late_events": 3,
        "watermark": "2024-05-31T12:00:00Z",
        "last_batch_at": "2024-05-31T12:05:00Z",
        "updated_at": windows["updated_at"],
        "url": "https://dagster.example.org/assets/product_windows",
    }
    assert (live["query"], live["is_failing"], live["latency_seconds"]) == ("live_events", True, None)
    assert "ann@example.org" not in client.get("/api/data").text + client.get("/data").text


def test_checks_jobs_and_tables_say_what_is_wrong_first_with_links(client: FlaskClient) -> None:
    said = data_of(client)
    checks = [(row["asset"], row["is_failing"], row["is_overdue"]) for row in said["checks"]]
    assert checks == [
        ("rejected_events", True, False),
        ("sessions", False, True),
        ("carts", False, False),
        ("events", False, False),
        ("product_windows", False, False),
    ]
    assert said["checks"][0]["url"] == (
        "https://dagster.example.org/assets/rejected_events?view=checks&checkDetail=rejected_shares_are_usual"
    )
    jobs = {row["job"]: (row["is_failing"], row["failed_run_url"]) for row in said["jobs"]}
    assert jobs == {
        "refresh": (True, "https://dagster.example.org/runs/run-2"),
        "ingest": (False, "https://dagster.example.org/runs/run-1"),
        "train": (False, None),
    }
    assert said["jobs"][0]["job"] == "refresh"
    assert (said["jobs"][2]["succeeded_at"], said["jobs"][2]["failed_at"]) == (None, None)
    assert [(row["group"], row["asset"], row["is_overdue"]) for row in said["tables"]] == [
        ("raw", "events", False),
        ("sessions", "carts", True),
        ("sessions", "sessions", False),
        ("windows", "product_windows", False),
    ]
    assert [row["asset"] for row in said["published"]] == ["rejected_counts"]
    assert [(row["summary"], seconds(row["since"]), row["url"]) for row in said["problems"]] == [
        ("job refresh failed 3 times in a row", ago(4), "https://dagster.example.org/runs/run-2"),
        ("asset carts is overdue", ago(3), "https://dagster.example.org/assets/carts"),
    ]


def test_stream_and_batch_agree_as_the_check_last_said(client: FlaskClient) -> None:
    said = data_of(client)["stream_against_batch"]
    assert (said["is_agreed"], said["compared"], seconds(said["checked_at"])) == (True, 40, ago(3))
    assert said["differences"] == {"late": 2, "repeated": 1, "lost": 0}


def test_nothing_is_said_of_what_was_never_measured(empty: FlaskClient) -> None:
    said = data_of(empty)
    assert said["ingest"] == {
        **dict.fromkeys(("ingested_at", "newest_event_at", "published_event_at", "waiting_records")),
        "waiting_measured_at": None,
        "waiting": [],
    }
    lists = ("days", "streams", "tables", "published", "checks", "jobs", "problems", "sources")
    assert all(said[name] == [] for name in lists)
    assert said["stream_against_batch"] is said["dagster_url"] is None


def test_a_state_of_another_version_of_the_product_is_read_as_far_as_it_is_known(empty: FlaskClient) -> None:
    database = empty.application.extensions["clickstream_database"].settings
    write_measurements(database, "dagster", [], State(updated={"events": ago(1)}))
    said = data_of(empty)
    assert [(row["asset"], row["group"], row["url"]) for row in said["tables"]] == [("events", "", None)]


def text_of(page: str) -> str:
    """Return a page's text, without tags and with single spaces."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def figures_of(page: str) -> dict[str, str]:
    found = re.findall(r"<dt>(.*?)</dt>\s*<dd class=\"value\">(.*?)</dd>", page, re.DOTALL)
    return {re.sub(r"<[^>]*>", "", label): value for label, value in found}


def table_of(page: str, caption: str) -> list[list[str]]:
    """Return the cells of the rows of the table with a caption."""
    [body] = re.findall(rf"<caption[^>]*>{re.escape(caption)}.*?<tbody>(.*?)</tbody>", page, re.DOTALL)
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    return [
        [text_of(cell).strip() for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)]
        for row in rows
    ]


def test_the_page_shows_the_numbers_of_the_api(client: FlaskClient) -> None:
    page = client.get("/data", headers={"Accept-Language": "en-GB"}).text
    said = data_of(client)
    figures = figures_of(page)
    # Half an hour when the tests were read, and as much more as they have taken since.
    assert re.fullmatch(r"[3-5]\d mins?|1 hr", figures.pop("Age of the newest event"))
    assert figures == {
        "Records waiting in Kafka": str(said["ingest"]["waiting_records"]),
        "Records today": "200",
        "Rejected today": "8",
        "Checks failing": "1",
        "Wrong now": "2",
    }
    rows = table_of(page, "Records by day of arrival")
    assert len(rows) == 14
    # In time, of an earlier day, duplicates, conflicts, rejected.
    assert [row[1:] for row in rows[-2:]] == [["95", "0", "0", "0", "5"], ["174", "6", "10", "2", "8"]]
    assert rows[0][1:] == ["7", "0", "0", "0", "0"]
    for day in said["days"]:
        row = rows[(datetime.fromisoformat(day["date"]).date() - (TODAY - timedelta(days=13))).days]
        assert sum(map(int, row[1:])) == day["received"]


def test_the_page_shows_why_records_were_rejected_with_samples_as_text(client: FlaskClient) -> None:
    page = client.get("/data", headers={"Accept-Language": "en-GB"}).text
    text = text_of(page)
    # 10 of 307 records that came in these 14 days.
    assert re.search(r"unknown event_type .*the ingest 10 3\.26%", text)
    assert re.search(r"price Elasticsearch 1 0\.33%", text)
    assert re.search(r"not_a_number price left out of events 4 1\.30%", text)
    samples = re.findall(r"&lt;i&gt;(\d)&lt;/i&gt;.*?in (\S+) at offset (\d+)", page)
    assert samples == [("4", "clicks/0", "4"), ("3", "clicks/1", "3"), ("2", "clicks/0", "2")]
    assert "<i>" not in page
    assert "no value," in text


def test_the_page_of_other_days_shows_those(client: FlaskClient) -> None:
    before = TODAY - timedelta(days=14)
    page = client.get(f"/data?since={before}&until={before}", headers={"Accept-Language": "en-GB"}).text
    assert [row[1:] for row in table_of(page, "Records by day of arrival")] == [["1,000", "0", "0", "0", "0"]]
    assert "Nothing was rejected." in page
    page = client.get("/data?since=2019-01-01&until=2019-01-02").text
    assert "No record came on these days" in page


def test_links_into_dagster_are_there_where_it_has_an_address(
    client: FlaskClient, settings: Settings
) -> None:
    links = set(re.findall(r'href="(https://dagster[^"]*)"', client.get("/data").text))
    assert "https://dagster.example.org/runs/run-2" in links
    assert "https://dagster.example.org/assets/sessions?view=checks&amp;checkDetail=keys_are_unique" in links
    for without in clients_of(with_settings(settings, dagster_url=None)):
        page = without.get("/data").text
        assert "job refresh failed 3 times in a row" in page
        assert "https://dagster" not in page
        assert "With <code>DAGSTER_URL</code>" in page


def test_the_page_of_nothing_says_what_to_do(empty: FlaskClient) -> None:
    answer = empty.get("/data")
    assert answer.status_code == 200
    text = text_of(answer.text)
    for said in (
        "Nothing was measured yet.",
        "No record came on these days.",
        "No stream has run yet: clickstream stream runs them.",
        "They were not compared yet.",
        "No check was carried out yet",
    ):
        assert said in text
    assert "Records waiting in Kafka" in figures_of(answer.text)


def test_the_page_says_which_server_is_away(settings: Settings) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    for client in clients_of(with_settings(settings, elasticsearch_url=away)):
        answer = client.get("/data")
        assert answer.status_code == 200
        assert "Elasticsearch: Elasticsearch cannot be reached" in text_of(answer.text)
        assert figures_of(answer.text)["Rejected today"] == "8"
    for client in clients_of(with_settings(settings, postgres_port=free_port())):
        answer = client.get("/data")
        assert answer.status_code == 503
        assert "PostgreSQL cannot be reached." in text_of(answer.text)
        assert "Traceback" not in answer.text


def test_the_page_names_the_addresses_that_it_is_from(client: FlaskClient) -> None:
    page = client.get("/data").text
    listed = re.findall(r'<li><a href="([^"]*)"><code>', page)
    assert [address.partition("?")[0] for address in listed] == [
        "/api/shop",
        "/api/data",
        "/health/ready",
        "/api/records",
        "/api/rejected/samples",
    ]
    for address in listed:
        assert client.get(address.replace("&amp;", "&")).status_code == 200
