"""Classes that describe a table: columns with types and meanings, grain, key, and form in PostgreSQL."""

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

STRING = pa.string()
LONG = pa.int64()
INT = pa.int32()
DOUBLE = pa.float64()
BOOL = pa.bool_()
DATE = pa.date32()
BINARY = pa.binary()
TIMESTAMP = pa.timestamp("us", tz="UTC")
MONEY = pa.decimal128(18, 4)
"""An amount of one event."""
MONEY_SUM = pa.decimal128(28, 4)
"""A sum of any number of them."""
# Wide, because purchases without a view before them make a rate of more than a hundred per cent.
PERCENT = pa.decimal128(18, 2)
QUANTITY = pa.decimal128(18, 4)
"""Units of one event, of which there can be parts: 0.75 kg."""
QUANTITY_SUM = pa.decimal128(28, 4)
"""A sum of any number of them."""
VECTOR = pa.list_(pa.float32())
STRINGS = pa.list_(pa.string())
LONGS = pa.list_(pa.int64())
DOUBLES = pa.list_(pa.float64())
PROBLEMS = pa.list_(pa.struct([("field", STRING), ("rule", STRING), ("value", STRING)]))


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its name, in every store.
        type: Its Arrow type.
        description: What it holds.
        nullable: Whether it may be null.
        values: The only values that it takes, null aside; none for any value.
        filter: Whether the API's lists can be filtered by it: True for a parameter of its own name, or the
            parameter's name.
        range: Whether the parameters `since` and `until` of the API's lists are bounds of it.
        sort: Whether the API's lists can be sorted by it.
        default: Default in PostgreSQL, a literal or `now()`, for writers that do not know the column.
    """

    name: str
    type: pa.DataType
    description: str
    nullable: bool = False
    values: tuple[str, ...] | None = None
    filter: bool | str = False
    range: bool = False
    sort: bool = False
    default: str | None = None

    @property
    def parameter(self) -> str | None:
        """Name of the query parameter that filters by it."""
        return self.name if self.filter is True else self.filter or None


CREATED_AT = Column("created_at", TIMESTAMP, "When the row was inserted", default="now()")


@dataclass(frozen=True)
class Index:
    """An index in PostgreSQL.

    Attributes:
        columns: Its columns, each with ` DESC` after it where it falls.
        where: SQL condition of the rows that it holds; none for all rows.
        name: Its name after the table's; none for that of its first column.
    """

    columns: tuple[str, ...]
    where: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Lists:
    """Rows that are lists, of which one that says the same as before is left as it was written.

    Attributes:
        per: The column that says whose list a row is of; in the table's key.
        beside: Columns that may differ in lists that say the same, such as the version of the model.
    """

    per: str
    beside: tuple[str, ...]


@dataclass(frozen=True)
class Served:
    """The form of a table in PostgreSQL.

    Attributes:
        name: Its name there; none for the table's own.
        stamp: A further time column that is set whenever a row is inserted or changed.
        order: Columns that come first, in this order, because older readers select by position; the stamp and
            columns of `more` can be among them.
        surrogate_key: Whether a column `id` comes first of all and is the primary key; the table's key is then a
            unique constraint.
        more: Columns that only PostgreSQL has, after the others.
        zero_defaults: Whether numbers that may not be null are 0 by default, for writers that know only the older
            columns.
        checked: Columns whose allowed values PostgreSQL enforces.
        indexes: Its indexes besides that of the key.
        lists: The lists that its rows are; none where each row is for itself.
        profiles: Whether its rows say of a person what they are like, or may want: who refuses to be profiled has none.
    """

    name: str | None = None
    stamp: str | None = None
    order: tuple[str, ...] = ()
    surrogate_key: bool = False
    more: tuple[Column, ...] = ()
    zero_defaults: bool = False
    checked: tuple[str, ...] = ()
    indexes: tuple[Index, ...] = ()
    lists: Lists | None = None
    profiles: bool = False


@dataclass(frozen=True)
class Table:
    """A table: what one row is, its columns, its unique key, how its files are laid out, and where it is served.

    Attributes:
        name: Its name in the lake, which is that of its asset.
        grain: What one row is.
        columns: Its columns, in the lake's order.
        key: Columns of which no two rows have the same values.
        partition_by: Columns that the lake's files are laid out by.
        served: Its form in PostgreSQL; none where PostgreSQL does not have it.
        in_lake: Whether the lake has it.
    """

    name: str
    grain: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partition_by: tuple[str, ...] = ()
    served: Served | None = None
    in_lake: bool = True

    @property
    def column_names(self) -> list[str]:
        """Column names in order."""
        return [column.name for column in self.columns]

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema."""
        return pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in self.columns])

    @cached_property
    def by_name(self) -> dict[str, Column]:
        """The columns by their names."""
        return {column.name: column for column in self.columns}

    @property
    def day(self) -> str | None:
        """The column that says which day a row belongs to; none for a table without days."""
        days = [name for name in self.partition_by if pa.types.is_date(self.by_name[name].type)]
        return days[0] if days else None

    @property
    def served_name(self) -> str:
        """Its name in PostgreSQL.

        Raises:
            ValueError: PostgreSQL does not have it.
        """
        if self.served is None:
            raise ValueError(f"{self.name} is not served")
        return self.served.name or self.name
