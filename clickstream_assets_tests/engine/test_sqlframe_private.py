"""SQLFrame's private parts that we use are as they were when they were read."""

from importlib.metadata import version

import pyarrow as pa
import pytest

from clickstream_assets.engine import DuckDBEngine, functions_of
from clickstream_assets.engine.sqlframe_private import attach, attached, detach, duckdb_query, is_sqlframe


def test_it_is_the_version_that_was_read():
    assert version("sqlframe").rpartition(".")[0] == "4.10", (
        "read engine/sqlframe_private.py against the new version, then raise this one"
    )


def test_its_dataframes_are_known_by_their_module(duckdb_engine: DuckDBEngine):
    df = duckdb_engine.from_arrow(pa.table({"a": [1]}))
    assert is_sqlframe(df)
    assert is_sqlframe(df.where(functions_of(df)[0].col("a") > 0))
    assert not is_sqlframe(pa.table({"a": [1]}))


def test_a_query_runs_on_duckdb_as_it_is(duckdb_engine: DuckDBEngine):
    df = duckdb_engine.from_arrow(pa.table({"a": [1, 2]}))
    F, _ = functions_of(df)
    assert "SELECT" in duckdb_query(df.where(F.col("a") > 1))


def test_what_is_attached_is_no_column_and_goes_when_it_is_detached(duckdb_engine: DuckDBEngine):
    df = duckdb_engine.from_arrow(pa.table({"a": [1]})).select("a")
    assert attached(df) == (None, None)
    attach(df, "name", [1])
    assert attached(df) == ("name", [1])
    assert df.columns == ["a"]
    assert detach(df) == "name"
    with pytest.raises(KeyError):
        detach(df)
