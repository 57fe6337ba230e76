from typing import Any

import pytest
from flask.testing import FlaskClient

from clickstream_assets.catalogue import CAMPAIGN_ATTRIBUTION, COHORT_RETENTION, FUNNEL


def listed(client: FlaskClient, path: str) -> list[dict[str, Any]]:
    answer = client.get(f"/api/{path}")
    assert answer.status_code == 200, answer.text
    return answer.json[path.partition("?")[0]]


def steps(client: FlaskClient, query: str) -> list[tuple[str, str, str, int]]:
    rows = listed(client, f"funnel{query}")
    return [(row["report_date"][-2:], row["value"], row["step"], row["users"]) for row in rows]


def test_funnel_of_the_newest_day_has_its_groups_steps_in_order(client: FlaskClient) -> None:
    assert steps(client, "") == [
        *[("31", "books", "view", 5), ("31", "books", "add_to_cart", 2), ("31", "books", "purchase", 0)],
        *[("31", "all", "view", 10), ("31", "all", "add_to_cart", 4), ("31", "all", "purchase", 3)],
        *[("31", "buyer", "view", 3), ("31", "buyer", "add_to_cart", 3), ("31", "buyer", "purchase", 3)],
    ]


def test_step_has_users_and_conversions(client: FlaskClient) -> None:
    first, _, last = listed(client, "funnel?dimension=overall")
    assert list(first) == FUNNEL.column_names
    assert (first["conversion_from_previous"], first["conversion_from_first"]) == (None, 100.0)
    assert (last["step_number"], last["conversion_from_previous"], last["conversion_from_first"]) == (
        3,
        75.0,
        30.0,
    )


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?date=2024-05-30&limit=1", [("30", "all", "view", 8)]),
        (
            "?since=2024-05-30&dimension=overall&limit=4&offset=2",
            [
                ("31", "all", "purchase", 3),
                *[("30", "all", "view", 8), ("30", "all", "add_to_cart", 4), ("30", "all", "purchase", 1)],
            ],
        ),
        ("?value=books&offset=2", [("31", "books", "purchase", 0)]),
        ("?dimension=segment&value=buyer&limit=1", [("31", "buyer", "view", 3)]),
        ("?date=2024-05-30&dimension=category", []),
        ("?until=2024-05-29", []),
    ],
)
def test_funnel_filters(client: FlaskClient, query: str, expected: list[tuple[str, str, str, int]]) -> None:
    assert steps(client, query) == expected


def campaigns(client: FlaskClient, query: str) -> list[tuple[str, str, str]]:
    rows = listed(client, f"attribution{query}")
    assert all(list(row) == CAMPAIGN_ATTRIBUTION.column_names for row in rows)
    return [(row["report_date"][-2:], row["model"], row["campaign"]) for row in rows]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (
            "",
            [
                *[("31", "last_touch", "(direct)"), ("31", "last_touch", "spring")],
                ("31", "linear", "spring"),
            ],
        ),
        ("?model=linear", [("31", "linear", "spring")]),
        (
            "?since=2024-05-30&until=2024-05-31&model=last_touch&campaign=spring",
            [("31", "last_touch", "spring"), ("30", "last_touch", "spring")],
        ),
        ("?date=2024-05-30", [("30", "last_touch", "spring")]),
        ("?model=first_touch", []),
    ],
)
def test_attribution_filters(client: FlaskClient, query: str, expected: list[tuple[str, str, str]]) -> None:
    assert campaigns(client, query) == expected


def test_parts_of_orders_are_kept(client: FlaskClient) -> None:
    [row] = listed(client, "attribution?model=linear")
    assert (row["orders"], row["revenue"]) == (0.3333, 1.6667)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [("2024-05-27", 0), ("2024-05-20", 0), ("2024-05-20", 1)]),
        ("?until=2024-05-20", [("2024-05-20", 0), ("2024-05-20", 1)]),
        ("?since=2024-05-21", [("2024-05-27", 0)]),
    ],
)
def test_cohorts_are_listed_newest_first_week_by_week(
    client: FlaskClient, query: str, expected: list[tuple[str, int]]
) -> None:
    rows = listed(client, f"cohorts{query}")
    assert [(row["cohort_week"], row["weeks_since"]) for row in rows] == expected
    assert list(rows[0]) == COHORT_RETENTION.column_names


def test_retention_is_a_share(client: FlaskClient) -> None:
    row = listed(client, "cohorts?until=2024-05-20")[1]
    assert (row["users"], row["active_users"], row["retention_rate"]) == (10, 9, 0.9)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("funnel?dimension=brand", "dimension='brand': must be one of overall, category, segment"),
        ("funnel?date=31.5.2024", "date='31.5.2024': must be a date such as 2024-05-31"),
        ("attribution?model=best", "model='best': must be one of last_touch, first_touch, linear"),
        ("cohorts?date=2024-05-31", "date='2024-05-31': is not a parameter of this operation"),
    ],
)
def test_unusable_parameter_is_named_with_what_is_allowed(
    client: FlaskClient, query: str, message: str
) -> None:
    answer = client.get(f"/api/{query}")
    assert answer.status_code == 422
    assert message in answer.json["detail"]
