"""What all lists have in common: pages, CSV, and which of the forms is answered."""

import csv
import io
import json
from datetime import datetime
from urllib.parse import urljoin

import pytest
from flask.testing import FlaskClient

from clickstream_assets.catalogue import CARTS, PRODUCT_PERFORMANCE, SESSIONS, Table
from clickstream_assets_tests.api.daily_rows import ROWS, STRANGE_PRODUCTS

Rows = list[dict[str, str]]


def as_csv(client: FlaskClient, path: str) -> Rows:
    answer = client.get(path, headers={"Accept": "text/csv"})
    assert answer.status_code == 200, answer.text
    assert answer.content_type == "text/csv; charset=utf-8; header=present"
    assert answer.headers["Vary"] == "Accept"
    return list(csv.DictReader(io.StringIO(answer.get_data().decode(), newline=""), strict=True))


@pytest.mark.parametrize(
    ("path", "name", "count"),
    [
        ("/sessions?include_bots=true&sort=start_time", "sessions", 16),
        ("/api/carts", "carts", 5),
        ("/api/segments", "segments", 5),
        ("/api/segments?segment=window_shopper", "users", 2),
        ("/api/segments/u1", "segments", 2),
        ("/api/funnel?since=2024-05-01", "funnel", 12),
        ("/api/attribution?until=2024-06-01", "attribution", 4),
        ("/api/cohorts", "cohorts", 3),
        ("/api/products?sort=view_count", "products", 11),
        ("/api/products/p1", "days", 2),
        ("/api/categories?since=2024-05-30", "categories", 4),
        ("/api/reports", "reports", 2),
    ],
)
def test_following_the_next_pages_leads_over_all_rows_once(
    client: FlaskClient, path: str, name: str, count: int
) -> None:
    everything = client.get(f"{path}{'&' if '?' in path else '?'}limit=1000").json
    assert everything["page"] == {"limit": 1000, "offset": 0, "more": False}
    assert len(everything[name]) == count

    rows, lines, following = [], [], f"{path}{'&' if '?' in path else '?'}limit=2"
    while following:
        answer = client.get(following)
        assert answer.json["page"] == {"limit": 2, "offset": len(rows), "more": "Link" in answer.headers}
        rows += answer.json[name]
        lines += as_csv(client, following)
        link = answer.headers.get("Link", "")
        following = urljoin(path, link[1 : link.index(">")]) if link else ""
        assert link.endswith('; rel="next"') or not link
    assert rows == everything[name]
    assert [list(line) for line in lines] == [list(row) for row in rows]
    for line, row in zip(lines, rows, strict=True):
        assert {k for k, v in line.items() if v == ""} == {k for k, v in row.items() if v is None}


@pytest.mark.parametrize("path", ["/sessions", "/real-time-events", "/api/windows", "/api/alerts"])
def test_older_lists_are_csv_too(client: FlaskClient, path: str) -> None:
    assert len(as_csv(client, path)) == len(next(iter(client.get(path).json.values())))


def test_csv_without_rows_still_has_the_header_row(client: FlaskClient) -> None:
    answer = client.get("/api/carts?user_id=nobody&format=csv")
    assert answer.text == ",".join(CARTS.column_names) + "\r\n"


def test_csv_has_every_value_exactly(client: FlaskClient) -> None:
    by_id = {line["cart_id"]: line for line in as_csv(client, "/api/carts")}
    for row in ROWS[CARTS]:
        line = by_id[row["cart_id"]]
        assert line["value"] == f"{row['value']:.4f}"
        assert datetime.fromisoformat(line["last_activity_at"]) == row["last_activity_at"]
        assert json.loads(line["product_ids"]) == row["product_ids"]
        assert (line["items"], line["order_id"]) == ("2", "")
    assert (by_id["c1"]["value"], by_id["c2"]["value"]) == ("12345678901234.5678", "0.0001")
    assert by_id["c4"]["user_id"] == "=cmd"


def test_csv_has_flags_in_the_words_of_json(client: FlaskClient) -> None:
    lines = as_csv(client, "/sessions?include_bots=true&limit=2")
    assert [(line["session_id"], line["is_bot"]) for line in lines] == [
        ("robot", "true"),
        ("other-day", "false"),
    ]


def test_csv_keeps_any_text(client: FlaskClient) -> None:
    names = [line["product_id"] for line in as_csv(client, "/api/products?limit=1000")]
    assert names == ["p1", "p2", *STRANGE_PRODUCTS]


@pytest.mark.parametrize(("path", "table"), [("/sessions", SESSIONS), ("/api/products", PRODUCT_PERFORMANCE)])
def test_csv_columns_are_those_of_the_table_in_order(client: FlaskClient, path: str, table: Table) -> None:
    assert list(as_csv(client, path)[0]) == table.column_names


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("text/csv", "text/csv"),
        ("text/csv; charset=utf-8", "text/csv"),
        ("text/*", "text/csv"),
        ("application/json;q=0.5, text/csv", "text/csv"),
        ("text/csv;q=0.5, application/json", "application/json"),
        ("*/*, application/json;q=0", "text/csv"),
    ],
)
def test_form_is_what_the_client_prefers(client: FlaskClient, accept: str | None, form: str) -> None:
    answer = client.get("/api/carts", headers={} if accept is None else {"Accept": accept})
    assert (answer.status_code, answer.mimetype) == (200, form)


@pytest.mark.parametrize("accept", ["text/html", "application/xml, image/*", "text/csv;q=0", "nonsense"])
def test_form_that_is_not_offered_is_a_problem_that_names_those_that_are(
    client: FlaskClient, accept: str
) -> None:
    answer = client.get("/api/carts", headers={"Accept": accept})
    assert (answer.status_code, answer.content_type) == (406, "application/problem+json")
    assert answer.json["code"] == "not_acceptable"
    assert (
        answer.json["detail"]
        == f"Accept: {accept} takes none of what is offered: application/json, text/csv."
    )


def test_form_can_be_asked_for_by_name_whatever_the_header_says(client: FlaskClient) -> None:
    header = {"Accept": "text/html"}
    assert client.get("/sessions?format=csv", headers=header).mimetype == "text/csv"
    assert client.get("/sessions?format=json", headers=header).mimetype == "application/json"
    refused = client.get("/sessions?format=xml")
    assert (refused.status_code, refused.json["detail"]) == (422, "format='xml': must be one of json, csv")
