from collections.abc import Iterator
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from clickstream_assets.api.recommendations import Recommendations
from clickstream_assets.settings import Settings
from clickstream_assets_tests.api.conftest import STRANGE_USERS, clients_of
from clickstream_assets_tests.databases import fresh_database


@pytest.fixture
def client_of_empty_tables(postgres: Settings) -> Iterator[FlaskClient]:
    with fresh_database(postgres) as empty:
        yield from clients_of(empty)


NAMES = ("name", "category", "price", "currency", "image", "link", "available")
DETAILS = {
    product: dict(zip(NAMES, values, strict=True))
    for product, values in {
        "p1": ("Product p1", "books", 9.99, "EUR", "https://a.example/1.png", None, True),
        "p2": ("Product p2", "toys.wood", 0.5, "EUR", None, "https://a.example/2", False),
    }.items()
}


def test_recommendations_are_the_published_ones_in_their_order(client: FlaskClient) -> None:
    answer = client.get("/api/recommend/u1?n=2")
    assert answer.status_code == 200
    assert answer.json == {
        "user_id": "u1",
        "fallback": False,
        "message": None,
        "model_version": "m1",
        "in_the_moment": {"events": 0, "model_version": None, "problem": None},
        "experiment": None,
        "items": [
            {
                "product_id": product,
                "rank": rank,
                "score": score,
                "confidence_score": score,
                "algorithm": "als",
                "reason": f"Because you looked at Product {product}",
                "reason_product_id": product,
                "source": "personal",
                "model_version": "m1",
                **DETAILS[product],
            }
            for rank, (product, score) in enumerate([("p1", 1.0), ("p2", 0.5)], start=1)
        ],
    }


@pytest.mark.parametrize(
    "query", ["recommend/u1?n=9", "recommend/nobody", "recommend?anonymous_id=v1&diversity=0.5"]
)
def test_answer_is_what_its_schema_makes_of_it(client: FlaskClient, query: str) -> None:
    answer = client.get(f"/api/{query}").json
    assert answer["items"]
    assert answer == Recommendations().dump(answer)


def test_answer_to_a_session_is_what_its_schema_makes_of_it(client: FlaskClient) -> None:
    answer = client.post("/api/session/recommend", json={"products": ["p1", "p2"]}).json
    assert answer["items"]
    # Nothing of it is kept, so it is in no experiment.
    assert answer == Recommendations(exclude=["user_id"]).dump(answer)


def test_list_is_filled_up_with_popular_products_that_are_not_in_it(client: FlaskClient) -> None:
    items = client.get("/api/recommend/u1").json["items"]
    assert [item["product_id"] for item in items] == [f"p{n}" for n in range(1, 11)]
    assert [item["rank"] for item in items] == list(range(1, 11))
    assert [item["source"] for item in items] == ["personal"] * 5 + ["popular"] * 5
    assert items[5] == {
        "product_id": "p6",
        "rank": 6,
        "score": pytest.approx(100 / 3),
        "confidence_score": None,
        "algorithm": "popularity",
        "reason": "Popular with other shoppers",
        "reason_product_id": None,
        "source": "popular",
        "model_version": "m1",
        # Nothing is known of it.
        **dict.fromkeys(DETAILS["p1"]),
    }


def test_a_reason_calls_a_product_by_its_name_where_it_has_one(client: FlaskClient) -> None:
    items = client.get("/api/recommend/u1?n=5").json["items"]
    assert [(item["reason"], item["reason_product_id"]) for item in items] == [
        *((f"Because you looked at Product p{number}", f"p{number}") for number in (1, 2)),
        *((f"Because you looked at p{number}", f"p{number}") for number in (3, 4, 5)),
    ]


@pytest.mark.parametrize("exclude", ["exclude=p1&exclude=p6", "exclude=p1,p6", "exclude=p1,p6&exclude="])
def test_excluded_products_are_left_out_of_both_parts(client: FlaskClient, exclude: str) -> None:
    items = client.get(f"/api/recommend/u1?n=6&{exclude}").json["items"]
    assert [item["product_id"] for item in items] == ["p2", "p3", "p4", "p5", "p7", "p8"]


