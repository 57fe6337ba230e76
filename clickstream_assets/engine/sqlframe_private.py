"""Parts of SQLFrame that we use and it does not document, read from version 4.10.

A test asks for each of these, so an upgrade that changes one fails there and not by wrong rows.
"""

import copy
import itertools
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache, wraps
from typing import Any

# Names of tables are numbered, so a long run would gather them without end.
_NAMES_KEPT = 4096
_FLAT = frozenset({int, str, bool, float, type(None)})
_shares_steps = ContextVar("shares_steps", default=False)
"""True while the copy of a query has the same steps as the query, and not copies of them."""


def is_sqlframe(df: Any) -> bool:
    """Return whether a DataFrame is one of SQLFrame's: its classes have no common public base."""
    return type(df).__module__.startswith("sqlframe.")


def use_compiled_classes() -> None:
    """Put SQLGlot's own classes in place of two that SQLFrame derives from them.

    SQLGlot compiled is three times as fast, and a compiled class cannot be derived from in Python. One of the two
    writes the lambdas of DuckDB 2, which SQLGlot does too; the other gives types to lookups in a map within a map,
    which no table here has.
    """
    import sqlframe.base.dataframe
    import sqlframe.duckdb.session
    from sqlglot.dialects import DuckDB
    from sqlglot.optimizer.annotate_types import TypeAnnotator

    sqlframe.duckdb.session._DuckDBV2 = DuckDB
    sqlframe.base.dataframe.ContainerTypeAnnotator = TypeAnnotator


def copy_queries_quickly() -> None:
    """Have SQLGlot copy a query in half of the time, and SQLFrame only what is not replaced in the copy.

    SQLFrame copies the whole query at each operation, which was a third of a small refresh; half of that went into
    what SQLGlot keeps with each parsed name, where in its text it stood, since `copy.deepcopy` is slow with
    dictionaries. And a DataFrame that is copied to hold another query had its own copied for nothing.
    """
    import sqlframe.base.dataframe
    import sqlframe.base.table
    from sqlglot.expressions import core

    def deepcopy(value: Any) -> Any:
        if type(value) is dict and _FLAT.issuperset(map(type, value.values())):
            return dict(value)
        if not isinstance(value, core.Expr):
            return copy.deepcopy(value)
        steps = value.args.get("with_") if _shares_steps.get() else None
        if steps is None:
            return value.__deepcopy__({})
        value.args["with_"] = None
        copied = value.__deepcopy__({})
        value.args["with_"] = steps
        copied.set("with_", type(steps)(**steps.args | {"expressions": list(steps.expressions)}))
        return copied

    core.deepcopy = deepcopy  # type: ignore[assignment]

    def object_to_dict(obj: Any, **replaced: Any) -> dict[str, Any]:
        kept = {name: value for name, value in vars(obj).items() if name not in replaced}
        return {
            name: value.copy() if hasattr(value, "copy") else copy.copy(value) for name, value in kept.items()
        } | replaced

    for module in (sqlframe.base.dataframe, sqlframe.base.table):
        module.object_to_dict = object_to_dict

    frame: Any = sqlframe.base.dataframe.BaseDataFrame
    resolve = frame._resolve_pending_hints

    # It copies the query to write hints into it, where there are any.
    frame._resolve_pending_hints = lambda self: resolve(self) if self.pending_hints else self


def share_steps() -> None:
    """Have a DataFrame's query share its steps (CTEs) with those that are made of it, and give each step a number.

    SQLFrame copies all steps before at each operation, four times, and writes them as SQL to name the new one by a
    hash. What was a step stays as it is: it is changed only where a query is written, which copies all of it first, or
    where two DataFrames that are joined have steps of one name that differ.
    """
    import sqlframe.base.dataframe
    import sqlframe.base.operations
    from sqlglot import exp

    frame: Any = sqlframe.base.dataframe.BaseDataFrame
    numbers = itertools.count(1)
    add = frame._add_ctes_to_expression

    def sharing(function: Callable[..., Any], is_shared: bool) -> Callable[..., Any]:
        @wraps(function)
        def wrapper(*args: Any, **named: Any) -> Any:
            token = _shares_steps.set(is_shared)
            try:
                return function(*args, **named)
            finally:
                _shares_steps.reset(token)

        return wrapper

    def create_step(
        _: Any, expression: Any, branch_id: str, sequence_id: str, name: str | None = None, **given: Any
    ) -> tuple[Any, str]:
        name = name or f"t{next(numbers):08}"
        query = expression.copy()
        query.set("with_", None)
        (step,) = exp.Select().with_(name, as_=query, copy=False, **given).ctes
        step.set("branch_id", branch_id)
        step.set("sequence_id", sequence_id)
        return step, name

    def add_steps(self: Any, expression: Any, steps: list[Any]) -> Any:
        there = {step.alias_or_name: step for step in expression.ctes}
        others = [step for step in steps if there.get(step.alias_or_name) is not step]
        return add(
            self, expression, [step.copy() if step.alias_or_name in there else step for step in others]
        )

    frame._create_cte_from_expression = create_step
    frame._add_ctes_to_expression = add_steps
    # It names the steps by a hash of what they are then.
    frame._replace_cte_names_with_hashes = lambda _, expression: expression
    for name in ("copy", "_convert_leaf_to_cte", "_set_operation"):
        setattr(frame, name, sharing(getattr(frame, name), True))
    operations = sqlframe.base.operations
    operations._run_operation = sharing(operations._run_operation, True)
    for name in ("_create_hash_from_expression", "_get_expressions"):
        setattr(frame, name, sharing(getattr(frame, name), False))


