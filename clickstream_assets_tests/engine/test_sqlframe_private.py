"""SQLFrame's private parts that we use are as they were when they were read."""

from importlib.metadata import version
from typing import Any

import pyarrow as pa
import pytest
import sqlframe.base.column
import sqlframe.base.dataframe
import sqlframe.base.util
import sqlframe.duckdb.session
from sqlframe.base.session import _BaseSession
from sqlglot import exp, generator, parse_one, parser
from sqlglot.dialects import DuckDB
from sqlglot.expressions import core
from sqlglot.optimizer import annotate_types

from clickstream_assets.engine import DuckDBEngine, functions_of
from clickstream_assets.engine.sqlframe_private import (
    attach,
    attached,
    copy_queries_quickly,
    detach,
    duckdb_query,
    is_sqlframe,
    look_up_names,
    named_table,
)


def test_it_is_the_version_that_was_read():
    assert version("sqlframe").rpartition(".")[0] == "4.10", (
        "read engine/sqlframe_private.py against the new version, then raise this one"
    )


def test_its_dataframes_are_known_by_their_module(duckdb_engine: DuckDBEngine):
    df = duckdb_engine.from_arrow(pa.table({"a": [1]}))
    assert is_sqlframe(df)
    assert is_sqlframe(df.where(functions_of(df)[0].col("a") > 0))
    assert not is_sqlframe(pa.table({"a": [1]}))


def test_sqlglot_is_compiled_and_sqlframe_uses_no_class_that_it_derives_from_it(duckdb_engine: DuckDBEngine):
    assert generator.__file__.endswith(".so")
    df = duckdb_engine.from_arrow(pa.table({"a": [[1, 2, 3]]}))
    F, _ = functions_of(df)
    doubled = df.select(F.transform("a", lambda value: value * 2).alias("a"))
    assert duckdb_engine.to_arrow(doubled.select(doubled["a"][1].alias("b"))).to_pylist() == [{"b": 4}]
    derived = {
        found
        for base in (generator.Generator, parser.Parser, annotate_types.TypeAnnotator)
        for found in _derived(base)
        if found.__module__.startswith("sqlframe.")
    }
    assert {found.__qualname__ for found in derived} == {"_DuckDBV2.Generator", "ContainerTypeAnnotator"}
    assert sqlframe.duckdb.session._DuckDBV2 is DuckDB
    assert sqlframe.base.dataframe.ContainerTypeAnnotator is annotate_types.TypeAnnotator


def _derived(base: type[Any]) -> set[type[Any]]:
    direct: list[type[Any]] = base.__subclasses__()
    return {*direct, *(found for each in direct for found in _derived(each))}


def test_a_query_and_its_copy_share_nothing(duckdb_engine: DuckDBEngine):
    assert duckdb_engine.to_arrow(duckdb_engine.from_arrow(pa.table({"a": [1]}))).num_rows == 1
    assert core.deepcopy.__module__ == copy_queries_quickly.__module__
    query: Any = parse_one("SELECT a, b + 1 AS c /* a remark */ FROM t WHERE d IN (1, 2)")
    query.selects[0].meta["ours"] = {"nested": [1]}
    copied = query.copy()
    assert copied == query
    assert copied.sql() == query.sql()
    for one, other in zip(query.walk(), copied.walk(), strict=True):
        assert one is not other
        assert one.meta == other.meta
        assert one.comments == other.comments
    copied.selects[0].meta["ours"]["nested"].append(2)
    copied.selects[0].this.meta["line"] = 99
    assert query.selects[0].meta["ours"] == {"nested": [1]}
    assert query.selects[0].this.meta["line"] == 1


def test_what_is_made_of_a_dataframe_leaves_it_as_it_was(duckdb_engine: DuckDBEngine):
    df = duckdb_engine.from_arrow(pa.table({"a": [3, 1, 2], "b": ["x", "y", "x"]}))
    F, _ = functions_of(df)
    base = df.where(F.col("a") > 1).select("a", "b")
    before = duckdb_query(base)
    made = [
        base.select((F.col("a") * 2).alias("a")),
        base.where(F.col("b") == "x"),
        base.groupBy("b").agg(F.sum("a").alias("a")),
        base.join(df.select("b").distinct(), on="b"),
        base.union(base),
        base.hint("broadcast"),
    ]
    assert base.pending_hints == []
    assert len({duckdb_query(each) for each in made[:-1]} | {before}) == len(made)
    assert duckdb_query(base) == before
    # As SQLFrame writes it itself.
    assert before == base.sql(dialect="duckdb", optimize=False, pretty=False)  # type: ignore[operator]
    assert sorted(duckdb_engine.to_arrow(base)["a"].to_pylist()) == [2, 3]


