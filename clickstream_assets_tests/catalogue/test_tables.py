"""The catalogue: what a table says of itself fits together, and the code that makes its rows agrees."""

from __future__ import annotations

import pkgutil
from collections import Counter
from importlib import import_module

import pyarrow as pa
import pytest

from clickstream_assets import catalogue
from clickstream_assets.catalogue import (
    ALERT_STATES,
    ALGORITHM_NAMES,
    CUSTOMER_SEGMENTS,
    FLASH_SALE_ALERTS,
    SERVED_TABLES,
    SESSIONS,
    TABLES,
    Column,
    Served,
    Table,
)
from clickstream_assets.catalogue.rfm import RFM_SEGMENTS
from clickstream_assets.recommender.algorithms import ALGORITHMS
from clickstream_assets.streaming.alerts import AlertState

tables = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
served_tables = pytest.mark.parametrize("table", SERVED_TABLES, ids=lambda table: table.served_name)


def test_every_table_of_every_module_is_in_the_registry_once_and_exported():
    modules = [
        import_module(f"{catalogue.__name__}.{name}")
        for _, name, _ in pkgutil.iter_modules(catalogue.__path__)
    ]
    declared = {
        name: value for module in modules for name, value in vars(module).items() if isinstance(value, Table)
    }
    assert sorted(table.name for table in declared.values()) == sorted(TABLES)
    assert {name: getattr(catalogue, name) for name in declared} == declared


@tables
def test_keys_and_days_are_columns_and_each_name_is_there_once(table: Table):
    assert max(Counter(table.column_names).values()) == 1
    assert table.key
    assert {*table.key, *table.partition_by} <= set(table.column_names)


@tables
def test_what_lists_are_asked_for_has_one_meaning(table: Table):
    parameters = [column.parameter for column in table.columns if column.parameter]
    bounded = [column for column in table.columns if column.range]
    assert max(Counter(parameters).values(), default=1) == 1
    assert len(bounded) <= 1
    assert all(pa.types.is_date(column.type) or pa.types.is_timestamp(column.type) for column in bounded)


@served_tables
def test_what_postgresql_has_is_made_of_the_tables_columns(table: Table):
    served = table.served
    assert served is not None
    own = [*table.column_names, *(column.name for column in served.more), *filter(None, [served.stamp])]
    assert max(Counter(own).values()) == 1
    assert set(served.order) <= set(own)
    indexed = {name.removesuffix(" DESC") for index in served.indexes for name in index.columns}
    assert indexed <= set(own)
    assert all(table.by_name[name].values for name in served.checked)


def test_names_in_postgresql_are_different():
    assert len({table.served_name for table in SERVED_TABLES}) == len(SERVED_TABLES)


def test_allowed_values_are_those_of_the_code_that_makes_them():
    assert tuple(ALGORITHMS) == ALGORITHM_NAMES
    assert tuple(AlertState) == ALERT_STATES == FLASH_SALE_ALERTS.by_name["state"].values
    assert CUSTOMER_SEGMENTS.by_name["rfm_segment"].values == tuple(segment.name for segment in RFM_SEGMENTS)


def test_a_column_is_filtered_by_its_own_name_or_by_another():
    columns = [Column("type", pa.string(), "", filter=named) for named in (True, "kind", False)]
    assert [column.parameter for column in columns] == ["type", "kind", None]


def test_a_table_has_the_day_that_its_files_are_laid_out_by():
    assert SESSIONS.day == "session_date"
    assert TABLES["raw_events"].day is None
    assert TABLES["carts"].day == "last_activity_date"
    assert TABLES["cart_days"].day is None


def test_a_table_that_is_not_served_has_no_name_in_postgresql():
    assert SESSIONS.served_name == "clickstream_sessions"
    assert Table("t", "a row", (), (), served=Served()).served_name == "t"
    with pytest.raises(ValueError, match="raw_events is not served"):
        _ = TABLES["raw_events"].served_name
