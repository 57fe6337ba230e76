"""Rows of CSV and of Parquet, as a stream: texts for the kinds that are known, values for all others."""

from __future__ import annotations

import csv
import io
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import TextIOWrapper
from operator import itemgetter
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from clickstream_assets.errors import InputError
from clickstream_assets.ingest.files.skipped import BLANK_LINE, MALFORMED_ROW, Skipped
from clickstream_assets.ingest.files.sources import Source

SEPARATORS = (",", ";", "\t", "|")
FIRST_ROWS = 100
"""Rows that a table without a header is recognised by."""
PARQUET = b"PAR1"
_ROWS_PER_BATCH = 10_000
# As Hive and MySQL write it, and databases' exports.
_MISSING = frozenset({"\\N", "NULL"})
# As R and pandas write it, and Python; a name or a category can be a word of these: NA is Namibia.
_MISSING_VALUES = _MISSING | {"NA", "<NA>", "NaN", "nan", "NaT", "None", "null"}

PlacedRow = tuple[str | int, Sequence[str]]
"""A row's texts, and its place: the number of its last line."""


def column_key(name: str) -> str:
    """Return a column's name in the one spelling that columns are looked up by: `customerid` of Customer ID."""
    return re.sub(r"[\W_]", "", name.lower())


def is_missing(text: str, is_text: bool = False) -> bool:
    """Return whether a cell stands for no value; `is_text` is whether its column is no id, number or time."""
    return not text or text in (_MISSING if is_text else _MISSING_VALUES)


@dataclass(frozen=True)
class Table:
    """A table in a file.

    Attributes:
        source: The file.
        names: Its columns as the file names them; of a CSV without a header, their numbers from 1.
        separator: What stands between the columns of a CSV; None is Parquet.
        has_header: Whether the first row of a CSV is no data.
        first: Some of its first rows.
    """

    source: Source
    names: tuple[str, ...]
    separator: str | None = None
    has_header: bool = True
    first: tuple[Sequence[str], ...] = ()

    @property
    def keys(self) -> list[str]:
        """Its columns in the spelling that they are looked up by."""
        return [column_key(name) for name in self.names]

    def rows(
        self, wanted: Sequence[int | None], skipped: Skipped, texts: Container[int] = ()
    ) -> Iterator[PlacedRow]:
        """Yield some columns of each row as texts, "" where there is none or a word that says so.

        Args:
            wanted: Places of the columns; None is a column that the table lacks.
            skipped: Notes rows that are blank, or of another width.
            texts: Places of the columns that are no ids, numbers or times.
        """
        if self.separator is None:
            yield from _parquet_texts(self, wanted, skipped, texts)
            return
        width = len(self.names)
        as_it_is = list(wanted) == list(range(width))
        pick = _picker(wanted)
        with self._text() as text:
            rows = csv.reader(text, delimiter=self.separator)
            try:
                if self.has_header:
                    next((row for row in rows if _is_content(row)), None)
                for row in rows:
                    # Few have one: all are asked in a tenth of the time that one by one takes.
                    if not _MISSING_VALUES.isdisjoint(row):
                        row = _without_missing(row, texts)
                    # What begins with a letter or a digit is not looked at any further.
                    if not (row and row[0] > " ") and not _is_content(row):
                        skipped.note("", BLANK_LINE)
                    elif len(row) == width:
                        yield rows.line_num, row if as_it_is else pick(row)
                    else:
                        skipped.note(
                            f"line {rows.line_num}", MALFORMED_ROW, f"{len(row)} columns instead of {width}"
                        )
            except csv.Error as error:
                raise InputError(
                    f"{self.source}, line {rows.line_num}: {error}; a quote may be open somewhere before it"
                ) from None

    def records(
        self, names: Mapping[int, str], skipped: Skipped, texts: Container[int] = ()
    ) -> Iterator[dict[str, Any]]:
        """Yield what each row has, by the names that are given for its columns' places; texts of a CSV."""
        if self.separator is None:
            yield from _parquet_records(self, names, skipped, texts)
            return
        for _, row in self.rows(list(names), skipped, texts):
            yield {name: text for name, text in zip(names.values(), row, strict=True) if text}

    @contextmanager
    def _text(self) -> Iterator[TextIOWrapper]:
        with self.source.opened() as binary:
            yield TextIOWrapper(binary, encoding="utf-8-sig", newline="")


def _is_content(row: Sequence[str]) -> bool:
    return any(map(str.strip, row))


def _without_missing(row: Sequence[str], texts: Container[int]) -> list[str]:
    return ["" if is_missing(cell, place in texts) else cell for place, cell in enumerate(row)]


