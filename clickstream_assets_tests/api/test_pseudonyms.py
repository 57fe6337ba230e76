"""A shop with pseudonyms answers who asks by an id as one with ids does; lists show pseudonyms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from flask.testing import FlaskClient
from psycopg import sql

from clickstream_assets.api.app import create_app
from clickstream_assets.api.database import EXTENSION
from clickstream_assets.api.moment import EXTENSION as MOMENT
from clickstream_assets.catalogue import SERVED_TABLES
from clickstream_assets.catalogue.who import kind_and_id, person_of
from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets.stores.postgres.pseudonyms import kept_persons, pseudonyms_of
from clickstream_assets_tests.api.conftest import publish
from clickstream_assets_tests.api.test_moment import happen, serve
from clickstream_assets_tests.databases import fresh_database, query, with_settings


class Shops(NamedTuple):
    """The same shop with ids and with pseudonyms."""

    ids: FlaskClient
    pseudonyms: FlaskClient
    settings: Settings


def name_by_pseudonyms(settings: Settings) -> None:
    """Put pseudonyms into the place of all ids."""
    with connect(settings) as connection:
        for table in SERVED_TABLES:
            for column in table.by_name.keys() & {"user_id", "anonymous_id"}:
                names = {"table": sql.Identifier(table.served_name), "column": sql.Identifier(column)}
                found = connection.execute(sql.SQL("SELECT DISTINCT {column} FROM {table}").format(**names))
                for (sent,) in found.fetchall():
                    kind, sent_id = kind_and_id(sent) if column == "user_id" else ("anonymous", sent)
                    kept = pseudonyms_of(settings, kind, [sent_id])[sent_id]
                    connection.execute(
                        sql.SQL("UPDATE {table} SET {column} = %s WHERE {column} = %s").format(**names),
                        [person_of(kind, kept) if column == "user_id" else kept, sent],
                    )


@pytest.fixture(scope="module")
def databases(postgres: Settings) -> Iterator[tuple[Settings, Settings]]:
    with fresh_database(postgres) as ids, fresh_database(postgres) as pseudonyms:
        for own in (ids, pseudonyms):
            publish(own)
            serve(own, "n1")
        name_by_pseudonyms(pseudonyms)
        yield ids, with_settings(pseudonyms, pseudonyms=True)


@pytest.fixture
def shops(databases: tuple[Settings, Settings]) -> Iterator[Shops]:
    apps = [create_app(settings) for settings in databases]
    for app in apps:
        app.extensions[MOMENT].renew_models()
    yield Shops(apps[0].test_client(), apps[1].test_client(), databases[1])
    for app in apps:
        app.extensions[EXTENSION].close()


def mapped_back(settings: Settings, text: str) -> str:
    for pseudonym, sent_id in query(settings, "SELECT pseudonym, id FROM pseudonyms"):
        text = text.replace(pseudonym, sent_id)
    return text


OF_ONE = [
    "/api/recommend/u1?n=3",
    "/api/recommend/nobody?n=3",
    "/api/recommend/completist",
    "/api/recommend?anonymous_id=phone&n=3",
    "/api/recommend?anonymous_id=stranger&n=3",
    "/api/recommend?anonymous_id=nobody&n=3",
    "/api/buy-again/u1",
    "/api/buy-again?anonymous_id=phone",
    "/api/buy-again/nobody",
    "/api/predictions/u1",
    "/api/persons/u1",
    "/api/persons/anonymous:phone",
    "/api/persons/anonymous:stranger",
    "/api/persons/nobody",
    "/api/segments/u1?limit=100",
    "/api/segments/nobody",
]
LISTS = [
    "/sessions?user_id=u1",
    "/sessions?anonymous_id=stranger",
    "/sessions?user_id=anonymous:stranger",
    "/sessions?user_id=nobody",
    "/api/carts?anonymous_id=laptop",
    "/api/carts?limit=1000",
    "/api/segments?anonymous_id=phone",
]


@pytest.mark.parametrize("path", OF_ONE)
def test_who_is_asked_for_by_an_id_is_answered_by_it(shops: Shops, path: str) -> None:
    answer, expected = shops.pseudonyms.get(path), shops.ids.get(path)
    assert (answer.status_code, answer.json) == (expected.status_code, expected.json)


@pytest.mark.parametrize("path", LISTS)
def test_lists_are_filtered_by_ids_and_show_pseudonyms(shops: Shops, path: str) -> None:
    answer = shops.pseudonyms.get(path)
    # Rows of equals are in the order of their pseudonyms.
    found, expected = (
        {name: sorted(map(repr, rows)) if isinstance(rows, list) else rows for name, rows in document.items()}
        for document in (
            shops.pseudonyms.application.json.loads(mapped_back(shops.settings, answer.text)),
            shops.ids.get(path).json,
        )
    )
    assert found == expected
    assert '"u1"' not in answer.text


def test_who_is_asked_for_by_a_pseudonym_as_lists_show_it_is_answered_by_that(shops: Shops) -> None:
    (u1,) = kept_persons(shops.settings, ["u1"])
    for path in ("/api/recommend/{}?n=3", "/api/persons/{}", "/api/segments/{}", "/api/predictions/{}"):
        answer = shops.pseudonyms.get(path.format(u1))
        assert mapped_back(shops.settings, answer.text) == shops.ids.get(path.format("u1")).text
        assert '"u1"' not in answer.text


def test_what_a_person_did_a_moment_ago_counts_by_their_ids(shops: Shops) -> None:
    for client in (shops.ids, shops.pseudonyms):
        now = client.application.extensions[MOMENT]
        happen(
            now,
            {"user_id": "u1", "product_id": "s1"},
            # Tied to u1 in the served tables alone.
            {"anonymous_id": "phone", "product_id": "h1"},
            {"user_id": "new", "anonymous_id": "new phone", "product_id": "s2"},
        )
    (pseudonym,) = kept_persons(shops.settings, ["u1"])

    def events(client: FlaskClient, path: str) -> Any:
        answer = client.get(path).json
        return (
            answer["user_id"],
            answer["in_the_moment"]["events"],
            [i["product_id"] for i in answer["items"]],
        )

    for path in (
        "/api/recommend/u1",
        "/api/recommend?anonymous_id=phone",
        "/api/recommend/new",
        "/api/recommend?anonymous_id=new%20phone",
    ):
        assert events(shops.pseudonyms, path) == events(shops.ids, path)
    assert events(shops.ids, "/api/recommend/u1")[1] == 2
    assert events(shops.pseudonyms, f"/api/recommend/{pseudonym}")[:2] == (pseudonym, 2)
    # Who asked to be erased is in the request by a pseudonym.
    query(
        shops.settings,
        f"INSERT INTO erasures (persons) VALUES (ARRAY['{pseudonym}']) RETURNING 1",
    )
    shops.pseudonyms.application.extensions[MOMENT].leave_out_erased()
    assert events(shops.pseudonyms, "/api/recommend/u1")[1] == 1
    assert events(shops.pseudonyms, "/api/recommend/new")[1] == 1
