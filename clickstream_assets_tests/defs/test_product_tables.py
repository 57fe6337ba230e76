"""What the shop sells, kept right batch by batch: the same as of all events at once."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from clickstream_assets.analytics.product_details import products, seen_products
from clickstream_assets.catalogue import (
    EVENTS,
    EXCHANGE_RATES,
    PRODUCT_FEED,
    PRODUCTS,
    RAW_PRODUCTS,
    SEEN_PRODUCTS,
    Table,
)
from clickstream_assets.defs.products import update
from clickstream_assets.defs.products.sensors import new_products
from clickstream_assets.defs.products.update import update_products, update_seen_products
from clickstream_assets.engine import DuckDBEngine, Engine
from clickstream_assets.ingest.product_feed import take_in
from clickstream_assets.settings import Settings, load_settings
from clickstream_assets.stores.exchange_rates import Rate, ShopMoney
from clickstream_assets.stores.kafka.producer import ensure_topics
from clickstream_assets.stores.lake import Lake
from clickstream_assets_tests import topics
from clickstream_assets_tests.analytics.records import day, event, event_table, rows_of
from clickstream_assets_tests.dagster_private import SensorExecutionData
from clickstream_assets_tests.defs.history import end_run, materialize, past_run, start_run, tick
from clickstream_assets_tests.defs.pipeline import Pipeline
from clickstream_assets_tests.defs.test_new_records import lake_resource

Row = dict[str, Any]

PUBLISHED = ("products", "published_products")


def append(lake: Lake, batch: int, *events: Row) -> None:
    table = event_table({**row, "event_id": f"{batch}-{n}", "batch": batch} for n, row in enumerate(events))
    lake.append_batch(EVENTS, lake.engine.from_arrow(table), batch)


def view(minute: int, product: str, name: str | None = None, **more: Any) -> Row:
    properties = None if name is None else json.dumps({"name": name}, separators=(",", ":"))
    time = f"2024-05-01 10:{minute:02}"
    return event("view", time, product_id=product, properties=properties, **more)


def told(product: str, **more: Any) -> Row:
    return dict.fromkeys(PRODUCT_FEED.column_names) | {"product_id": product, "withdrawn": False} | more


def found(lake: Lake, table: Table) -> list[Row]:
    return rows_of(lake.engine, lake.read(table), "product_id")


def names(lake: Lake) -> dict[str, str | None]:
    return {row["product_id"]: row["name"] for row in found(lake, PRODUCTS)}


@pytest.mark.long_on_spark
def test_each_batch_is_taken_in_once_and_a_late_event_changes_what_nothing_later_says(
    engine: Engine, tmp_path: Path
):
    lake = Lake(str(tmp_path), engine)
    assert (update_seen_products(lake), update_products(lake)) == (0, False)
    append(lake, 1, view(5, "a", "A"), view(5, "b"))
    append(lake, 2, view(1, "a", "late"), view(1, "b", "B"))
    assert (update_seen_products(lake), update_products(lake)) == (2, True)
    assert names(lake) == {"a": "A", "b": "B"}
    versions = lake.version(SEEN_PRODUCTS), lake.version(PRODUCTS)
    assert (update_seen_products(lake), update_products(lake)) == (2, False)
    assert (lake.version(SEEN_PRODUCTS), lake.version(PRODUCTS)) == versions
    # Without a product, and with nothing else said of one.
    append(lake, 3, event("search", "2024-05-01 11:00", product_id=None))
    append(lake, 4, view(9, "a"))
    assert (update_seen_products(lake), update_products(lake)) == (4, False)
    take_in(lake, [told("a", name="Told", available=True), told("c")])
    assert update_products(lake)
    assert names(lake) == {"a": "Told", "b": "B", "c": None}
    take_in(lake, [told("b", brand="x")], is_whole=True)
    assert update_products(lake)
    rows = {row["product_id"]: (row["name"], row["available"]) for row in found(lake, PRODUCTS)}
    assert rows == {"a": ("Told", False), "b": ("B", None), "c": (None, False)}


def test_what_is_known_of_events_that_were_put_back_goes(duckdb_engine: Engine, tmp_path: Path):
    lake = Lake(str(tmp_path), duckdb_engine)
    append(lake, 1, view(1, "a", "A"))
    append(lake, 2, view(2, "a", "B"), view(2, "b", "C"))
    update_seen_products(lake)
    earlier = Lake(str(tmp_path / "earlier"), duckdb_engine)
    append(earlier, 1, view(1, "a", "A"))
    (tmp_path / "events").rename(tmp_path / "lost")
    (tmp_path / "earlier" / "events").rename(tmp_path / "events")
    assert update_seen_products(lake) == 1
    assert [(row["product_id"], row["name"]) for row in found(lake, SEEN_PRODUCTS)] == [("a", "A")]
    append(lake, 2, view(2, "a", "D"))
    assert update_seen_products(lake) == 2
    assert [(row["product_id"], row["name"]) for row in found(lake, SEEN_PRODUCTS)] == [("a", "D")]


def test_another_exchange_rate_is_another_price(duckdb_engine: Engine, tmp_path: Path):
    lake = Lake(str(tmp_path), duckdb_engine)
    append(lake, 1, view(1, "a", price=Decimal(10), currency="CHF"))
    update_seen_products(lake)
    prices = []
    for rate in ("1.05", "1.1"):
        money = ShopMoney("EUR", (Rate("CHF", day("2024-01-01"), Decimal(rate)),))
        lake.replace(EXCHANGE_RATES, lake.engine.from_arrow(money.table()))
        assert update_products(lake)
        (row,) = found(lake, PRODUCTS)
        prices.append((row["price"], row["currency"]))
    assert prices == [(Decimal("10.5"), "EUR"), (Decimal(11), "EUR")]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 2))])
def test_however_events_are_batched_the_products_are_those_of_all(
    duckdb_engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
):
    # So few that several ranges of batches are taken in one after the other.
    monkeypatch.setattr(update, "ROWS_AT_ONCE", 15)
    lake, source = Lake(str(tmp_path), duckdb_engine), random.Random(seed)
    feed: dict[str, Row] = {}
    for batch in range(1, 16):
        append(
            lake,
            batch,
            *(
                view(
                    source.randrange(60),
                    f"p{source.randrange(8)}",
                    source.choice([None, "x", "y", "z"]),
                    brand=source.choice([None, "b", "c"]),
                )
                for _ in range(source.randrange(1, 10))
            ),
        )
        if source.random() < 0.4:
            product = f"p{source.randrange(12)}"
            feed[product] = told(product, name=source.choice([None, "told"]), available=True)
            take_in(lake, [feed[product]])
        if source.random() < 0.5:
            update_seen_products(lake)
            update_products(lake)
    update_seen_products(lake)
    update_products(lake)
    known = lake.engine.from_arrow(pa.Table.from_pylist(list(feed.values()), schema=PRODUCT_FEED.arrow))
    whole = products(seen_products(lake.read(EVENTS)), known)
    assert found(lake, PRODUCTS) == rows_of(lake.engine, whole, "product_id")


SEGMENT = {
    "type": "track",
    "event": "Product Viewed",
    "messageId": "m1",
    "userId": "u1",
    "timestamp": "2024-05-02T10:00:00Z",
    "context": {"library": {"name": "analytics.js"}},
    "properties": {
        "product_id": "segment",
        "name": "Monopoly",
        "category": "Games",
        "brand": "Hasbro",
        "price": 18.99,
        "image_url": "https://a.example/1.jpg",
        "url": "https://a.example/1",
    },
}
GA4 = {
    "event_name": "view_item",
    "event_timestamp": "1714644000000000",
    "user_pseudo_id": "7.1",
    "event_params": [{"key": "currency", "value": {"string_value": "EUR"}}],
    "items": [{"item_id": "ga4", "item_name": "Mug", "item_category": "Home", "price": 5.5}],
}
SHOPIFY = {
    "id": "s1",
    "name": "product_viewed",
    "clientId": "c1",
    "type": "standard",
    "timestamp": "2024-05-02T10:00:00Z",
    "data": {
        "productVariant": {
            "id": "11",
            "image": {"src": "https://cdn.example/2.png"},
            "price": {"amount": 9, "currencyCode": "EUR"},
            "product": {"id": "shopify", "title": "Snowboard", "vendor": "Acme", "type": "Boards"},
        }
    },
}


@pytest.fixture
def pipeline(pipeline_env: Settings, instance: dg.DagsterInstance, definitions: dg.Definitions) -> Pipeline:
    return Pipeline(pipeline_env, instance, definitions, only=dg.AssetSelection.assets(*PUBLISHED))


def test_what_trackers_send_of_products_is_served_and_what_did_not_change_is_left_alone(pipeline: Pipeline):
    pipeline.ingest(SEGMENT, GA4, SHOPIFY)
    pipeline.catch_up()
    rows = {row["product_id"]: row for row in pipeline.served(PRODUCTS)}
    columns = ("name", "category", "brand", "price", "currency", "image", "link")
    assert {product: tuple(row[name] for name in columns) for product, row in rows.items()} == {
        "segment": (
            *("Monopoly", "Games", "Hasbro", Decimal("18.99"), None),
            *("https://a.example/1.jpg", "https://a.example/1"),
        ),
        "ga4": ("Mug", "Home", None, Decimal("5.5"), "EUR", None, None),
        "shopify": ("Snowboard", "Boards", "Acme", Decimal(9), "EUR", "https://cdn.example/2.png", None),
    }
    stamp = pipeline.reported("published_products", "publication")
    # Of a day, and of a product that is known so.
    pipeline.ingest(SEGMENT | {"messageId": "m2", "timestamp": "2024-05-02T11:00:00Z"})
    pipeline.catch_up()
    assert pipeline.reported("products", "batch") == 2
    assert pipeline.reported("published_products", "publication") == stamp
    lake = Lake(pipeline.settings.lake, DuckDBEngine(pipeline.settings))
    take_in(lake, [told("ga4", name="Cup", available=True)])
    for asset in PUBLISHED:
        assert pipeline.materialize(asset).success
    assert pipeline.reported("published_products", "changes") == {
        **dict.fromkeys(("inserted", "deleted"), 0),
        "rows": 3,
        "updated": 1,
    }
    (row,) = [row for row in pipeline.served(PRODUCTS) if row["product_id"] == "ga4"]
    assert (row["name"], row["available"], row["price"]) == ("Cup", True, Decimal("5.5"))
    assert row in pipeline.lake(PRODUCTS)


def look(instance: dg.DagsterInstance, definitions: dg.Definitions) -> SensorExecutionData:
    return tick(new_products, instance, definitions, None, {"lake": lake_resource()})


def test_a_run_is_asked_for_when_the_feed_says_what_is_not_among_the_products(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    duckdb_engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("LAKE_PATH", str(tmp_path / "lake"))
    lake = Lake(str(tmp_path / "lake"), duckdb_engine)
    assert look(instance, definitions).skip_message == "the products are as the feed has them"
    take_in(lake, [told("a")])
    assert len(look(instance, definitions).run_requests or []) == 1
    run = start_run(instance, "catalogue")
    assert look(instance, definitions).skip_message == f"run {run.run_id} is under way"
    update_products(lake)
    versions = {
        "product_feed_version": lake.version(PRODUCT_FEED),
        "products_version": lake.version(PRODUCTS),
    }
    materialize(instance, "products", **versions)
    end_run(instance, run, dg.DagsterRunStatus.SUCCESS)
    # It was killed before it published them.
    assert len(look(instance, definitions).run_requests or []) == 1
    materialize(instance, "published_products", **versions)
    assert look(instance, definitions).skip_message == "the products are as the feed has them"
    past_run(instance, "catalogue", dg.DagsterRunStatus.FAILURE)
    assert "the last run failed" in str(look(instance, definitions).skip_message)


def test_what_the_topic_of_products_says_is_served_once_it_is_there(
    pipeline_env: Settings,
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    monkeypatch: pytest.MonkeyPatch,
):
    topic = f"{pipeline_env.kafka_topic}-products"
    monkeypatch.setenv("KAFKA_PRODUCTS_TOPIC", topic)
    made = Pipeline(load_settings(), instance, definitions)
    assert f"has no topic {topic}" in str(look(instance, definitions).skip_message)

    ensure_topics(made.settings)

    def say(key: str, value: Any) -> None:
        content = None if value is None else json.dumps(value).encode()
        topics.send(made.settings, {0: [content]}, key.encode(), topic=topic)

    def served() -> dict[str, tuple[Any, ...]]:
        job = definitions.resolve_job_def("catalogue")
        assert job.execute_in_process(instance=instance).success
        return {row["product_id"]: (row["name"], row["available"]) for row in made.served(PRODUCTS)}

    say("a", {"title": "Shoe", "availability": "in_stock"})
    found = look(instance, definitions)
    assert found.skip_message is None
    (request,) = found.run_requests or []
    assert request.tags["clickstream/waiting_records"] == "1"
    say("b", {"title": "Hat", "price": "cheap"})
    assert served() == {"a": ("Shoe", True)}
    assert (made.reported("product_feed", "records"), made.reported("product_feed", "rejected_records")) == (
        2,
        1,
    )
    assert made.reported("product_feed", "samples") == "- not_a_number price: cheap (partition 0, offset 1)"
    assert look(instance, definitions).skip_message == "the products are as the feed has them"
    stamp = made.reported("published_products", "publication")
    assert served() == {"a": ("Shoe", True)}
    assert (made.reported("product_feed", "records"), len(made.lake(RAW_PRODUCTS))) == (0, 2)
    say("a", None)
    assert len(look(instance, definitions).run_requests or []) == 1
    assert served() == {"a": ("Shoe", False)}
    assert made.reported("published_products", "publication") != stamp