def _picker(wanted: Sequence[int | None]) -> Callable[[Sequence[str]], Sequence[str]]:
    if any(place is None for place in wanted):
        return lambda row: ["" if place is None else row[place] for place in wanted]
    if len(wanted) == 1:
        return lambda row: (row[cast(int, wanted[0])],)
    return cast(Callable[[Sequence[str]], Sequence[str]], itemgetter(*cast(Sequence[int], wanted)))


def csv_tables(source: Source, head: bytes) -> Iterator[Table]:
    """Yield the tables that a file is, read by each separator that its first line has."""
    start = head.decode(errors="replace")
    first_line = next((line for line in io.StringIO(start) if line.strip()), "")
    for separator in SEPARATORS:
        if separator not in first_line:
            continue
        rows = _first_rows(start, separator)
        if rows:
            header = tuple(name.strip() for name in rows[0])
            yield Table(source, (header[0].lstrip("#"), *header[1:]), separator, first=tuple(rows[1:]))


def _first_rows(text: str, separator: str) -> list[list[str]]:
    rows: list[list[str]] = []
    # Reading on says where it stops; the rows before are enough to tell what it is.
    with suppress(csv.Error):
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
            if _is_content(row):
                rows.append(row)
            if len(rows) > FIRST_ROWS:
                break
    return rows


def without_header(table: Table) -> Table:
    """Return a CSV's table with its first row as data, and numbers for names."""
    return Table(
        table.source,
        tuple(str(number) for number in range(1, len(table.names) + 1)),
        table.separator,
        has_header=False,
        first=(table.names, *table.first),
    )


def parquet_table(source: Source) -> Table:
    """Return the table of a Parquet file.

    Raises:
        InputError: it is damaged.
    """
    with _parquet_file(source) as file:
        return Table(source, tuple(file.schema_arrow.names))


@contextmanager
def _parquet_file(source: Source) -> Iterator[parquet.ParquetFile]:
    with source.opened() as opened, tempfile.TemporaryFile() as unpacked:
        file: IO[bytes] = opened
        # A Parquet file is read from its end, to which only a plain file can go.
        if source.member is not None or not _is_plain(opened):
            shutil.copyfileobj(opened, unpacked)
            unpacked.seek(0)
            file = cast(IO[bytes], unpacked)
        try:
            found = parquet.ParquetFile(pa.PythonFile(file, mode="r"))
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise InputError(
                f"{source} is a truncated or damaged Parquet file ({str(error).strip()}); fetch it again"
            ) from None
        yield found


def _is_plain(file: IO[bytes]) -> bool:
    return isinstance(file, io.BufferedReader) and isinstance(file.raw, io.FileIO)


def _parquet_texts(
    table: Table, wanted: Sequence[int | None], skipped: Skipped, texts: Container[int]
) -> Iterator[PlacedRow]:
    number = 0
    given = [place for place in wanted if place is not None]
    for batch in _batches(table, given):
        columns = (
            ["" if is_missing(text := _text(value), place in texts) else text for value in column.to_pylist()]
            for place, column in zip(given, batch.columns, strict=True)
        )
        empty = [""] * batch.num_rows
        for row in zip(*(empty if place is None else next(columns) for place in wanted), strict=True):
            number += 1
            if any(row):
                yield number, row
            else:
                skipped.note("", BLANK_LINE)


def _parquet_records(
    table: Table, names: Mapping[int, str], skipped: Skipped, texts: Container[int]
) -> Iterator[dict[str, Any]]:
    are_texts = {name: place in texts for place, name in names.items()}
    for batch in _batches(table, list(names)):
        for row in batch.rename_columns(list(names.values())).to_pylist(maps_as_pydicts="lossy"):
            record = {
                name: value
                for name, value in row.items()
                if not (is_missing(value, are_texts[name]) if isinstance(value, str) else _is_nothing(value))
            }
            if record:
                yield record
            else:
                skipped.note("", BLANK_LINE)


def _batches(table: Table, places: Sequence[int]) -> Iterator[pa.RecordBatch]:
    """Yield some columns of some thousand rows each, in the order of their places."""
    names = [table.names[place] for place in places]
    with _parquet_file(table.source) as file:
        for batch in file.iter_batches(_ROWS_PER_BATCH, columns=names):
            yield pa.RecordBatch.from_arrays([_in_microseconds(batch.column(name)) for name in names], names)


def _in_microseconds(column: pa.Array) -> pa.Array:
    if not pa.types.is_timestamp(column.type):
        return column
    # Python's times have no nanoseconds.
    return pc.cast(column, pa.timestamp("us", column.type.tz), safe=False)


def _is_nothing(value: Any) -> bool:
    return value is None or value == "" or (type(value) is float and math.isnan(value))


def _text(value: Any) -> str:
    if _is_nothing(value):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
