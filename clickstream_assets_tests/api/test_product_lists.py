"""Lists of products by their own address, and what all lists of recommended products can be asked for."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from clickstream_assets.settings import Settings
from clickstream_assets_tests.api.conftest import clients_of
from clickstream_assets_tests.databases import fresh_database


def ids(client: FlaskClient, path: str) -> list[str]:
    answer = client.get(f"/api{path}")
    assert answer.status_code == 200, answer.json
    return [item["product_id"] for item in answer.json["items"]]


def why(item: dict[str, Any]) -> tuple[str, ...]:
    return tuple(item[name] for name in ("product_id", "source", "algorithm", "reason"))


def test_what_is_like_a_product_comes_first_then_its_category_then_what_is_popular(
    client: FlaskClient,
) -> None:
    answer = client.get("/api/item-to-item/p1?n=5").json
    similar = "Shoppers who care for Product p1 care for this"
    assert list(map(why, answer["items"])) == [
        ("p2", "similar", "item_knn", similar),
        ("p10", "similar", "item_knn", similar),
        ("p9", "popular", "category", "Popular, and of the same category as Product p1"),
        ("p4", "popular", "popularity", "Popular with other shoppers"),
        ("p5", "popular", "popularity", "Popular with other shoppers"),
    ]
    assert [item["rank"] for item in answer["items"]] == [1, 2, 3, 4, 5]
    assert {item["model_version"] for item in answer["items"]} == {"m1"}
    first = answer["items"][0]
    assert (first["score"], first["confidence_score"], first["name"]) == (0.5, 0.5, "Product p2")
    others = {name: value for name, value in answer.items() if name != "items"}
    assert others == {"product_id": "p1", "message": None, "model_version": "m1", "experiment": None}


def test_what_is_bought_with_a_product_says_in_how_many_orders_and_fills_nothing_up(
    client: FlaskClient,
) -> None:
    answer = client.get("/api/bought-together/p1").json
    assert list(map(why, answer["items"])) == [
        ("p9", "together", "bought_together", "In 4 of the 8 orders that had Product p1"),
        ("p4", "together", "bought_together", "In 2 of the 8 orders that had Product p1"),
    ]
    assert [item["confidence_score"] for item in answer["items"]] == [0.5, 0.25]
    empty = client.get("/api/bought-together/p4").json
    assert (empty["items"], empty["model_version"]) == ([], "m1")
    assert empty["message"] == "Orders have none that was asked for together with this product."


def test_popular_and_trending_products_are_ranked_each_in_their_way(client: FlaskClient) -> None:
    popular = client.get("/api/popular?n=2").json
    assert list(map(why, popular["items"])) == [
        (product, "popular", "popularity", "Popular with other shoppers") for product in ("p4", "p5")
    ]
    trending = client.get("/api/trending?n=2&exclude=p19").json
    assert list(map(why, trending["items"])) == [
        ("p20", "trending", "trending", "Met 17.0 times as often as usual lately"),
        ("p18", "trending", "trending", "Met 15.0 times as often as usual lately"),
    ]
    assert [item["score"] for item in trending["items"]] == pytest.approx([100, 100])
    assert trending["experiment"] is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        # The sixth of the popular ones, and the list is as long as the shop has products of the kind.
        ("/popular?n=2&category=books", ["p9"]),
        ("/trending?n=2&category=books", ["p9"]),
        ("/recommend/u1?n=3&category=books", ["p1", "p9"]),
        ("/recommend/u1?category=toys", ["p2"]),
        ("/recommend/u1?category=toys.wood", ["p2"]),
        ("/recommend/u1?category=toy", []),
        ("/recommend/nobody?category=books", ["p9"]),
        # What has no price is of none.
        ("/recommend/u1?price_min=1", ["p1", "p9"]),
        ("/recommend/u1?price_max=9.99", ["p1", "p2"]),
        ("/recommend/u1?price_min=0.5&price_max=0.5", ["p2"]),
        ("/recommend/u1?available=false", ["p2"]),
        # Of most products no feed says anything.
        ("/recommend/u1?n=4&available=true", ["p1", "p3", "p4", "p5"]),
        ("/recommend/u1?category=books&exclude=p1", ["p9"]),
        ("/item-to-item/p1?category=books", ["p9"]),
        ("/item-to-item/p1?category=toys", ["p2"]),
        ("/item-to-item/p1?n=3&available=true", ["p10", "p9", "p4"]),
        ("/bought-together/p1?price_min=10", ["p9"]),
        ("/bought-together/p1?exclude=p9", ["p4"]),
    ],
)
def test_products_are_chosen_before_the_list_is_cut(
    client: FlaskClient, path: str, expected: list[str]
) -> None:
    assert ids(client, path) == expected


def test_a_list_without_any_product_says_why(client: FlaskClient) -> None:
    for path in ("recommend/u1", "recommend/nobody"):
        assert client.get(f"/api/{path}?category=boats").json["message"] == (
            "There is no product left that is as it was asked for, not excluded and new to this user."
        )
    for path in ("popular", "trending", "item-to-item/p1"):
        assert client.get(f"/api/{path}?category=boats").json["message"] == (
            "There is no product that is as it was asked for, and not excluded."
        )


def test_a_diverse_list_has_another_category_sooner(client: FlaskClient) -> None:
    assert ids(client, "/item-to-item/p4?n=3") == ["p1", "p9", "p2"]
    # Both p1 and p9 are books; what has no category is like none.
    assert ids(client, "/item-to-item/p4?n=3&diversity=0.7") == ["p1", "p2", "p5"]
    assert ids(client, "/item-to-item/p4?n=2&diversity=0.7") == ["p1", "p2"]


def test_a_product_that_nobody_knows_is_named(client: FlaskClient) -> None:
    for path in ("item-to-item", "bought-together"):
        answer = client.get(f"/api/{path}/nowhere")
        assert (answer.status_code, answer.json["code"]) == (404, "unknown_product")


def test_before_anything_is_published_there_is_no_list(postgres: Settings) -> None:
    with fresh_database(postgres) as empty:
        for client in clients_of(empty):
            for path in ("item-to-item/p1", "bought-together/p1", "popular", "trending", "buy-again/u1"):
                answer = client.get(f"/api/{path}")
                assert (answer.status_code, answer.json["code"]) == (503, "nothing_published"), path
            assert client.get("/api/models").json == {"models": []}


@pytest.mark.parametrize(
    ("query", "parameter", "message"),
    [
        ("price_min=-1", "price_min", "must be a number of at least 0"),
        ("price_max=nan", "price_max", "must be a number of at least 0"),
        ("price_max=1e999", "price_max", "must be a number of at least 0"),
        ("price_min=1_0", "price_min", "must be a number of at least 0"),
        ("price_min=2&price_max=1", "price_max", "must not be lower than price_min"),
        ("diversity=1.1", "diversity", "must be a number from 0 to 1"),
        ("available=yes", "available", "must be true or false"),
        ("limit=3", "limit", "is not a parameter of this operation"),
    ],
)
def test_what_a_list_cannot_be_asked_for_is_named(
    client: FlaskClient, query: str, parameter: str, message: str
) -> None:
    for path in (
        "recommend/u1",
        "item-to-item/p1",
        "bought-together/p1",
        "popular",
        "trending",
        "buy-again/u1",
    ):
        answer = client.get(f"/api/{path}?{query}")
        assert answer.status_code == 422, path
        [error] = answer.json["errors"]
        assert (error["parameter"], error["message"]) == (parameter, message)


def test_versions_say_how_they_were_trained_and_judged_and_which_is_served(client: FlaskClient) -> None:
    versions = client.get("/api/models").json["models"]
    assert {(row["model_version"], row["answers"], row["is_served"]) for row in versions} == {
        ("m1", "recommendations", True),
        ("n0", "next_product", False),
        ("7-2026-02-28", "predictions", True),
    }
    lists, next_product, predictions = versions
    assert (lists["algorithm"], lists["parameters"]) == ("als", {"factors": 8})
    assert (lists["trained_at"], lists["trained_on"]) == ("2024-05-31T00:00:00Z", "events batch 1")
    assert lists["put_back_at"] is None
    assert [
        (judged["target"], judged["algorithm"], judged["judged"], judged["values"]["ndcg@10"])
        for judged in lists["metrics"]
    ] == [("next", "als", 9, 0.25), ("next", "trending", 9, 0.125), ("purchases", "als", 9, 0.5)]
    assert lists["served_since"]
    assert next_product["metrics"] == [
        {
            "target": "next",
            "algorithm": "vmis_knn",
            "judged": 10,
            "values": {"hit_rate@20": 0.5, "popular_hit_rate@20": 0.25},
        }
    ]
    assert [judged["target"] for judged in predictions["metrics"]] == [
        "purchase_in_28_days",
        "purchase_in_7_days",
        "purchase_in_session",
    ]
    assert predictions["trained_on"] == "events batch 7"
    assert [row["answers"] for row in client.get("/api/models?n=1").json["models"]] == ["recommendations"]
