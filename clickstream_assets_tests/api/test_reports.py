import pytest
from flask.testing import FlaskClient

from clickstream_assets.api.reports import REPORT_SCHEMA
from clickstream_assets.reports.document import Report
from clickstream_assets.reports.text import render_text
from clickstream_assets.settings import Settings
from clickstream_assets_tests.api.conftest import clients_of
from clickstream_assets_tests.databases import fresh_database
from clickstream_assets_tests.reports.days import report

PATH = "/api/reports/2024-05-08"


def named_report() -> Report:
    """The report as it was stored, with the names that are known."""
    stored = report()
    products = [
        product
        | ({"name": f"Product {product['product_id']}"} if product["product_id"] in ("p1", "p2") else {})
        for product in stored["top_5_viewed_products"]
    ]
    return stored | {"top_5_viewed_products": products}


def test_report_is_json_by_default_as_it_was_stored_with_the_names_of_its_products(
    client: FlaskClient,
) -> None:
    answer = client.get(PATH)
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    assert answer.json == named_report()
    assert [product.get("name") for product in answer.json["top_5_viewed_products"]][:3] == [
        "Product p1",
        "Product p2",
        None,
    ]
    assert list(answer.json) == list(REPORT_SCHEMA["properties"])


@pytest.mark.parametrize("asked", ["header", "name"])
def test_report_is_text_on_request(client: FlaskClient, asked: str) -> None:
    by_name = asked == "name"
    answer = client.get(
        f"{PATH}?format=text" if by_name else PATH,
        headers={"Accept": "image/png" if by_name else "text/plain"},
    )
    assert (answer.status_code, answer.content_type) == (200, "text/plain; charset=utf-8")
    assert answer.headers["Vary"] == "Accept"
    assert answer.text == render_text(named_report())


def test_report_of_a_day_without_events_says_so(client: FlaskClient) -> None:
    assert client.get("/api/reports/2024-05-09").json["total_events"] == 0
    assert "There were no events on this day." in client.get("/api/reports/2024-05-09?format=text").text


def test_day_without_a_report_is_a_problem_that_says_which_days_have_one(client: FlaskClient) -> None:
    answer = client.get("/api/reports/2024-05-31")
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")
    assert answer.json["code"] == "no_report"
    assert (
        answer.json["detail"]
        == "There is no report of 2024-05-31: there are 2, from 2024-05-08 to 2024-05-09."
    )


def test_before_the_first_report_there_is_none(postgres: Settings) -> None:
    with fresh_database(postgres) as empty:
        for client in clients_of(empty):
            assert client.get("/api/reports").json["reports"] == []
            answer = client.get(PATH)
            assert answer.status_code == 404
            assert answer.json["detail"] == "There is no report of 2024-05-08: there is none of any day yet."


def test_form_that_is_not_offered_is_a_problem(client: FlaskClient) -> None:
    answer = client.get(PATH, headers={"Accept": "text/csv"})
    assert (answer.status_code, answer.json["code"]) == (406, "not_acceptable")
    assert "application/json, text/plain" in answer.json["detail"]


def test_days_with_a_report_are_listed_newest_first_with_headline_figures(client: FlaskClient) -> None:
    empty, full = client.get("/api/reports").json["reports"]
    assert (empty["report_date"], empty["total_events"], empty["revenue"]) == ("2024-05-09", None, None)
    assert full == {
        "report_date": "2024-05-08",
        "generated_at": "2024-05-09T02:00:03Z",
        "total_events": 28123,
        "buyer_count": 434,
        "window_shopper_count": 2876,
        "buyer_rate": 13.11,
        "users": 3310,
        "sessions": 4937,
        "orders": 612,
        "revenue": 47794.53,
        "refunds": 794.53,
        "net_revenue": 47000.0,
        "average_order_value": 78.0956,
        "conversion_rate": 10.37,
    }


@pytest.mark.parametrize(
    ("query", "days"),
    [
        ("?until=2024-05-08", ["2024-05-08"]),
        ("?since=2024-05-09", ["2024-05-09"]),
        ("?limit=1&offset=1", ["2024-05-08"]),
        ("?since=2024-06-01", []),
    ],
)
def test_reports_of_a_range_of_days(client: FlaskClient, query: str, days: list[str]) -> None:
    assert [row["report_date"] for row in client.get(f"/api/reports{query}").json["reports"]] == days
