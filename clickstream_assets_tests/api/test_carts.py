from typing import Any

import pytest
from flask.testing import FlaskClient

from clickstream_assets.catalogue import CARTS


def listed(client: FlaskClient, query: str = "") -> list[dict[str, Any]]:
    answer = client.get(f"/api/carts{query}")
    assert answer.status_code == 200, answer.text
    return answer.json["carts"]


def test_carts_are_listed_latest_activity_first_with_every_column(client: FlaskClient) -> None:
    rows = listed(client)
    assert [row["cart_id"] for row in rows] == ["c4", "c3", "c2", "c1", "c0"]
    assert list(rows[0]) == CARTS.column_names
    assert (rows[1]["opened_at"], rows[1]["last_activity_at"]) == (
        "2024-05-31T12:00:00Z",
        "2024-05-31T15:00:00Z",
    )
    assert (rows[1]["value"], rows[1]["product_ids"]) == (7.5, ["p1", 'p"2,'])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?state=abandoned", ["c3", "c0"]),
        ("?state=emptied", []),
        ("?user_id=u1", ["c1", "c0"]),
        ("?user_id=u2&state=open", ["c2"]),
        # By last activity: all of them were opened at noon.
        ("?since=2024-05-31T14:00:00Z", ["c4", "c3", "c2"]),
        ("?until=2024-05-31T14:00:00Z", ["c1", "c0"]),
        ("?since=2024-05-31T15:00:00%2B02:00&until=2024-05-31T14:00:00Z", ["c1"]),
        ("?sort=value", ["c1", "c3", "c4", "c0", "c2"]),
        ("?sort=value&order=asc&limit=2&offset=2", ["c3", "c4"]),
        ("?sort=last_activity_at&order=asc&limit=1", ["c0"]),
    ],
)
def test_filters_and_order(client: FlaskClient, query: str, expected: list[str]) -> None:
    assert [row["cart_id"] for row in listed(client, query)] == expected


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("state=lost", "state='lost': must be one of open, abandoned, emptied, converted, recovered"),
        ("sort=items", "sort='items': must be one of last_activity_at, opened_at, value"),
        ("since=2024-05-31", "since='2024-05-31': must be a time such as 2024-05-31T12:00:00Z"),
    ],
)
def test_unusable_parameter_is_named_with_what_is_allowed(
    client: FlaskClient, query: str, message: str
) -> None:
    answer = client.get(f"/api/carts?{query}")
    assert answer.status_code == 422
    assert message in answer.json["detail"]
