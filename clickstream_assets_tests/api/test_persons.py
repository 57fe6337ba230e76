"""Persons, and the routes that take an anonymous id for one."""

from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from clickstream_assets_tests.api.conftest import PARAMETERS, STRANGE_USERS

LAPTOP = {"anonymous_id": "laptop", "first_tied_at": "2024-05-31T14:00:00Z", "is_latest": False}
PHONE = {"anonymous_id": "phone", "first_tied_at": "2024-05-31T12:00:00Z", "is_latest": True}


@pytest.mark.parametrize("path", ["u1", "anonymous:phone"])
def test_the_ids_of_a_person_are_listed_by_when_they_were_first_tied(client: FlaskClient, path: str) -> None:
    assert client.get(f"/api/persons/{path}").json == {"person_id": "u1", "anonymous_ids": [PHONE, LAPTOP]}


def test_a_visitor_without_a_user_is_a_person(client: FlaskClient) -> None:
    assert client.get("/api/persons/anonymous:stranger").json == {
        "person_id": "anonymous:stranger",
        "anonymous_ids": [{"anonymous_id": "stranger", "first_tied_at": None, "is_latest": True}],
    }


@pytest.mark.parametrize("path", ["nobody", "anonymous:nobody", "session:s"])
def test_a_person_of_whom_there_is_nothing_is_a_problem_document(client: FlaskClient, path: str) -> None:
    answer = client.get(f"/api/persons/{path}")
    assert (answer.status_code, answer.json["code"]) == (404, "unknown_person")


def test_lists_of_a_user_take_an_anonymous_id_too(client: FlaskClient) -> None:
    for path, name in (("/sessions", "sessions"), ("/api/carts", "carts")):
        for anonymous_id, user_id in (("phone", "u1"), ("laptop", "u2"), ("stranger", "anonymous:stranger")):
            of_visitor = client.get(f"{path}?anonymous_id={anonymous_id}&limit=1000").json[name]
            assert of_visitor == client.get(f"{path}?user_id={user_id}&limit=1000").json[name]
            assert {row["user_id"] for row in of_visitor} <= {user_id}
    assert client.get("/api/carts?anonymous_id=laptop").json["carts"]
    assert client.get("/sessions?anonymous_id=stranger").json["sessions"]


def test_the_days_of_a_visitor_are_those_of_the_person(client: FlaskClient) -> None:
    of_visitor = client.get("/api/segments?anonymous_id=phone").json["users"]
    assert of_visitor == client.get("/api/segments/u1").json["segments"]
    (one,) = client.get("/api/segments?anonymous_id=phone&date=2024-05-30").json["users"]
    assert (one["user_id"], one["report_date"]) == ("u1", "2024-05-30")
    assert client.get("/api/segments?anonymous_id=nobody").json["users"] == []


def test_a_visitor_is_recommended_what_the_person_is(client: FlaskClient) -> None:
    assert (
        client.get("/api/recommend?anonymous_id=phone&n=3").json == client.get("/api/recommend/u1?n=3").json
    )
    stranger = client.get("/api/recommend?anonymous_id=nobody").json
    assert (stranger["user_id"], stranger["fallback"]) == ("anonymous:nobody", True)
    assert client.get("/api/recommend").status_code == 422


@pytest.mark.parametrize(
    "text", [*STRANGE_USERS, " ", "%s", "anonymous:phone", "user:anonymous:phone", "session:"]
)
def test_any_text_is_an_id_wherever_one_is_asked_for(client: FlaskClient, text: str) -> None:
    in_path = quote(text, safe="")
    assert client.get(f"/api/persons/{in_path}").status_code == (200 if text == "anonymous:phone" else 404)
    assert client.get(f"/api/segments/{in_path}").status_code in {200, 404}
    assert client.get(f"/api/recommend/{in_path}").json["user_id"] == text
    of_visitor = {"anonymous_id": text}
    assert client.get("/api/recommend", query_string=of_visitor).json["user_id"] == f"anonymous:{text}"
    for path in ("/sessions", "/api/carts", "/api/segments"):
        answer = client.get(path, query_string=of_visitor)
        assert (answer.status_code, answer.json["page"]["more"]) == (200, False), path


def test_each_route_that_takes_a_user_takes_an_anonymous_id() -> None:
    of_users = [path for path, names in PARAMETERS.items() if "user_id" in names]
    assert len(of_users) >= 5
    assert [p for p in of_users if "anonymous_id" not in PARAMETERS[p.removesuffix("/{user_id}")]] == []
