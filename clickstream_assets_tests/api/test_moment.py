"""What a visitor did a moment ago, in answers: with a published model, and records as Kafka has them."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from flask.testing import FlaskClient
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from clickstream_assets.api.app import create_app
from clickstream_assets.api.database import EXTENSION
from clickstream_assets.api.moment import EXTENSION as MOMENT
from clickstream_assets.api.moment import Moment
from clickstream_assets.catalogue import (
    IDENTITIES,
    NEXT_PRODUCT_PARTS,
    POPULAR_PRODUCTS,
    PROFILING_REFUSALS,
    SERVED_MODELS,
)
from clickstream_assets.catalogue.metrics import EXPOSURES, RECENT_READ
from clickstream_assets.recommender.next_product import Assortment, NextProduct, Sessions
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.tail import Arrived
from clickstream_assets.stores.postgres.publishing import Scope, publication
from clickstream_assets_tests.api.conftest import publish
from clickstream_assets_tests.api.served import served
from clickstream_assets_tests.databases import fresh_database, with_settings
from clickstream_assets_tests.stores.postgres.rows import table
from clickstream_assets_tests.topics import new_topic, send

# s1 to s4 are shoes, h1 to h3 hats; shoes are met with shoes.
IDS = ("s1", "s2", "s3", "s4", "h1", "h2", "h3")
MODEL = NextProduct(
    Assortment(IDS, ("shoes", "hats"), np.array([0, 0, 0, 0, 1, 1, 1]), np.full(7, 10.0), (), np.full(7, -1)),
    Sessions(np.array([0, 1, 0, 2, 1, 2, 4, 5]), np.array([0, 2, 4, 6, 8])),
)


def serve(settings: Settings, version: str, model: NextProduct = MODEL, part_bytes: int = 500) -> None:
    """Publish a model in small parts."""
    content = model.to_bytes()
    parts = [
        {
            "model_version": version,
            "part": number,
            "content": b64encode(content[begin : begin + part_bytes]).decode(),
        }
        for number, begin in enumerate(range(0, len(content), part_bytes), start=1)
    ]
    assert len(parts) > 1
    with publication(settings) as transaction:
        transaction.publish(
            NEXT_PRODUCT_PARTS, table(NEXT_PRODUCT_PARTS, parts), Scope("model_version", version)
        )
        transaction.publish(
            SERVED_MODELS,
            table(SERVED_MODELS, [{"answers": "next_product", "model_version": version}]),
            Scope("answers", "next_product"),
        )


@pytest.fixture(scope="module")
def settings(postgres: Settings) -> Iterator[Settings]:
    with fresh_database(postgres) as own:
        publish(own)
        serve(own, "n1")
        with publication(own) as transaction:
            tied = {"anonymous_id": "x", "user_id": "tied", "is_latest": True}
            rows = [tied | {"first_tied_at": datetime(2024, 5, 1, tzinfo=UTC)}]
            transaction.publish(IDENTITIES, table(IDENTITIES, rows))
        yield own


@pytest.fixture
def shop(settings: Settings) -> Iterator[tuple[FlaskClient, Moment]]:
    app = create_app(settings)
    now: Moment = app.extensions[MOMENT]
    now.renew_models()
    yield app.test_client(), now
    app.extensions[EXTENSION].close()


def happen(now: Moment, *events: dict[str, Any]) -> None:
    """Let events come, one second after the other, the last a second ago."""
    began = time.time() - len(events)
    now.recent.take(
        Arrived(
            "clickstream-events",
            int(time.time() * 1e6),
            json.dumps({"event_type": "view", "timestamp": began + place, **event}).encode(),
        )
        for place, event in enumerate(events)
    )


def items(client: FlaskClient, path: str) -> list[tuple[str, str]]:
    return [(item["product_id"], item["source"]) for item in client.get(path).json["items"]]


def test_a_new_visitors_last_events_come_first_and_say_why(shop: tuple[FlaskClient, Moment]) -> None:
    client, now = shop
    happen(now, {"anonymous_id": "new", "product_id": "s1"})
    answer = client.get("/api/recommend?anonymous_id=new&n=8").json
    assert answer["user_id"] == "anonymous:new"
    assert (answer["fallback"], answer["message"]) == (False, None)
    assert answer["in_the_moment"] == {"events": 1, "model_version": "n1", "problem": None}
    found = {item["product_id"]: item for item in answer["items"]}
    assert {product: (item["algorithm"], item["reason"]) for product, item in found.items()} == {
        "s1": ("recent", "You viewed this"),
        "s2": ("vmis_knn", "Because you viewed s1, and others went on to this"),
        "s3": ("vmis_knn", "Because you viewed s1, and others went on to this"),
        "s4": ("category", "Because you viewed s1, which is of the same category"),
        **{f"p{n}": ("popularity", "Popular with other shoppers") for n in (4, 5, 6, 7)},
    }
    assert [item["rank"] for item in answer["items"]] == list(range(1, 9))
    assert {item["model_version"] for item in answer["items"] if item["source"] == "session"} == {"n1"}
    assert client.get("/api/recommend?anonymous_id=new&met=false").json["items"][0]["product_id"] != "s1"


def test_who_refused_to_be_profiled_is_recommended_nothing_by_what_they_did(
    settings: Settings, shop: tuple[FlaskClient, Moment]
) -> None:
    client, now = shop
    refusal = {"user_id": "refuser", "refused": datetime(2024, 5, 1, tzinfo=UTC)}
    with publication(settings) as transaction:
        transaction.publish(PROFILING_REFUSALS, table(PROFILING_REFUSALS, [refusal]))
    happen(now, {"user_id": "refuser", "product_id": "s1"}, {"user_id": "another", "product_id": "s1"})
    assert {source for _, source in items(client, "/api/recommend/refuser")} == {"popular"}
    assert items(client, "/api/recommend/another")[0] == ("s1", "session")
    # Who has thought better of it since is not refused any longer.
    happen(now, {"user_id": "refuser", "product_id": "s1", "consent": True})
    assert items(client, "/api/recommend/refuser")[0] == ("s1", "session")


def test_what_was_just_bought_is_left_out_and_what_is_in_the_cart_is_not(
    shop: tuple[FlaskClient, Moment],
) -> None:
    client, now = shop
    happen(
        now,
        {"user_id": "buyer", "product_id": "s1"},
        {"user_id": "buyer", "product_id": "s2", "event_type": "add_to_cart"},
        {"user_id": "buyer", "product_id": "s1", "event_type": "purchase", "price": 10, "order_id": "o"},
    )
    found = {item["product_id"]: item["reason"] for item in client.get("/api/recommend/buyer").json["items"]}
    assert "s1" not in found
    assert found["s2"] == "You added this to your cart"
    assert found["s4"].startswith("Because you bought s1")


def test_what_most_of_its_buyers_come_back_for_is_given_again(
    settings: Settings, shop: tuple[FlaskClient, Moment]
) -> None:
    client, now = shop
    sold = {"user_id": "regular", "event_type": "purchase", "price": 10}
    happen(now, *({**sold, "product_id": product} for product in ("s1", "s2", "h3")))
    assert not {"s1", "s2"} & {product for product, _ in items(client, "/api/recommend/regular")}
    with publication(settings) as transaction:
        before = transaction.read(POPULAR_PRODUCTS)
        often = [
            row | {"product_id": product, "rank": place, "trending_rank": place, "repeat_rate": rate}
            for row in before.slice(0, 1).to_pylist()
            for place, (product, rate) in enumerate((("s1", 0.6), ("s2", 0.4)), start=100)
        ]
        transaction.publish(POPULAR_PRODUCTS, table(POPULAR_PRODUCTS, [*before.to_pylist(), *often]))
    try:
        found = {item["product_id"]: item for item in client.get("/api/recommend/regular").json["items"]}
        assert found["s1"]["reason"] == "You bought this"
        assert not {"s2", "h3"} & set(found)
    finally:
        with publication(settings) as transaction:
            transaction.publish(POPULAR_PRODUCTS, before)


def test_the_published_list_follows_and_excluded_products_are_in_no_part(
    shop: tuple[FlaskClient, Moment],
) -> None:
    client, now = shop
    happen(now, {"user_id": "u1", "product_id": "s1"}, {"user_id": "u1", "product_id": "p1"})
    assert items(client, "/api/recommend/u1?n=8&exclude=s2,p3,p6")[2:] == [
        *[("s3", "session"), ("s4", "session")],
        *[("p2", "personal"), ("p4", "personal"), ("p5", "personal"), ("p7", "popular")],
    ]


def test_a_visitor_who_was_tied_before_is_the_user(shop: tuple[FlaskClient, Moment]) -> None:
    client, now = shop
    happen(now, {"anonymous_id": "x", "product_id": "h1"})
    for path in ("/api/recommend/tied", "/api/recommend?anonymous_id=x"):
        answer = client.get(path).json
        assert answer["user_id"] == "tied"
        assert answer["items"][0]["product_id"] in ("h1", "h2")
    # And one who logs in now.
    happen(
        now,
        {"anonymous_id": "y", "product_id": "h1"},
        {"anonymous_id": "y", "user_id": "u1", "event_type": "identify"},
    )
    assert client.get("/api/recommend?anonymous_id=y").json["user_id"] == "u1"
    assert ("h2", "session") in items(client, "/api/recommend/u1")


def test_who_refuses_to_be_profiled_gets_what_is_popular(shop: tuple[FlaskClient, Moment]) -> None:
    client, now = shop
    happen(now, {"user_id": "completist", "product_id": "s1", "consent": False})
    assert items(client, "/api/recommend/completist?n=2") == [("p4", "popular"), ("p5", "popular")]


def test_what_is_bought_again_counts_a_purchase_of_a_second_ago(shop: tuple[FlaskClient, Moment]) -> None:
    client, now = shop
    before = client.get("/api/buy-again/u1").json
    assert [(item["product_id"], item["reason"]) for item in before["items"]] == [
        ("p2", "You bought this on 2 days, last on 2024-05-01"),
        ("p1", "You bought this on 2024-05-02"),
    ]
    # Of ten days' half-life, a day; a fifth of the buyers of each come back.
    assert [item["score"] for item in before["items"]] == pytest.approx([2 * 0.5**0.1 * 0.2, 0.2])
    assert {(item["algorithm"], item["source"]) for item in before["items"]} == {("buy_again", "bought")}
    assert (before["user_id"], before["model_version"], before["message"]) == ("u1", "m1", None)
    bought = {"event_type": "purchase", "price": 10, "product_id": "p9"}
    happen(
        now,
        {"user_id": "u1", **bought},
        {"anonymous_id": "z", **bought},
        {"user_id": "u1", "product_id": "s3"},
    )
    assert items(client, "/api/buy-again/u1") == [(product, "bought") for product in ("p9", "p2", "p1")]
    assert items(client, "/api/buy-again/u1?category=books&exclude=p1") == [("p9", "bought")]
    assert items(client, "/api/buy-again?anonymous_id=z") == [("p9", "bought")]
    nothing = client.get("/api/buy-again/nobody").json
    assert (nothing["items"], nothing["message"]) == ([], "This user has bought nothing that is known.")
    happen(now, {"user_id": "u1", "product_id": "s1", "consent": False})
    refused = client.get("/api/buy-again/u1").json
    assert (refused["items"], refused["message"]) == (
        [],
        "This user does not want what they did to be looked at.",
    )


def test_a_session_gets_what_it_asks_for_and_the_list_is_full(shop: tuple[FlaskClient, Moment]) -> None:
    client, _ = shop
    path = "/api/session/recommend?n=2&category=books"
    found = client.post(path, json={"products": ["s1"]}).json
    # Of what comes next to shoes nothing is a book.
    assert [(item["product_id"], item["source"]) for item in found["items"]] == [("p9", "popular")]
    assert found["experiment"] is None


def test_a_session_that_the_request_describes(shop: tuple[FlaskClient, Moment]) -> None:
    client, _ = shop
    answer = client.post(
        "/api/session/recommend?n=4&exclude=s3", json={"products": ["h1", "s1"], "bought": ["s1"]}
    )
    assert answer.status_code == 200
    found = {item["product_id"]: item["reason"] for item in answer.json["items"]}
    assert set(found) == {"h1", "h2", "s2", "s4"}
    assert found["s4"] == "Because you bought s1, which is of the same category"
    assert answer.json["in_the_moment"]["events"] == 2
    assert "user_id" not in answer.json


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({}, "products"),
        ({"products": []}, "products"),
        ({"products": ["a"] * 101}, "products"),
        ({"products": "a"}, "products"),
        ({"products": ["a\0"]}, "products"),
        ({"products": ["a"], "more": 1}, "more"),
    ],
)
def test_a_session_that_cannot_be_read_is_named(
    shop: tuple[FlaskClient, Moment], body: dict[str, Any], parameter: str
) -> None:
    client, _ = shop
    answer = client.post("/api/session/recommend", json=body)
    assert answer.status_code == 422
    assert answer.json["errors"][0]["parameter"] == parameter


def test_a_model_that_is_served_anew_is_taken_whole_and_none_is_let_go(
    settings: Settings, shop: tuple[FlaskClient, Moment]
) -> None:
    client, now = shop
    happen(now, {"user_id": "u", "product_id": "s1"})
    other = NextProduct(MODEL.assortment, Sessions(np.array([0, 6]), np.array([0, 2])), MODEL.weights)
    before = now.model
    serve(settings, "n2", other)
    try:
        assert now.model is before
        now.renew_models()
        answer = client.get("/api/recommend/u").json
        assert answer["in_the_moment"]["model_version"] == "n2"
        assert {i["product_id"] for i in answer["items"] if i["algorithm"] == "vmis_knn"} == {"h3"}
        with publication(settings) as transaction:
            nothing = SERVED_MODELS.arrow.empty_table()
            transaction.publish(SERVED_MODELS, nothing, Scope("answers", "next_product"))
        now.renew_models()
        assert now.model is None
        assert client.get("/api/recommend/u").json["in_the_moment"]["model_version"] is None
    finally:
        serve(settings, "n1")


def test_a_new_visitors_third_click_changes_the_answer_without_dagster(
    settings: Settings, kafka: Settings, tmp_path: Path
) -> None:
    servers = with_settings(settings, kafka_bootstrap_servers=kafka.kafka_bootstrap_servers)
    topic = new_topic(servers, partitions=2)

    def click(product_id: str, partition: int) -> None:
        event = {
            "event_type": "view",
            "anonymous_id": "new",
            "timestamp": time.time(),
            "product_id": product_id,
        }
        send(topic, {partition: [json.dumps(event).encode()]})

    click("s1", 0)
    kafka_of = {
        "RECENT_EVENTS": "1000",
        "KAFKA_BOOTSTRAP_SERVERS": topic.kafka_bootstrap_servers,
        "KAFKA_TOPIC": topic.kafka_topic,
        "EXPERIMENTS": str(tmp_path / "experiments.toml"),
        "KAFKA_EXPOSURES_TOPIC": f"{topic.kafka_topic}-shown",
    }
    (tmp_path / "experiments.toml").write_text(
        "[[experiment]]\nname = 'aa'\nstart = 2024-01-01T00:00:00Z\n"
        "arms = [{name = 'a', share = 0.5}, {name = 'b', share = 0.5}]\n"
    )
    asked = 0
    with served(topic, **kafka_of) as api:

        def answer() -> dict[str, Any]:
            nonlocal asked
            asked += 1
            return requests.get(f"{api.address}/api/recommend?anonymous_id=new", timeout=60).json()

        def until_events(number: int) -> list[str]:
            for attempt in Retrying(
                retry=retry_if_exception_type(AssertionError),
                stop=stop_after_delay(30),
                wait=wait_fixed(0.05),
                reraise=True,
            ):
                with attempt:
                    # Of both worker processes.
                    answers = [answer() for _ in range(6)]
                    assert {each["in_the_moment"]["events"] for each in answers} == {number}
                    assert {each["in_the_moment"]["model_version"] for each in answers} == {"n1"}
                    assert {each["message"] for each in answers} == {None}
                    # By the documented formula: the part of `aa::anonymous:new` is 3468.
                    assert {each["experiment"]["arm"] for each in answers} == {"a"}
            return [item["product_id"] for item in answers[0]["items"]]

        # The first came before the API began.
        lists = [until_events(1)]
        for number, product in ((2, "h1"), (3, "h3")):
            click(product, number % 2)
            lists.append(until_events(number))
        ready = requests.get(f"{api.address}/health/ready", timeout=60).json()
        assert ready["dependencies"]["recent_events"] == "ok"

        def measured(name: str) -> float:
            samples = requests.get(f"{api.address}/metrics", timeout=60).text.splitlines()
            (sample,) = (line for line in samples if line.startswith(name))
            return float(sample.split()[1])

        assert time.time() - measured(RECENT_READ.name) < 10
        for attempt in Retrying(
            retry=retry_if_exception_type(AssertionError),
            stop=stop_after_delay(30),
            wait=wait_fixed(0.1),
            reraise=True,
        ):
            with attempt:
                assert measured(f'{EXPOSURES.name}{{outcome="sent"}}') == asked
        assert measured(f'{EXPOSURES.name}{{outcome="lost"}}') == 0
    assert set(lists[0][:4]) == {"s1", "s2", "s3", "s4"}
    assert "h2" in lists[1]
    assert lists[2][0] == "h3" != lists[1][0]


def test_without_kafka_the_lists_of_before_are_the_answer_and_it_says_so(settings: Settings) -> None:
    away = {"RECENT_EVENTS": "1000", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "KAFKA_TIMEOUT_SECONDS": "1"}
    with served(settings, **away) as api:
        for attempt in Retrying(
            retry=retry_if_exception_type(AssertionError),
            stop=stop_after_delay(30),
            wait=wait_fixed(0.1),
            reraise=True,
        ):
            with attempt:
                answer = requests.get(f"{api.address}/api/recommend/u1?n=2", timeout=60).json()
                assert answer["in_the_moment"]["problem"] == "Kafka cannot be reached"
        ready = requests.get(f"{api.address}/health/ready", timeout=60).json()
        assert ready["dependencies"]["recent_events"] == "Kafka cannot be reached"
    assert answer["message"] == "What happened in the last minutes does not count: Kafka cannot be reached."
    assert [(item["product_id"], item["source"]) for item in answer["items"]] == [
        ("p1", "personal"),
        ("p2", "personal"),
    ]