def test_steps_are_shared_until_a_query_is_written(duckdb_engine: DuckDBEngine):
    df: Any = duckdb_engine.from_arrow(pa.table({"a": [3, 1, 2], "b": ["x", "y", "x"]}))
    F, _ = functions_of(df)
    base = df.where(F.col("a") > 1).select("a", "b").select("a", "b")
    steps = base.expression.ctes
    assert len(steps) > 1
    further = base.select(F.col("a").alias("c")).where(F.col("c") > 2)
    assert all(one is other for one, other in zip(steps, further.expression.ctes, strict=False))
    # Those of both sides of a join are there once, and each of the others has a name of its own.
    joined = (
        base.alias("one").join(base.alias("other"), on="a").join(further.withColumnRenamed("c", "a"), on="a")
    )
    names = [step.alias_or_name for step in joined.expression.ctes]
    assert len(names) == len(set(names))
    assert set(names) > {step.alias_or_name for step in further.expression.ctes}
    before = [step.sql() for step in steps]
    assert duckdb_engine.to_arrow(joined.select("a")).to_pylist() == [{"a": 3}]
    assert [step.sql() for step in steps] == before
    assert sorted(duckdb_engine.to_arrow(base)["a"].to_pylist()) == [2, 3]


def test_steps_of_one_name_that_differ_are_told_apart(duckdb_engine: DuckDBEngine):
    df: Any = duckdb_engine.from_arrow(pa.table({"a": [1, 2]}))
    F, _ = functions_of(df)
    one, other = (df._convert_leaf_to_cte(name="t_same").where(F.col("a") == n).select("a") for n in (1, 2))
    (step,) = other.expression.ctes[-1:]
    step.this.set("where", parse_one("SELECT 1 WHERE a < 5").args["where"])
    assert sorted(duckdb_engine.to_arrow(one.union(other))["a"].to_pylist()) == [1, 2]
    assert duckdb_engine.to_arrow(one)["a"].to_pylist() == [1]
    assert duckdb_engine.to_arrow(other)["a"].to_pylist() == [2]


def test_a_table_is_what_sqlframe_makes_of_its_name(duckdb_engine: DuckDBEngine):
    session: Any = duckdb_engine.from_arrow(pa.table({"a": [1]})).session
    types = {"price per day": "double", "end": "string"}
    named = named_table(session, "table_of_ours", types)
    session.catalog.add_table("table_of_its_own", {f"`{name}`": kind for name, kind in types.items()})
    its_own = session.table("table_of_its_own")
    assert named.expression.sql().replace("of_ours", "of_its_own") == its_own.expression.sql()
    assert named.columns == its_own.columns == list(types)
    schema = session.catalog._schema
    assert schema.find(exp.to_table("table_of_ours")) == schema.find(exp.to_table("table_of_its_own"))


def test_a_lambda_that_is_made_of_another_function_is_written_as_duckdb_reads_it(duckdb_engine: DuckDBEngine):
    df = duckdb_engine.from_arrow(pa.table({"a": [[1, 2]]}))
    F, _ = functions_of(df)
    assert duckdb_engine.to_arrow(df.select(F.array_remove("a", 1).alias("a"))).to_pylist() == [{"a": [2]}]


@pytest.mark.parametrize("name", ["price", "`Price per Day`", "end", "events.price", "`a`.`b`", "größe"])
def test_a_name_that_is_looked_up_is_what_parsing_and_writing_it_gives(
    duckdb_engine: DuckDBEngine, name: str
):
    assert duckdb_engine.to_arrow(duckdb_engine.from_arrow(pa.table({"a": [1]}))).num_rows == 1
    assert exp.to_column.__module__ == look_up_names.__module__
    write = sqlframe.base.util.quote_preserving_alias_or_name
    look_up = sqlframe.base.dataframe.quote_preserving_alias_or_name
    assert look_up is sqlframe.base.column.quote_preserving_alias_or_name is not write
    for _ in range(2):
        column = exp.to_column(name, dialect=_BaseSession().input_dialect)
        parsed = parse_one(name, into=exp.Column, dialect=_BaseSession().input_dialect)
        assert column == parsed
        assert look_up(column) == write(parsed)
        aliased = exp.alias_(exp.Literal.number(1), name, quoted=True)
        assert look_up(aliased) == write(aliased)
        # What is done to one is not done to the next.
        column.set("this", exp.to_identifier("another"))
        column.meta["ours"] = 1


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
