from typing import Any

import pytest
from flask.testing import FlaskClient

from clickstream_assets.catalogue import SESSIONS


def listed(client: FlaskClient, query: str = "") -> list[dict[str, Any]]:
    answer = client.get(f"/sessions{query}")
    assert answer.status_code == 200, answer.text
    return answer.json["sessions"]


def test_default_is_the_ten_people_with_the_most_events(client: FlaskClient) -> None:
    rows = listed(client)
    assert [(row["session_id"], row["total_events"]) for row in rows] == [
        ("other-day", 50),
        *(("s06", 6), ("s13", 6)),
        *(("s05", 5), ("s12", 5)),
        *(("s04", 4), ("s11", 4)),
        *(("s03", 3), ("s10", 3)),
        ("s02", 2),
    ]


def test_session_has_every_column_in_json_form(client: FlaskClient) -> None:
    [row] = listed(client, "?limit=1&offset=1")
    assert set(row) == set(SESSIONS.column_names)
    assert row["session_date"] == "2024-05-31"
    assert (row["start_time"], row["end_time"]) == ("2024-05-31T12:00:00Z", "2024-05-31T12:01:30Z")
    assert row["revenue"] == 19.99
    assert row["bot_reason"] is None


def test_bots_are_listed_on_request(client: FlaskClient) -> None:
    assert listed(client, "?include_bots=true&limit=1")[0]["session_id"] == "robot"


def test_pages_cover_all_sessions_once(client: FlaskClient) -> None:
    pages = [listed(client, f"?limit=4&offset={offset}") for offset in range(0, 20, 4)]
    ids = [row["session_id"] for page in pages for row in page]
    assert len(ids) == len(set(ids)) == 15


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?user_id=u1", {"s01", "s04", "s07", "s10", "s13", "other-day"}),
        ("?date=2024-06-01", {"other-day"}),
        ("?user_id=u2&date=2024-05-31", {"s02", "s05", "s08", "s11", "s14"}),
        ("?user_id=nobody", set()),
        ("?since=2024-06-01", {"other-day"}),
        ("?user_id=u1&until=2024-05-31", {"s01", "s04", "s07", "s10", "s13"}),
        ("?since=2024-05-31&until=2024-06-01&furthest_step=purchase&user_id=u1&limit=1", {"other-day"}),
        ("?campaign=spring", {"s02", "s03"}),
        ("?furthest_step=view", {"s03"}),
        ("?campaign=spring&furthest_step=none", set()),
    ],
)
def test_filters(client: FlaskClient, query: str, expected: set[str]) -> None:
    assert {row["session_id"] for row in listed(client, query)} == expected


@pytest.mark.parametrize("sort", ["total_events", "start_time", "duration_seconds", "revenue"])
def test_order_and_its_reverse(client: FlaskClient, sort: str) -> None:
    values = [row[sort] for row in listed(client, f"?limit=1000&sort={sort}&order=asc")]
    assert values == sorted(values)
    assert [row[sort] for row in listed(client, f"?limit=1000&sort={sort}")] == values[::-1]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("limit=1001", "limit='1001': must be a whole number from 1 to 1000"),
        ("offset=-1", "offset='-1': must be a whole number from 0 to 2147483647"),
        ("date=yesterday", "date='yesterday': must be a date such as 2024-05-31"),
        ("include_bots=maybe", "include_bots='maybe': must be true or false"),
        ("sort=user_id", "sort='user_id': must be one of total_events, start_time"),
        ("furthest_step=cart", "furthest_step='cart': must be one of none, view, add_to_cart, purchase"),
        ("until=2024-05-31T12:00:00Z", "must be a date such as 2024-05-31"),
        ("order=up", "order='up': must be one of asc, desc"),
    ],
)
def test_unusable_parameter_is_named_with_what_is_allowed(
    client: FlaskClient, query: str, message: str
) -> None:
    answer = client.get(f"/sessions?{query}")
    assert answer.status_code == 422
    assert message in answer.json["detail"]
