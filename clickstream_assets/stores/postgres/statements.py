"""Parts of SQL statements that follow from the names of columns."""

from collections.abc import Iterable

from psycopg import sql


def each(template: str, columns: Iterable[str], separator: str = ", ") -> sql.Composed:
    """Return the columns in a list, each put into the template."""
    return sql.SQL(separator).join(sql.SQL(template).format(sql.Identifier(name)) for name in columns)


def upsert(table: str, key: str, columns: Iterable[str]) -> sql.Composed:
    """Return the insertion of a row, `excluded`, that overwrites the one of the same key, `kept`."""
    columns = list(columns)
    return sql.SQL(
        "INSERT INTO {table} AS kept ({columns}) VALUES ({values}) ON CONFLICT ({key}) DO UPDATE SET {assignments}"
    ).format(
        table=sql.Identifier(table),
        columns=each("{}", columns),
        values=sql.SQL(", ").join(sql.Placeholder() for _ in columns),
        key=sql.Identifier(key),
        assignments=each("{0} = excluded.{0}", columns),
    )
