"""The checks that every table of the lake has: what they find, which rows they look at, and what they hold up."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import deltalake
import pyarrow as pa
import pytest

from clickstream_assets.catalogue import CARTS, CUSTOMER_SEGMENTS, RAW_EVENTS, USER_SEGMENTS, Table
from clickstream_assets.defs.assets import Metadata, table_asset
from clickstream_assets.defs.checks import table_checks
from clickstream_assets.defs.resources import ComputeResource, LakeResource, SettingsResource
from clickstream_assets.engine import Engine, SparkEngine
from clickstream_assets.stores.lake import Lake
from clickstream_assets_tests.analytics.records import at, raw_table

NOON = at("2024-05-01 12:00")
CART = {
    "cart_id": "c1",
    "user_id": "ann",
    "state": "open",
    "opened_at": NOON,
    "last_activity_at": NOON,
    "last_activity_date": NOON.date(),
    "items": 1,
    "quantity": 1,
    "value": 1,
    "product_ids": ["p1"],
}
USER = {
    "report_date": date(2024, 5, 1),
    "user_id": "ann",
    "segment": "buyer",
    "events": 1,
    "views": 0,
    "add_to_carts": 0,
    "purchases": 1,
    "revenue": 1,
}


@pytest.fixture
def resources(engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A lake in a folder, on each engine."""
    monkeypatch.setenv("LAKE_PATH", str(tmp_path))
    monkeypatch.setenv("COMPUTE_ENGINE", engine.name)
    if isinstance(engine, SparkEngine):
        # Started first, so that the run joins it: a process has one.
        assert engine.session
    settings = SettingsResource()
    return {
        "settings": settings,
        "lake": LakeResource(settings=settings, compute=ComputeResource(settings=settings)),
    }


def write(folder: Path, table: Table, *rows: dict[str, Any]) -> None:
    """Put rows into a table as a version that allowed nulls left them."""
    nullable = pa.schema([field.with_nullable(True) for field in table.arrow])
    complete = [{**dict.fromkeys(table.column_names), **row} for row in rows]
    deltalake.write_deltalake(
        str(folder / table.name),
        pa.Table.from_pylist(complete, nullable),
        partition_by=list(table.partition_by),
    )


@table_asset(CARTS, deps=[])
def carts(lake: Lake) -> Metadata:
    """Nothing new: what is there is looked at."""
    return {}


@table_asset(CUSTOMER_SEGMENTS, deps=[])
def customer_segments(lake: Lake) -> Metadata:
    """Says from which day on it was replaced."""
    return {"replaced_from": "2024-05-02"}


@table_asset(USER_SEGMENTS, deps=[], is_daily=True)
def user_segments(context: dg.AssetExecutionContext, lake: Lake) -> Metadata:
    """Nothing new either, by day."""
    return {}


@dg.asset(deps=[carts])
def next_asset() -> None:
    """Rests on the carts."""


def checked(
    resources: dict[str, Any], *assets: dg.AssetsDefinition, partition_key: str | None = None
) -> dict[str, tuple[bool, dict[str, Any]]]:
    """Materialize assets with their checks; return whether each check passed, and what it said."""
    result = dg.materialize(
        [*assets, *table_checks(assets)],
        resources=resources,
        partition_key=partition_key,
        raise_on_error=False,
    )
    made = {event.step_key for event in result.get_asset_materialization_events()}
    found = result.get_asset_check_evaluations()
    assert ("next_asset" in made) == (next_asset in assets and all(check.passed for check in found))
    return {
        check.check_name: (check.passed, {name: value.value for name, value in check.metadata.items()})
        for check in found
    }


@pytest.mark.long_on_spark
def test_rows_as_the_catalogue_wants_them_hold_nothing_up(resources: dict[str, Any], tmp_path: Path):
    write(tmp_path, CARTS, CART, CART | {"cart_id": "c2", "state": "recovered"})
    assert checked(resources, carts, next_asset) == {
        "keys_are_unique": (True, {"expected": 2, "actual": 2, "sample_keys": []}),
        "values_are_allowed": (
            True,
            {"expected": "0 violations", "actual": "0 violations", "sample_keys": []},
        ),
    }


@pytest.mark.long_on_spark
def test_repeated_keys_nulls_and_other_values_are_named_and_hold_up_what_comes_next(
    resources: dict[str, Any], tmp_path: Path
):
    write(tmp_path, CARTS, CART, CART, CART | {"cart_id": "c2", "state": "lost", "user_id": None})
    assert checked(resources, carts, next_asset) == {
        "keys_are_unique": (False, {"expected": 3, "actual": 2, "sample_keys": [{"cart_id": "c1"}]}),
        "values_are_allowed": (
            False,
            {
                "expected": "0 violations",
                "actual": "1 violations",
                "sample_keys": [{"cart_id": "c2", "violation": "user_id is None, state is lost"}],
            },
        ),
    }


@pytest.mark.long_on_spark
def test_a_run_looks_at_its_own_days(resources: dict[str, Any], tmp_path: Path):
    write(tmp_path, USER_SEGMENTS, USER, USER, USER | {"report_date": date(2024, 5, 2)})
    assert checked(resources, user_segments, partition_key="2024-05-02")["keys_are_unique"][0]
    assert not checked(resources, user_segments, partition_key="2024-05-01")["keys_are_unique"][0]


@pytest.mark.long_on_spark
def test_an_asset_that_says_which_days_it_replaced_has_these_looked_at(
    resources: dict[str, Any], tmp_path: Path
):
    customer = {"user_id": "ann", "frequency": 0, "monetary": 0, "abandoned_carts": 1, "abandoned_value": 1}
    days = [date(2024, 5, 1), date(2024, 5, 1), date(2024, 5, 2), date(2024, 5, 3)]
    write(tmp_path, CUSTOMER_SEGMENTS, *({**customer, "report_date": day} for day in days))
    found = checked(resources, customer_segments)
    assert found["keys_are_unique"] == (True, {"expected": 2, "actual": 2, "sample_keys": []})


@pytest.mark.long_on_spark
def test_of_what_is_ingested_only_new_batches_are_looked_at(
    resources: dict[str, Any], tmp_path: Path, engine: Engine, instance: dg.DagsterInstance
):
    @table_asset(RAW_EVENTS, deps=[])
    def raw_events(lake: Lake) -> Metadata:
        """One more batch."""
        batch = lake.snapshot(RAW_EVENTS).batch + 1
        lake.append_batch(
            RAW_EVENTS, lake.engine.from_arrow(raw_table([b"a", b"b"], batch, batch * 2)), batch
        )
        return {}

    def batches() -> tuple[Any, Any]:
        result = dg.materialize(
            [raw_events, *table_checks([raw_events])], instance=instance, resources=resources
        )
        (check,) = result.get_asset_check_evaluations()
        return check.metadata["first_batch"].value, check.metadata["batch"].value

    assert [batches(), batches()] == [(1, 1), (2, 2)]
