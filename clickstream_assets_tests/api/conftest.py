"""A database with published rows, and the application on it."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from flask.testing import FlaskClient

from clickstream_assets.api.app import create_app
from clickstream_assets.api.database import EXTENSION
from clickstream_assets.catalogue import (
    BOUGHT_PRODUCTS,
    MET_PRODUCTS,
    MODEL_EVALUATION,
    NEXT_PRODUCT_MODELS,
    POPULAR_PRODUCTS,
    PRODUCT_RECOMMENDATIONS,
    PUBLISHED_MODELS,
    RELATED_PRODUCTS,
    SERVED_MODELS,
)
from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.publishing import publication
from clickstream_assets_tests.api.shop import publish_rows
from clickstream_assets_tests.databases import fresh_database, with_settings
from clickstream_assets_tests.stores.postgres.rows import met, popular, recommendations, table

_APP = create_app(Settings(_env_file=None))
PATHS = sorted(
    re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
    for rule in _APP.url_map.iter_rules()
    if rule.rule != "/openapi.json"
    and "GET" in (rule.methods or ())
    # For people; what they show is from the others.
    and not rule.endpoint.startswith("pages.")
)
"""Every route that is read but pages, as the OpenAPI document writes it."""
POSTED = {"/api/session/recommend"}
PARAMETERS = {
    path: {parameter["name"] for parameter in described["get"]["parameters"]}
    for path, described in _APP.spec["paths"].items()
    if path in PATHS
}
LISTS = [path for path in PATHS if "limit" in PARAMETERS[path]]
STRANGE_USERS = ["a/b", "/a", "a/", "//", "a//b", "..", "ü 🐍", "a\nb", "50%", "?x=1&n=2#y", "a+b", "'; --"]


RELATED: list[dict[str, Any]] = [
    {"relation": "item_to_item", "product_id": "p1", "related_ids": ["p2", "p10"], "scores": [0.5, 0.25]},
    {
        "relation": "item_to_item",
        "product_id": "p4",
        "related_ids": ["p1", "p9", "p2"],
        "scores": [0.9, 0.8, 0.7],
    },
    {
        "relation": "bought_together",
        "product_id": "p1",
        "related_ids": ["p9", "p4"],
        "scores": [0.3, 0.2],
        "orders": 8,
        "together": [4, 2],
    },
]
BOUGHT: list[dict[str, Any]] = [
    {
        "user_id": "u1",
        "product_ids": ["p1", "p2"],
        "days": [1, 2],
        "last_times": [int(datetime(2024, 5, day, tzinfo=UTC).timestamp() * 1e6) for day in (2, 1)],
    }
]
JUDGED: list[dict[str, Any]] = [
    {
        "model_version": "m1",
        **{"target": target, "algorithm": algorithm, "is_served": False, "parameters": "{}", "k": 10},
        **{"users": 9, "pairs": 20, "share": 0.5, "ndcg": ndcg, "ndcg_low": 0.1, "ndcg_high": 0.9},
        **{"map": 0.1, "precision": 0.1, "recall": 0.1, "coverage": 0.1, "novelty": 3.0, "seconds": 1.0},
        **{"chosen": algorithm == "als", "reason": "best"},
    }
    for target, algorithm, ndcg in (
        ("next", "als", 0.25),
        ("next", "trending", 0.125),
        ("purchases", "als", 0.5),
    )
]
"""How the served model was judged, and one that was not chosen."""
NEXT_PRODUCT = {
    "model_version": "n0",
    "trained_on": "events batch 1",
    "trained_at": datetime(2024, 5, 30, tzinfo=UTC),
    **{"parts": 1, "sessions": 4, "products": 7, "targets": 10, "hit_rate": 0.5, "popular_hit_rate": 0.25},
    **{"new_targets": 0, "other_targets": 0},
}


def publish(settings: Settings) -> None:
    """Publish a small shop."""
    model = {"model_version": "m1", "algorithm": "als", "reason": "best", "metric_name": "ndcg@10"}
    with publication(settings) as transaction:
        transaction.publish(
            PRODUCT_RECOMMENDATIONS,
            pa.concat_tables(
                [
                    recommendations(["u1"], [f"p{n}" for n in range(1, 6)]),
                    recommendations(STRANGE_USERS, ["p7"]),
                ]
            ),
        )
        transaction.publish(
            MET_PRODUCTS,
            met(
                **{user: ["p1"] for user in STRANGE_USERS},
                u1=["p19", "p20", "unpopular"],
                completist=[f"p{n}" for n in range(4, 21)],
            ),
        )
        transaction.publish(POPULAR_PRODUCTS, popular([f"p{n}" for n in range(4, 21)]))
        transaction.publish(
            PUBLISHED_MODELS,
            table(
                PUBLISHED_MODELS,
                [
                    model
                    | {
                        "parameters": '{"factors": 8}',
                        "trained_on": "events batch 1",
                        "interactions": 9,
                        "users": 1,
                    }
                    | {"rows": 5, "trained_at": datetime(2024, 5, 31, tzinfo=UTC), "made_from": "{}"}
                    | {"buy_again": '{"half_life_days": 10, "usual_rate": 0.2}'}
                ],
            ),
        )
        transaction.publish(MODEL_EVALUATION, table(MODEL_EVALUATION, JUDGED))
        transaction.publish(
            SERVED_MODELS,
            table(SERVED_MODELS, [{"answers": "recommendations", "model_version": "m1"}]),
        )
        transaction.publish(RELATED_PRODUCTS, table(RELATED_PRODUCTS, RELATED))
        transaction.publish(BOUGHT_PRODUCTS, table(BOUGHT_PRODUCTS, BOUGHT))
        transaction.publish(NEXT_PRODUCT_MODELS, table(NEXT_PRODUCT_MODELS, [NEXT_PRODUCT]))
        publish_rows(transaction)


@pytest.fixture(scope="module")
def settings(postgres: Settings, elasticsearch: Settings) -> Iterator[Settings]:
    with fresh_database(postgres) as own:
        publish(own)
        yield with_settings(own, elasticsearch_url=elasticsearch.elasticsearch_url)


def clients_of(settings: Settings) -> Iterator[FlaskClient]:
    """Give a client of an application of its own, whose connections are closed afterwards."""
    app = create_app(settings)
    yield app.test_client()
    app.extensions[EXTENSION].close()


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[FlaskClient]:
    yield from clients_of(settings)
