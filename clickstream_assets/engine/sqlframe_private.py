"""Parts of SQLFrame that we use and it does not document, read from version 4.10.

A test asks for each of these, so an upgrade that changes one fails there and not by wrong rows.
"""

import copy
from functools import lru_cache
from typing import Any

# Names of tables are numbered, so a long run would gather them without end.
_NAMES_KEPT = 4096
_FLAT = frozenset({int, str, bool, float, type(None)})


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
        return value.__deepcopy__({}) if isinstance(value, core.Expr) else copy.deepcopy(value)

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
