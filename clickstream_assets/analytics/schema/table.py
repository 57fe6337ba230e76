"""What a table of the lake is made of: columns with a type and a meaning, a grain and a key."""

from dataclasses import dataclass

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
VECTOR = pa.list_(pa.float32())
STRINGS = pa.list_(pa.string())


@dataclass(frozen=True)
class Column:
    """A column: its name, Arrow type, what it holds, and whether it may be null."""

    name: str
    type: pa.DataType
    description: str
    nullable: bool = True


@dataclass(frozen=True)
class Table:
    """A table of the lake: what one row is, its columns, its unique key and how its files are laid out."""

    name: str
    grain: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partition_by: tuple[str, ...] = ()

    @property
    def column_names(self) -> list[str]:
        """Column names in order."""
        return [column.name for column in self.columns]

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema."""
        return pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in self.columns])