def test_known_user_whose_products_are_all_excluded_is_no_fallback(client: FlaskClient) -> None:
    answer = client.get("/api/recommend/u1?n=1&exclude=p1,p2,p3,p4,p5").json
    assert not answer["fallback"]
    assert [(item["product_id"], item["source"]) for item in answer["items"]] == [("p6", "popular")]


def test_list_is_not_filled_up_with_what_the_user_has_met(client: FlaskClient) -> None:
    answer = client.get("/api/recommend/u1?n=100").json
    assert [item["product_id"] for item in answer["items"]] == [f"p{n}" for n in range(1, 19)]
    assert answer["message"] is None


@pytest.mark.parametrize("query", ["", "?exclude=p4"])
def test_user_who_has_met_everything_is_known_and_has_nothing_left(client: FlaskClient, query: str) -> None:
    answer = client.get(f"/api/recommend/completist{query}").json
    assert answer == {
        "user_id": "completist",
        "fallback": False,
        "message": "There is no product left that this user has not met and that is not excluded.",
        "model_version": "m1",
        "in_the_moment": {"events": 0, "model_version": None, "problem": None},
        "experiment": None,
        "items": [],
    }


def test_unknown_user_gets_popular_products_and_a_message(client: FlaskClient) -> None:
    answer = client.get("/api/recommend/nobody?n=3").json
    assert answer["fallback"]
    assert "most popular" in answer["message"]
    assert answer["model_version"] == "m1"
    assert [item["product_id"] for item in answer["items"]] == ["p4", "p5", "p6"]
    assert {item["source"] for item in answer["items"]} == {"popular"}


@pytest.mark.parametrize("user", STRANGE_USERS)
def test_user_id_may_hold_any_character(client: FlaskClient, user: str) -> None:
    answer = client.get(f"/api/recommend/{quote(user, safe='')}?n=1").json
    assert (answer["user_id"], answer["fallback"]) == (user, False)
    assert [item["product_id"] for item in answer["items"]] == ["p7"]


def test_before_anything_is_published_the_service_is_unavailable(client_of_empty_tables: FlaskClient) -> None:
    answer = client_of_empty_tables.get("/api/recommend/u1")
    assert answer.status_code == 503
    assert answer.content_type == "application/problem+json"
    assert answer.headers["Retry-After"]
    assert answer.json["code"] == "nothing_published"
    assert "published yet" in answer.json["detail"]


@pytest.mark.parametrize(
    ("query", "parameter", "value", "message"),
    [
        ("n=0", "n", "0", "must be a whole number from 1 to 100"),
        ("n=101", "n", "101", "must be a whole number from 1 to 100"),
        ("n=ten", "n", "ten", "must be a whole number from 1 to 100"),
        ("n=1_0", "n", "1_0", "must be a whole number from 1 to 100"),
        ("n=1&n=2", "n", "1,2", "is given 2 times; give it once"),
        ("exclude=a%00b", "exclude", "a\0b", "must not have a NUL character"),
        ("exlude=p1", "exlude", "p1", "is not a parameter of this operation"),
    ],
)
def test_unusable_parameter_is_named_with_what_is_allowed(
    client: FlaskClient, query: str, parameter: str, value: str, message: str
) -> None:
    answer = client.get(f"/api/recommend/u1?{query}")
    assert answer.status_code == 422
    assert answer.content_type == "application/problem+json"
    assert answer.json["errors"] == [{"parameter": parameter, "value": value, "message": message}]
    assert f"{parameter}={value!r}: {message}" in answer.json["detail"]


def test_user_id_that_postgresql_cannot_hold_is_named(client: FlaskClient) -> None:
    answer = client.get("/api/recommend/a%00b")
    assert answer.status_code == 422
    assert answer.json["errors"][0]["parameter"] == "user_id"
