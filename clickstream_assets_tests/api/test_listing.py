"""All that the lists have in common: pages, CSV, the form of the answer, and refused parameters."""

import csv
import io
import json
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urljoin

import pytest
from flask.testing import FlaskClient

from clickstream_assets.api.formats import csv_of
from clickstream_assets.catalogue import CARTS
from clickstream_assets_tests.api.conftest import LISTS
from clickstream_assets_tests.api.shop import ROWS, STRANGE_PRODUCTS

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
        ("/sessions?include_bots=true&sort=start_time", "sessions", 17),
        ("/api/carts", "carts", 5),
        ("/api/windows?sort=views", "windows", 10),
        ("/api/alerts", "alerts", 3),
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

    rows: list[Any] = []
    lines: list[Any] = []
    following = f"{path}{'&' if '?' in path else '?'}limit=2"
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
    assert by_id["c4"]["user_id"] == "'=cmd"


def test_csv_has_flags_in_the_words_of_json(client: FlaskClient) -> None:
    lines = as_csv(client, "/sessions?include_bots=true&limit=2")
    assert [(line["session_id"], line["is_bot"]) for line in lines] == [
        ("robot", "true"),
        ("other-day", "false"),
    ]


def test_csv_keeps_any_text_but_for_the_mark(client: FlaskClient) -> None:
    names = [line["product_id"] for line in as_csv(client, "/api/products?limit=1000")]
    assert names == ["p1", "p2", *STRANGE_PRODUCTS[:-1], "'=1+1"]


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        *((f"{first}1+1", f"'{first}1+1") for first in "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"),
        *((text, text) for text in ("a=1", " =1", "'=1", "1-1", "", "ä")),
        (-1, "-1"),
        (-0.5, "-0.5"),
        (Decimal("-1.5000"), "-1.5000"),
        (["=1"], '["=1"]'),
        (None, ""),
    ],
)
def test_only_a_text_that_a_spreadsheet_would_compute_is_marked(value: object, cell: str) -> None:
    text = csv_of(["a", "b"], [{"a": value, "b": "b"}])
    assert list(csv.reader(io.StringIO(text, newline=""), strict=True)) == [["a", "b"], [cell, "b"]]


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


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("limit=0", "limit='0': must be a whole number from 1 to 1000"),
        ("limit=1001", "limit='1001': must be a whole number from 1 to 1000"),
        ("limit=1&limit=2", "limit='1,2': is given 2 times; give it once"),
        ("offset=-1", "offset='-1': must be a whole number from 0 to "),
        ("format=xml", "format='xml': must be one of json, csv"),
        ("colour=red", "colour='red': is not a parameter of this operation"),
    ],
)
@pytest.mark.parametrize("path", LISTS)
def test_unusable_parameter_of_every_list_is_named(
    client: FlaskClient, path: str, query: str, message: str
) -> None:
    refused(client, f"{path.format(user_id='u1', product_id='p1')}?{query}", message)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/sessions?offset=2147483648", "offset='2147483648': must be a whole number from 0 to 2147483647"),
        ("/sessions?date=yesterday", "date='yesterday': must be a date such as 2024-05-31"),
        ("/sessions?include_bots=maybe", "include_bots='maybe': must be true or false"),
        ("/sessions?sort=user_id", "sort='user_id': must be one of total_events, start_time"),
        (
            "/sessions?furthest_step=cart",
            "furthest_step='cart': must be one of none, view, add_to_cart, purchase",
        ),
        ("/sessions?until=2024-05-31T12:00:00Z", "must be a date such as 2024-05-31"),
        ("/sessions?order=up", "order='up': must be one of asc, desc"),
        (
            "/api/carts?state=lost",
            "state='lost': must be one of open, abandoned, emptied, converted, recovered",
        ),
        ("/api/carts?sort=items", "sort='items': must be one of last_activity_at, opened_at, value"),
        (
            "/api/carts?since=2024-05-31",
            "since='2024-05-31': must be a time such as 2024-05-31T12:00:00Z",
        ),
        ("/api/windows?state=resolved", "state='resolved': must be one of open, closed"),
        ("/api/windows?sort=product_id", "sort='product_id': must be one of window_start, views"),
        ("/api/alerts?state=closed", "state='closed': must be one of open, resolved"),
        ("/api/alerts?since=now", "since='now': must be a time such as 2024-05-31T12:00:00Z"),
        ("/api/funnel?dimension=brand", "dimension='brand': must be one of overall, category, segment"),
        ("/api/funnel?date=31.5.2024", "date='31.5.2024': must be a date such as 2024-05-31"),
        ("/api/attribution?model=best", "model='best': must be one of last_touch, first_touch, linear"),
        ("/api/cohorts?date=2024-05-31", "date='2024-05-31': is not a parameter of this operation"),
        ("/api/products?sort=product_id", "sort='product_id': must be one of rank, view_count"),
        ("/api/products/p1?date=2024-05-31", "date='2024-05-31': is not a parameter of this operation"),
        ("/api/products/p1?since=soon", "since='soon': must be a date such as 2024-05-31"),
        ("/api/products/%00", "must not have a NUL character"),
        ("/api/segments?segment=vip", "segment='vip': must be one of buyer, window_shopper, champions"),
        ("/api/reports?since=2024-05-31&until=2024-05-30", "until='2024-05-30': must not be before since"),
        (
            "/real-time-events?since=2024-05-31T12:00:00Z&until=2024-05-31T13:59:59%2B02:00",
            "until='2024-05-31T13:59:59+02:00': must not be before since",
        ),
        ("/api/reports?since=soon", "since='soon': must be a date such as 2024-05-31"),
        ("/api/reports/yesterday", "date='yesterday': must be a date such as 2024-05-31"),
        ("/api/reports/2024-02-30", "date='2024-02-30': must be a date such as 2024-05-31"),
        ("/api/reports/2024-05-08?format=csv", "format='csv': must be one of json, text"),
        ("/real-time-events?offset=9001", "offset='9001': must be a whole number from 0 to 9000"),
        ("/real-time-events?n=0", "n='0': must be a whole number from 1 to 1000"),
        ("/real-time-events?event_type=cart", "event_type='cart': must be one of page_view, view, click"),
        (
            "/real-time-events?since=2024-05-31",
            "since='2024-05-31': must be a time such as 2024-05-31T12:00:00Z",
        ),
        (
            "/real-time-events?until=2024-05-31T12:00:00",
            "until='2024-05-31T12:00:00': must be a time",
        ),
        (
            "/real-time-events?until=2024-13-31T12:00:00Z",
            "until='2024-13-31T12:00:00Z': must be a time",
        ),
        ("/real-time-events?q=", "q='': must have 1 to 256 characters"),
    ],
)
def test_unusable_parameter_is_named_with_what_is_allowed(
    client: FlaskClient, path: str, message: str
) -> None:
    refused(client, path, message)


@pytest.mark.parametrize("path", ["/api/alerts", "/api/carts", "/real-time-events"])
def test_bounds_beyond_the_years_of_utc_leave_nothing_out(client: FlaskClient, path: str) -> None:
    since, until = "0001-01-01T00:00:00%2B00:01", "9999-12-31T23:59:59-00:01"
    answer = client.get(f"{path}?since={since}&until={until}")
    assert answer.status_code == 200
    everything = client.get(path).json
    assert {name: rows for name, rows in answer.json.items() if name != "page"} == {
        name: rows for name, rows in everything.items() if name != "page"
    }


def refused(client: FlaskClient, path: str, message: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.content_type) == (422, "application/problem+json")
    assert message in answer.json["detail"]
