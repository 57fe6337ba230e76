"""A shop's money through the whole pipeline: several currencies, rates that come later, and what is sent back."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from clickstream_assets.catalogue import (
    CAMPAIGN_ATTRIBUTION,
    CARTS,
    CATEGORY_CONVERSION,
    CUSTOMER_SEGMENTS,
    DAILY_REPORT,
    DAILY_SUMMARY,
    PRODUCT_PERFORMANCE,
    SESSIONS,
    SHOPPER_EVENTS,
    USER_SEGMENTS,
    Table,
)
from clickstream_assets.settings import Settings
from clickstream_assets_tests.defs.pipeline import Pipeline

REPORTED = dg.AssetSelection.assets("published_days", "published_shoppers").upstream()
PAID = (
    SESSIONS,
    USER_SEGMENTS,
    PRODUCT_PERFORMANCE,
    CATEGORY_CONVERSION,
    DAILY_SUMMARY,
    CAMPAIGN_ATTRIBUTION,
)


@pytest.fixture
def pipeline(pipeline_env: Settings, instance: dg.DagsterInstance, definitions: dg.Definitions) -> Pipeline:
    return Pipeline(pipeline_env, instance, definitions, only=REPORTED)


def event(number: int, kind: str, user: str, time: str, **more: Any) -> dict[str, Any]:
    return {
        "event_id": f"x{number}",
        "event_type": kind,
        "user_id": user,
        "timestamp": f"{time}Z",
        "product_id": "P",
        **more,
    }


def revenue(pipeline: Pipeline, table: Table) -> Decimal:
    rows = pipeline.lake(table)
    if table is CAMPAIGN_ATTRIBUTION:
        rows = [row for row in rows if row["model"] == "linear"]
    return sum((row["revenue"] for row in rows), Decimal(0))


def report(pipeline: Pipeline) -> dict[str, Any]:
    (row,) = pipeline.served(DAILY_REPORT)
    return json.loads(row["report"])


@pytest.mark.long
def test_amounts_of_another_currency_are_kept_apart_until_there_is_a_rate(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    pipeline.ingest(
        event(1, "purchase", "a", "2024-05-02T10:00:00", price=100, currency="EUR", order_id="1"),
        event(2, "purchase", "b", "2024-05-02T10:01:00", price=10000, currency="JPY", order_id="2"),
        event(3, "view", "b", "2024-05-02T10:00:30"),
        event(4, "add_to_cart", "c", "2024-05-02T10:02:00", price=2000, currency="JPY", quantity=2),
    )
    assert pipeline.reported("exchange_rates", "shop_currency") == "EUR"
    assert pipeline.catch_up() == [("2024-05-02", "2024-05-02")]
    (day,) = pipeline.served(DAILY_SUMMARY)
    assert {name: day[name] for name in ("revenue", "orders", "currency", "currencies", "unconverted")} == {
        "revenue": Decimal(100),
        "orders": 2,
        "currency": "EUR",
        "currencies": ["EUR", "JPY"],
        "unconverted": 1,
    }
    assert {revenue(pipeline, table) for table in PAID} == {Decimal(100)}
    sent = {
        row["event_id"]: (row["sent_price"], row["sent_currency"]) for row in pipeline.lake(SHOPPER_EVENTS)
    }
    assert sent["x2"] == (Decimal(10000), "JPY")
    assert (report(pipeline)["revenue"], report(pipeline)["unconverted"]) == (100.0, 1)
    assert [row["value"] for row in pipeline.lake(CARTS) if row["user_id"] == "c"] == [0]
    check = pipeline.refresh("2024-05-02", "2024-05-02").get_asset_check_evaluations()
    (found,) = [one for one in check if one.check_name == "amounts_are_in_the_shops_currency"]
    assert (found.passed, found.metadata["actual"].value) == (False, 1)

    rates = tmp_path / "rates.csv"
    rates.write_text("date,currency,rate\n2024-05-01,JPY,0.0061\n")
    monkeypatch.setenv("EXCHANGE_RATES", str(rates))
    pipeline.ingest()
    assert pipeline.reported("events", "dirty_days") == ["2024-05-02"]
    assert pipeline.catch_up() == [("2024-05-02", "2024-05-02")]
    (day,) = pipeline.served(DAILY_SUMMARY)
    assert (day["revenue"], day["unconverted"]) == (Decimal(161), 0)
    assert {revenue(pipeline, table) for table in PAID} == {Decimal(161)}
    assert sum(row["monetary"] for row in pipeline.served(CUSTOMER_SEGMENTS)) == Decimal(161)
    (cart,) = [row for row in pipeline.lake(CARTS) if row["user_id"] == "c"]
    assert (cart["value"], cart["currency"]) == (Decimal("24.4"), "EUR")
    # The same once more is nothing new.
    pipeline.ingest()
    assert pipeline.catch_up() == []
