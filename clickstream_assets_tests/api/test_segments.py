from typing import Any

import pytest
from flask.testing import FlaskClient

from clickstream_assets.catalogue import CUSTOMER_SEGMENTS, USER_SEGMENTS
from clickstream_assets.settings import Settings
from clickstream_assets_tests.api.conftest import clients_of
from clickstream_assets_tests.databases import fresh_database

DAY, DAY_BEFORE = "2024-05-31", "2024-05-30"


def asked(client: FlaskClient, path: str = "") -> dict[str, Any]:
    answer = client.get(f"/api/segments{path}")
    assert answer.status_code == 200, answer.text
    return answer.json


def test_history_has_what_the_user_did_and_was_newest_first(client: FlaskClient) -> None:
    answer = asked(client, "/u1")
    assert answer["user_id"] == "u1"
    assert [
        (row["report_date"], row["segment"], row["purchases"], row["rfm_segment"], row["abandoned_carts"])
        for row in answer["segments"]
    ] == [(DAY, "window_shopper", 0, "champions", 2), (DAY_BEFORE, "buyer", 1, "champions", 0)]


def test_day_has_the_columns_of_both_tables(client: FlaskClient) -> None:
    [row] = asked(client, "/u2?since=2024-05-31")["segments"]
    assert list(row) == [*USER_SEGMENTS.column_names, *CUSTOMER_SEGMENTS.column_names[2:]]
    assert (row["revenue"], row["monetary"], row["net_monetary"], row["r_score"]) == (19.99, 19.99, 14.99, 5)
    assert row["abandoned_value"] == 0.0


def test_days_on_which_the_user_was_not_there_or_no_customer_are_listed_too(client: FlaskClient) -> None:
    [left_a_cart] = asked(client, "/u3")["segments"]
    assert (left_a_cart["segment"], left_a_cart["events"], left_a_cart["abandoned_carts"]) == (None, None, 1)
    [visitor] = asked(client, "/a%2Fb")["segments"]
    assert (visitor["user_id"], visitor["segment"], visitor["frequency"]) == ("a/b", "window_shopper", None)


@pytest.mark.parametrize(
    ("query", "days"),
    [
        ("?since=2024-05-31", [DAY]),
        ("?until=2024-05-30", [DAY_BEFORE]),
        ("?since=2024-05-30&until=2024-05-31", [DAY, DAY_BEFORE]),
        ("?until=2023-01-01", []),
    ],
)
def test_history_of_a_range_of_days(client: FlaskClient, query: str, days: list[str]) -> None:
    assert [row["report_date"] for row in asked(client, f"/u1{query}")["segments"]] == days


def test_unknown_user_is_a_problem_document(client: FlaskClient) -> None:
    answer = client.get("/api/segments/nobody")
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")
    assert answer.json["code"] == "unknown_user"


def counts(answer: dict[str, Any]) -> list[tuple[str, str, int]]:
    assert all(row["report_date"] == answer["date"] for row in answer["segments"])
    return [(row["kind"], row["segment"], row["users"]) for row in answer["segments"]]


def test_newest_day_is_counted_by_segment(client: FlaskClient) -> None:
    answer = asked(client)
    assert answer["date"] == DAY
    assert counts(answer) == [
        ("activity", "window_shopper", 2),
        ("activity", "buyer", 1),
        ("carts", "cart_abandoner", 2),
        ("rfm", "champions", 1),
        ("rfm", "new_customer", 1),
    ]


def test_earlier_day_is_counted_on_request(client: FlaskClient) -> None:
    assert counts(asked(client, f"?date={DAY_BEFORE}")) == [
        ("activity", "buyer", 1),
        ("activity", "window_shopper", 1),
        ("rfm", "champions", 1),
    ]
    nothing = asked(client, "?date=2020-01-01")
    assert (nothing["date"], nothing["segments"]) == ("2020-01-01", [])


@pytest.mark.parametrize(
    ("query", "users"),
    [
        ("segment=buyer", ["u2"]),
        ("segment=window_shopper", ["a/b", "u1"]),
        ("segment=window_shopper&date=2024-05-30", ["u2"]),
        ("segment=champions", ["u1"]),
        ("segment=cart_abandoner", ["u1", "u3"]),
        ("segment=cart_abandoner&limit=1&offset=1", ["u3"]),
        ("segment=lost", []),
    ],
)
def test_users_of_a_segment(client: FlaskClient, query: str, users: list[str]) -> None:
    answer = asked(client, f"?{query}")
    assert [row["user_id"] for row in answer["users"]] == users
    assert "segments" not in answer
    assert {row["report_date"] for row in answer["users"]} <= {answer["date"]}


def test_without_any_day_there_is_nothing_to_count(postgres: Settings) -> None:
    with fresh_database(postgres) as empty:
        for client in clients_of(empty):
            page = {"limit": 100, "offset": 0, "more": False}
            assert asked(client) == {"date": None, "segments": [], "page": page}
            assert asked(client, "?segment=buyer") == {"date": None, "users": [], "page": page}


def test_moves_are_between_the_segments_of_two_days(client: FlaskClient) -> None:
    def moves(query: str) -> set[tuple[str | None, str | None, int]]:
        answer = client.get(f"/api/segment-moves?{query}").json
        return {(row["from_segment"], row["to_segment"], row["users"]) for row in answer["moves"]}

    # u1 stayed; u2 became a customer; u3 has no segment on either day.
    assert moves("days=1") == {("champions", "champions", 1), (None, "new_customer", 1)}
    # There is nobody a week before.
    assert moves("") == {(None, "champions", 1), (None, "new_customer", 1)}
    assert moves("date=2024-06-01&days=1") == {("champions", None, 1), ("new_customer", None, 1)}
    answer = client.get("/api/segment-moves?days=1").json
    assert (answer["date"], answer["before"]) == (DAY, DAY_BEFORE)


def test_counts_of_days_are_those_of_each_day(client: FlaskClient) -> None:
    of_days = client.get("/api/segment-counts?since=2024-05-30&until=2024-05-31").json["segments"]
    each = [row for day in (DAY, DAY_BEFORE) for row in asked(client, f"?date={day}")["segments"]]
    assert of_days == each
    customers = client.get("/api/segment-counts?kind=rfm&since=2024-05-31").json["segments"]
    assert [(row["segment"], row["users"]) for row in customers] == [("champions", 1), ("new_customer", 1)]
