"""The events of a file as EVENTS rows and of their shoppers, for `clickstream evaluate`.

Events of any file that `clickstream replay` reads are parsed and classified as those of the topic are. Ratings
(MovieLens, or any table of user, product and time) become views.
"""

import csv
import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv as arrow_csv

from clickstream_assets.analytics.identity import IdentityRules, owners, ties, with_persons
from clickstream_assets.analytics.money import as_sent
from clickstream_assets.catalogue import DUPLICATE_EVENTS, EVENTS, RAW_EVENTS, SHOPPER_EVENTS, TIMESTAMP
from clickstream_assets.engine import DataFrame, Engine, functions_of
from clickstream_assets.errors import ClickstreamError
from clickstream_assets.ingest.classification import classify
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.ingest.files import EventFile, UnknownFormatError, opened
from clickstream_assets.ingest.parsing import PARSED, parse_batches
from clickstream_assets.ingest.repetitions import find_repetitions

_RATING_COLUMNS = {
    "user_id": ("user_id", "userId", "user"),
    "product_id": ("product_id", "item_id", "movieId", "movie_id", "item"),
    "timestamp": ("timestamp", "time"),
}
_MOVIELENS_COLUMNS = ["user_id", "product_id", "rating", "timestamp"]
_RECORDS_PER_BATCH = 50_000


class RatingsError(ClickstreamError):
    """A file of ratings cannot be used; the message names it, what is wrong and the fix."""


@dataclass(frozen=True)
class LoadedEvents:
    """EVENTS rows, and the number of the file's other records by reason.

    `rejected_by_rule` are the rejected ones by what they break: `rule`, `field` and `records`, most first.
    """

    events: DataFrame
    left_out: dict[str, int]
    rejected_by_rule: tuple[dict[str, Any], ...] = ()


def load_events(engine: Engine, path: Path, rules: ValidationRules) -> LoadedEvents:
    """Read a file of events or of ratings, plain or gzipped, recognised by its content.

    Raises:
        InputError: the file is missing, damaged or of no known format.
        RatingsError: a file of ratings has a value that cannot be read.
    """
    try:
        file = EventFile(path)
    except UnknownFormatError:
        layout = _ratings_layout(path)
        if layout is None:
            raise
        return LoadedEvents(engine.from_arrow(_ratings(path, *layout)), {})
    parsed = engine.from_arrow(pa.Table.from_batches(parse_batches(_raw_batches(file), rules), schema=PARSED))
    no_events, no_duplicates = (
        engine.from_arrow(table.arrow.empty_table()) for table in (EVENTS, DUPLICATE_EVENTS)
    )
    repetitions = find_repetitions(engine, parsed, no_events, no_duplicates, rules.event_id_days)
    classified = classify(parsed, engine.from_arrow(repetitions))
    tables = {
        "duplicate": classified.duplicates,
        "conflicting": classified.conflicts,
        "rejected": classified.rejected,
    }
    counts = {reason: table.count() for reason, table in tables.items()}
    return LoadedEvents(
        classified.events,
        {reason: n for reason, n in {**file.skipped, **counts}.items() if n},
        _by_rule(engine, classified.rejected) if counts["rejected"] else (),
    )


def _by_rule(engine: Engine, rejected: DataFrame) -> tuple[dict[str, Any], ...]:
    F, _ = functions_of(rejected)
    counted = rejected.groupBy("rule", "field").agg(F.count(F.lit(1)).cast("long").alias("records"))
    rows = engine.to_arrow(counted).to_pylist()
    return tuple(sorted(rows, key=lambda row: (-row["records"], row["rule"], row["field"] or "")))


def shoppers_of(events: DataFrame, rules: IdentityRules) -> DataFrame:
    """Return SHOPPER_EVENTS rows of EVENTS rows alone: without sessions, robots are known by their user agent only."""
    F, _ = functions_of(events)
    persons = with_persons(events, owners(events, ties(events), rules))
    return as_sent(persons.where(~F.col("is_bot"))).select(*SHOPPER_EVENTS.column_names)


def _raw_batches(file: EventFile) -> Iterator[pa.RecordBatch]:
    """Yield RAW_EVENTS batches, as if the file had been sent to a topic of one partition now."""
    now = time.time_ns() // 1000
    records = ((offset, key, value) for offset, (key, value) in enumerate(file))
    while rows := list(itertools.islice(records, _RECORDS_PER_BATCH)):
        offsets, keys, values = zip(*rows, strict=True)
        size = len(rows)
        columns: dict[str, Iterable[Any]] = {
            "topic": ["file"] * size,
            "partition": [0] * size,
            "offset": offsets,
            "batch": [1] * size,
            "kafka_time": [now] * size,
            "kafka_timestamp": [None] * size,
            "key": keys,
            "value": values,
        }
        yield pa.record_batch(
            [pa.array(columns[field.name], field.type) for field in RAW_EVENTS.arrow], schema=RAW_EVENTS.arrow
        )


def _ratings_layout(path: Path) -> tuple[str, list[str], bool] | None:
    """Return the delimiter, the columns and whether they are a header; None if the file has no ratings."""
    if not path.is_file():
        return None
    try:
        with opened(path) as file:
            first = TextIOWrapper(file, errors="replace").readline(10_000).strip("\ufeff\r\n")
    except (OSError, EOFError):
        # Damaged; the events' reader says so in its own words.
        return None
    if first.count("\t") == 3 and all(field.isdigit() for field in first.split("\t")):
        return "\t", _MOVIELENS_COLUMNS, False
    header = next(csv.reader([first]), [])
    if all(set(names) & set(header) for names in _RATING_COLUMNS.values()) and "event_type" not in header:
        return ",", header, True
    return None


def _ratings(path: Path, delimiter: str, columns: list[str], has_header: bool) -> pa.Table:
    wanted = {
        name: next(column for column in columns if column in aliases)
        for name, aliases in _RATING_COLUMNS.items()
    }
    try:
        rows = arrow_csv.read_csv(
            path,
            read_options=arrow_csv.ReadOptions(column_names=columns, skip_rows=int(has_header)),
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=list(wanted.values()),
                column_types={wanted["user_id"]: pa.string(), wanted["product_id"]: pa.string()},
                strings_can_be_null=True,
            ),
        ).rename_columns(list(wanted))
        times = rows["timestamp"]
        if pa.types.is_integer(times.type):
            times = times.cast(pa.int64()).cast(pa.timestamp("s"))
        # A zone, where the file names one, has been applied: both are UTC.
        times = times.cast(pa.timestamp("us")).cast(TIMESTAMP)
    except pa.ArrowException as error:
        raise RatingsError(
            f"{path}: {error}; expected: user_id, product_id and timestamp (seconds since 1970 or ISO 8601)"
        ) from None
    for name in wanted:
        if rows[name].null_count:
            raise RatingsError(
                f"{path}: {rows[name].null_count} rows have no {wanted[name]}; fill or remove them"
            )
    known = {
        "event_type": pa.repeat("view", len(rows)),
        "event_time": times,
        "event_date": times.cast(pa.date32()),
        "user_id": rows["user_id"],
        "product_id": rows["product_id"],
        "is_bot": pa.repeat(False, len(rows)),
    }
    return pa.table(
        {field.name: known.get(field.name, pa.nulls(len(rows), field.type)) for field in EVENTS.arrow}
    )