def look_up_names() -> None:
    """Have SQLFrame parse and write each name once.

    It does so for all columns at each operation: 3,000 times for the sessions' ten steps, a fifth of their time. And to
    find a function by its name it imports SQLGlot's 35 dialects anew.
    """
    import sqlframe.base.column
    import sqlframe.base.dataframe
    import sqlframe.base.functions
    import sqlframe.base.util
    from sqlframe.base.session import _BaseSession
    from sqlglot import exp

    parse, write = exp.to_column, sqlframe.base.util.quote_preserving_alias_or_name
    parsed = lru_cache(_NAMES_KEPT)(parse)

    def to_column(name: Any, *args: Any, **options: Any) -> Any:
        if not isinstance(name, str):
            return parse(name, *args, **options)
        return parsed(name, *args, **options).copy()

    @lru_cache(_NAMES_KEPT)
    def written(name: str, quoted: bool) -> str:
        return write(exp.to_identifier(name, quoted=quoted))

    def quote_preserving_alias_or_name(column: Any) -> str:
        name = column.args.get("alias") if isinstance(column, exp.Alias) else column
        if isinstance(name, exp.Column) and isinstance(name.this, exp.Identifier):
            name = name.this
        if isinstance(name, exp.Identifier):
            return written(name.this, bool(name.quoted))
        return write(column)

    exp.to_column = to_column  # type: ignore[assignment]
    for module in (sqlframe.base.column, sqlframe.base.dataframe):
        module.quote_preserving_alias_or_name = quote_preserving_alias_or_name
    _BaseSession._normalize_string = lru_cache(_NAMES_KEPT)(_BaseSession._normalize_string)
    sqlframe.base.util.dialect_to_string = lru_cache(sqlframe.base.util.dialect_to_string)


def rewrite_statements(session: Any, rewrite: Callable[[str], str]) -> None:
    """Have a session of SQLFrame's on DuckDB rewrite what it executes by itself, as for a DataFrame's `count()`."""
    execute = session._execute
    session._execute = lambda statement: execute(rewrite(statement))


def named_table(session: Any, name: str, types: dict[str, str]) -> Any:
    """Return the DataFrame of a table or view, with Spark's types of its columns.

    As `session.catalog.add_table` and `session.table` do it, which parse each column's name three times, and its type.
    """
    from sqlglot import exp

    dialect = session.input_dialect
    table = exp.to_table(name, dialect=dialect)
    quoted = {f"`{column}`": kind for column, kind in types.items()}
    session.catalog._schema.add_table(table, quoted, dialect=dialect)
    names = [exp.to_column(column, dialect=dialect) for column in quoted]
    return session._create_table(exp.Select(expressions=names, from_=exp.From(this=table)))


def duckdb_query(df: Any) -> str:
    """Return the query of a DataFrame as it stands: optimizing takes longer than DuckDB's own planner."""
    import duckdb
    from sqlglot.dialects import DuckDB
    from sqlglot.optimizer.normalize_identifiers import normalize_identifiers
    from sqlglot.optimizer.qualify_columns import quote_identifiers

    # As `BaseDataFrame.sql` does it, without three more copies of the whole.
    (query,) = df._get_expressions(optimize=False)
    dialect = DuckDB(version=duckdb.__version__)
    for spelling in (df.session.input_dialect, dialect):
        query = normalize_identifiers(query, dialect=spelling)
    quote_identifiers(query, dialect=dialect)
    text: str = query.sql(dialect=dialect, copy=False)
    # A lambda that SQLGlot made of another function is written as DuckDB did before its second version; SQLFrame
    # parses the text once more for that.
    return str(df.sql(dialect=dialect, optimize=False)) if " -> " in text else text


def attach(df: Any, name: str, relation: Any) -> None:
    """Keep with a DataFrame the name and the Arrow data that it reads.

    In the instance's own dictionary: SQLFrame takes any other attribute for a column.
    """
    vars(df)["registered"] = (name, relation)


def attached(df: Any) -> tuple[str | None, Any]:
    """Return what `attach` kept, or two times None."""
    found: tuple[str | None, Any] = vars(df).get("registered", (None, None))
    return found


def detach(df: Any) -> str:
    """Take it out again and return the name: SQLFrame's objects are in cycles, so the data would stay in memory."""
    name, _ = vars(df).pop("registered")
    return str(name)
