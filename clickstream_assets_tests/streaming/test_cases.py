"""Records that real shops' senders write, through the streams: counts per product, and live events."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from clickstream_assets.catalogue import DUPLICATE_EVENTS, EVENTS
from clickstream_assets.engine import SparkEngine
from clickstream_assets.stores.elasticsearch import RESULT_WINDOW, LiveEvents
from clickstream_assets.streaming.process import run_live_events
from clickstream_assets.streaming.reconciliation import reconcile
from clickstream_assets.streaming.source import configured
from clickstream_assets_tests.analytics.records import at
from clickstream_assets_tests.cases import CASES
from clickstream_assets_tests.databases import with_settings
from clickstream_assets_tests.streaming.streams import Shop, click
from clickstream_assets_tests.topics import send

COMPARED = (
    *("event_type", "user_id", "anonymous_id", "session_id", "product_id", "price", "currency", "quantity"),
    *("order_id", "item", "items"),
)


@pytest.fixture
def with_live_events(shop: Shop) -> Iterator[Shop]:
    """A stream that keeps the live events of any day; they are deleted afterwards."""
    # Of the events' days each is past its retention.
    shop.settings = with_settings(shop.settings, live_events_retention_days=0)
    yield shop
    live, alias = LiveEvents(shop.settings), shop.settings.elasticsearch_alias
    for index in [*live.client.indices.get_alias(index=f"{alias}-*"), f"{alias}_progress"]:
        live.client.indices.delete(index=index, ignore_unavailable=True)
    for template in (alias, f"{alias}_progress"):
        live.client.options(ignore_status=404).indices.delete_index_template(name=template)
    live.close()


@pytest.mark.long
def test_what_real_senders_write_is_counted_right_and_is_in_the_live_events(
    with_live_events: Shop, spark_engine: SparkEngine
):
    shop = with_live_events
    send(shop.settings, {0: [value for case in CASES for value in case.values]})
    shop.run()
    expected = {product: counts for case in CASES for product, counts in case.windows.items()}
    assert counted(shop) == expected

    # A later event closes the windows, which are then compared with the batch.
    shop.stream([click(at("2024-05-30 12:00"), 1)])
    shop.ingest()
    reconciliation = reconcile(shop.settings, shop.lake, days=60)
    assert (reconciliation.waiting, reconciliation.differences) == (None, [])
    assert reconciliation.compared > 200

    run_live_events(shop.settings, lambda: configured(spark_engine.session, shop.settings))
    live = documents(shop)
    of_batch = {row["event_id"]: row for row in rows(shop, EVENTS)}
    # The live events know ids, and no order lines.
    repeated = {row["event_id"] for row in rows(shop, DUPLICATE_EVENTS) if row["reason"] == "same_order_line"}
    assert live.keys() == of_batch.keys() | repeated
    assert len(repeated) == sum(case.outcomes.get("same_order_line", 0) for case in CASES) > 0
    for event_id, row in of_batch.items():
        document = live[event_id]
        assert {name: document.get(name) for name in COMPARED} == {name: row[name] for name in COMPARED}


def counted(shop: Shop) -> dict[str, tuple[int, ...]]:
    """Views, additions to carts, purchases and all events per product, of windows that do not overlap."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for row in shop.windows():
        if row["window_start"].minute % 10 == 0:
            for number, name in enumerate(("views", "add_to_carts", "purchases", "total_events")):
                found[row["product_id"]][number] += row[name]
    return {product: tuple(counts) for product, counts in found.items()}


def documents(shop: Shop) -> dict[str, dict[str, Any]]:
    """Return the live events by their ids, amounts as Elasticsearch has them."""
    live = LiveEvents(shop.settings)
    live.client.indices.refresh(index="_all")
    found = live.search({"match_all": {}}, RESULT_WINDOW, 0)
    live.close()
    return {document["event_id"]: document for document in found}


def rows(shop: Shop, table: Any) -> list[dict[str, Any]]:
    """Return a table of the lake; amounts as floats, as documents have them."""
    data = shop.lake.engine.to_arrow(shop.lake.read(table)).to_pylist()
    amounts = ("price", "quantity")
    return [{n: float(v) if n in amounts and v is not None else v for n, v in row.items()} for row in data]
