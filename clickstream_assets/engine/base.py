"""The interface of an engine, and the functions that belong to the engine of a DataFrame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass
from datetime import date
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from clickstream_assets.engine.sqlframe_private import is_sqlframe
from clickstream_assets.settings import EngineName

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
else:
    DataFrame: TypeAlias = Any
    SparkSession: TypeAlias = Any

BatchFunction: TypeAlias = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


def functions_of(df: DataFrame) -> tuple[ModuleType, Any]:
    """Return the `(functions, Window)` that belong to the engine of this DataFrame."""
    if is_sqlframe(df):
        from sqlframe.duckdb import Window
        from sqlframe.duckdb import functions as duckdb_functions

        return duckdb_functions, Window
    from pyspark.sql import Window as SparkWindow
    from pyspark.sql import functions as spark_functions

    return spark_functions, SparkWindow


def number_of_hex(F: ModuleType, digits: Any) -> Any:
    """Column: the number that a text of at most 15 hexadecimal digits writes, as a long."""
    if hasattr(F, "conv"):
        return F.conv(digits, 16, 10).cast("long")
    # SQLFrame has no `conv`; DuckDB reads such a number as Python does.
    return F.concat(F.lit("0x"), digits).cast("long")


def text_in_json(F: ModuleType, column: str, name: str) -> Any:
    """Column: the text, or the number as text, that JSON objects in a column have under a name; null without it.

    What is no text and no number is in JSON. The objects are as msgspec writes them, without spaces.
    """
    path = f"$.{name}"
    # SQLFrame's own leaves a text in quotes.
    found = (
        F.get_json_object(column, path)
        if hasattr(F, "conv")
        else F.expr(f"json_extract_string({column}, '{path}')")
    )
    # To look for the name takes a twentieth of the time of reading the object.
    return F.when(F.col(column).contains(f'"{name}":'), found)


class Engine(ABC):
    """Makes DataFrames from Arrow and from Delta tables, and gives Arrow back."""

    name: EngineName

    @abstractmethod
    def from_arrow(self, data: pa.Table) -> DataFrame:
        """Make a DataFrame of an Arrow table."""

    @abstractmethod
    def to_arrow(self, df: DataFrame) -> pa.Table:
        """Compute a DataFrame into memory."""

    @abstractmethod
    def to_batches(self, df: DataFrame) -> Generator[pa.RecordBatch, None, None]:
        """Compute a DataFrame a batch after the other, in any order; it does nothing else until the last."""

    @abstractmethod
    def read_delta(self, path: str, schema: pa.Schema, version: int, part: Part) -> DataFrame:
        """Read a part of a version of a Delta table, lazily; files without rows of it are skipped."""

    @abstractmethod
    def map_arrow(self, df: DataFrame, function: BatchFunction, schema: pa.Schema) -> DataFrame:
        """Run a Python function over Arrow batches, as PySpark's `mapInArrow` does.

        `function` must live in an importable module; it is shipped to Spark's workers. Batches are of any size.
        """

    @abstractmethod
    def start_map_arrow(
        self, df: DataFrame, function: BatchFunction, schema: pa.Schema
    ) -> Callable[[], DataFrame]:
        """Begin what `map_arrow` does; what is returned waits for it and gives the result, or raises what went wrong.

        Other work may be done with the engine meanwhile. On Spark it begins, as all does, when rows are asked for.
        """

    def end_processes(self) -> None:  # noqa: B027
        """Give back the processes that the engine has started on this machine to map with, where it has any."""

    @abstractmethod
    def persist(self, df: DataFrame) -> DataFrame:
        """Compute a DataFrame once for several uses; ends with `release`."""

    @abstractmethod
    def release(self, df: DataFrame) -> None:
        """Give back the memory behind a DataFrame from `from_arrow`, `map_arrow` or `persist`."""


@dataclass(frozen=True)
class Part:
    """The rows of a table that are wanted: all but for what is named.

    Attributes:
        batches: The first and the last ingest batch, of the column `batch`.
        day: The column of days that the table's files are laid out by.
        days: The days; None for all.
    """

    batches: tuple[int, int] | None = None
    day: str | None = None
    days: Collection[date] | None = None

    def of(self, df: DataFrame) -> DataFrame:
        """Return these rows of a DataFrame."""
        F, _ = functions_of(df)
        if self.batches is not None:
            df = df.where(F.col("batch").between(*self.batches))
        if self.day is not None and self.days is not None:
            df = df.where(F.col(self.day).isin(sorted(self.days)) if self.days else F.lit(False))
        return df
