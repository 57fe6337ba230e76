"""Each batch once, whole tables or days in one commit, and either engine on the other's tables."""

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest

from clickstream_assets.catalogue import (
    DUPLICATE_EVENTS,
    RAW_EVENTS,
    TIMESTAMP,
    USER_FACTORS,
    Column,
    Table,
)
from clickstream_assets.engine import DuckDBEngine, Engine, SparkEngine, delta_tables
from clickstream_assets.stores import lake as lake_module
from clickstream_assets.stores import table_files
from clickstream_assets.stores.lake import (
    Lake,
    LakeConflictError,
    LakeDamagedError,
    LakeError,
    LakeStorageError,
    Maintenance,
    conform,
)
from clickstream_assets_tests.analytics.records import raw_table

VISITS = Table(
    "visits",
    "one visit, for tests",
    (
        Column("day", pa.date32(), "The day"),
        Column("user_id", pa.string(), "Who"),
        Column("seconds", pa.int32(), "How long", nullable=True),
        Column("price", pa.decimal128(18, 4), "How much", nullable=True),
        Column("at", TIMESTAMP, "When", nullable=True),
    ),
    key=("user_id",),
    partition_by=("day",),
)
DAYS = [date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1)]


def visits(*rows: tuple[date, str]) -> pa.Table:
    return pa.Table.from_pylist([{"day": day, "user_id": user} for day, user in rows], VISITS.arrow)


def users(lake: Lake) -> list[tuple[date, str]]:
    rows = lake.engine.to_arrow(lake.read(VISITS)).to_pylist()
    return sorted((row["day"], row["user_id"]) for row in rows)


@pytest.fixture
def lake(engine: Engine, tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), engine)


@pytest.fixture
def duckdb_lake(duckdb_engine: DuckDBEngine, tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), duckdb_engine)


def append(lake: Lake, batch: int, *values: bytes | None, first_offset: int = 0) -> None:
    lake.append_batch(RAW_EVENTS, lake.engine.from_arrow(raw_table(values, batch, first_offset)), batch)


def raw_values(lake: Lake) -> list[bytes | None]:
    data = lake.engine.to_arrow(lake.read(RAW_EVENTS).select("offset", "value")).sort_by("offset")
    return data["value"].to_pylist()


def test_a_table_that_is_not_there_is_made_empty(lake: Lake):
    snapshot = lake.snapshot(RAW_EVENTS)
    assert (snapshot.batch, snapshot.rows, snapshot.version) == (0, 0, 0)
    assert snapshot.maximum("offset", by=("topic", "partition")) == {}
    assert snapshot.rows_by("topic") == {}
    assert raw_values(lake) == []
    made = deltalake.DeltaTable(lake.path(RAW_EVENTS))
    assert made.metadata().partition_columns == ["topic", "partition"]
    assert [field.name for field in made.schema().fields if not field.nullable] == [
        "topic",
        "partition",
        "offset",
        "batch",
        "kafka_time",
    ]


def test_a_batch_is_appended_once_however_often_it_is_tried(lake: Lake):
    append(lake, 1, b"a", None)
    append(lake, 1, b"a", None)
    append(lake, 2, b"b", first_offset=2)
    append(lake, 1, b"a", None)
    assert raw_values(lake) == [b"a", None, b"b"]
    snapshot = lake.snapshot(RAW_EVENTS)
    assert (snapshot.batch, snapshot.rows) == (2, 3)
    assert snapshot.maximum("offset", by=("topic", "partition")) == {("events", 0): 2}
    assert snapshot.rows_by("topic") == {"events": 3}


def test_a_batch_without_rows_is_a_batch(duckdb_lake: Lake):
    append(duckdb_lake, 1)
    assert duckdb_lake.snapshot(RAW_EVENTS).batch == 1
    append(duckdb_lake, 1, b"too late")
    assert raw_values(duckdb_lake) == []


def test_tables_count_their_batches_apart(duckdb_lake: Lake):
    append(duckdb_lake, 5, b"a")
    assert duckdb_lake.snapshot(RAW_EVENTS).batch == 5
    assert duckdb_lake.snapshot(DUPLICATE_EVENTS).batch == 0


@pytest.mark.long_on_spark
def test_apps_that_write_one_table_count_their_batches_apart(lake: Lake):
    append(lake, 3, b"a")
    other = lake.engine.from_arrow(raw_table([b"b"], 1, 10))
    for _ in range(2):
        lake.append_batch(RAW_EVENTS, other, 1, app="another")
    assert (lake.snapshot(RAW_EVENTS).rows, lake.snapshot(RAW_EVENTS).batch) == (2, 3)


@pytest.mark.slow
def test_the_last_batch_is_known_after_the_log_was_compacted(duckdb_lake: Lake):
    # delta-rs writes a checkpoint every 100 commits.
    for batch in range(1, 106):
        append(duckdb_lake, batch, b"%d" % batch, first_offset=batch)
    log = Path(duckdb_lake.path(RAW_EVENTS)) / "_delta_log"
    assert list(log.glob("*.checkpoint.parquet"))
    for commit in sorted(log.glob("*.json"))[:100]:
        commit.unlink()
    snapshot = duckdb_lake.snapshot(RAW_EVENTS)
    assert (snapshot.batch, snapshot.rows) == (105, 105)
    assert snapshot.maximum("offset", by=("topic", "partition")) == {("events", 0): 105}
    append(duckdb_lake, 105, b"again")
    assert duckdb_lake.snapshot(RAW_EVENTS).rows == 105


def damage(log: Path, what: str) -> None:
    """Do to a log with a checkpoint what a full disk, a broken copy or a tidy person does."""
    (checkpoint,) = log.glob("*.checkpoint.parquet")
    content = checkpoint.read_bytes()
    if what == "missing":
        checkpoint.unlink()
    elif what == "its hint is of another":
        (log / "_last_checkpoint").write_text('{"version": 999, "size": 1}')
    else:
        length = {"empty": 0, "cut short": len(content) // 2, "without its end": len(content) - 4}[what]
        checkpoint.write_bytes(content[:length])


def with_checkpoint(lake: Lake) -> Path:
    """Append three batches, with a checkpoint after the second; return the log."""
    for batch in (1, 2, 3):
        append(lake, batch, b"%d" % batch, first_offset=batch)
        if batch == 2:
            deltalake.DeltaTable(lake.path(RAW_EVENTS)).create_checkpoint()
    return Path(lake.path(RAW_EVENTS)) / "_delta_log"


@pytest.mark.long_on_spark
@pytest.mark.parametrize(
    "what", ["missing", "empty", "cut short", "without its end", "its hint is of another"]
)
def test_a_damaged_checkpoint_is_set_aside_while_the_commits_are_there(
    lake: Lake, what: str, monkeypatch: pytest.MonkeyPatch
):
    log = with_checkpoint(lake)
    damage(log, what)
    # As for a process that has not opened the table before: who has goes on from the commits that it knows.
    monkeypatch.setattr(delta_tables, "_opened", delta_tables._Opened())
    assert raw_values(lake) == [b"1", b"2", b"3"]
    append(lake, 4, b"4", first_offset=4)
    append(lake, 3, b"again", first_offset=3)
    assert raw_values(lake) == [b"1", b"2", b"3", b"4"]
    # It is kept, in case somebody wants to know what happened to it.
    assert len(list(log.glob("*.damaged"))) == (what in ("empty", "cut short", "without its end"))


@pytest.mark.parametrize("lost", [[0], [2, 3], [0, 1, 2, 3]], ids=["first", "last", "all"])
def test_a_log_that_cannot_be_made_good_is_named_and_stays_as_it_is(duckdb_lake: Lake, lost: list[int]):
    log = with_checkpoint(duckdb_lake)
    damage(log, "cut short")
    for commit in lost:
        (log / f"{commit:020}.json").unlink()
    before = sorted(path.name for path in log.iterdir())
    with pytest.raises(
        LakeDamagedError, match=r"raw_events/_delta_log, is damaged: .*from a backup"
    ) as caught:
        duckdb_lake.snapshot(RAW_EVENTS)
    assert not caught.value.retryable
    assert sorted(path.name for path in log.iterdir()) == before


def test_a_writer_that_comes_second_with_a_batch_changes_nothing(
    duckdb_lake: Lake, monkeypatch: pytest.MonkeyPatch
):
    write = deltalake.write_deltalake
    attempts = []

    def write_after_another(*arguments: Any, **options: Any) -> None:
        # The other one commits between this one's look at the table and its commit.
        attempts.append(arguments)
        if len(attempts) == 1:
            append(duckdb_lake, 1, b"the same")
        write(*arguments, **options)

    monkeypatch.setattr(lake_module, "write_deltalake", write_after_another)
    append(duckdb_lake, 1, b"the same")
    assert len(attempts) == 2
    assert raw_values(duckdb_lake) == [b"the same"]
    assert duckdb_lake.snapshot(RAW_EVENTS).version == 1


@pytest.mark.long
def test_two_spark_writers_of_one_batch_leave_it_there_once(spark_engine: SparkEngine, tmp_path: Path):
    lake = Lake(str(tmp_path / "lake"), spark_engine)
    append(lake, 1, b"a")
    with ThreadPoolExecutor(2) as writers:
        for future in [writers.submit(append, lake, 2, b"b", first_offset=1) for _ in range(2)]:
            future.result()
    assert raw_values(lake) == [b"a", b"b"]
    assert lake.snapshot(RAW_EVENTS).batch == 2


@pytest.mark.long
def test_of_two_writers_that_replace_the_same_days_with_spark_the_second_fails(
    spark_engine: SparkEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    lake = Lake(str(tmp_path / "lake"), spark_engine)
    write = table_files.write_files
    between: list[tuple[date, str]] = []

    def write_while_another_commits(*arguments: Any) -> list[Any]:
        written = write(*arguments)
        while between:
            day, user = between.pop()
            rows = conform(visits((day, user)), VISITS)
            deltalake.write_deltalake(lake.path(VISITS), rows, mode="append")
        return written

    monkeypatch.setattr(lake_module, "write_files", write_while_another_commits)

    def replace(user: str, *others: tuple[date, str]) -> None:
        between.extend(others)
        lake.replace(VISITS, lake.engine.from_arrow(visits((DAYS[1], user))), days=(DAYS[1], DAYS[1]))

    # The day is empty for both: neither takes a file of the other's away.
    with pytest.raises(LakeConflictError, match="visits"):
        replace("a", (DAYS[1], "another"))
    assert users(lake) == [(DAYS[1], "another")]
    replace("b", (DAYS[0], "of another day"), (DAYS[2], "of another day"))
    assert users(lake) == [(DAYS[0], "of another day"), (DAYS[1], "b"), (DAYS[2], "of another day")]


@pytest.mark.parametrize("first", ["duckdb", pytest.param("spark", marks=pytest.mark.long)])
def test_each_engine_goes_on_where_the_other_stopped(
    duckdb_engine: DuckDBEngine, spark_engine: SparkEngine, tmp_path: Path, first: str
):
    one, other = (Lake(str(tmp_path / "lake"), engine) for engine in (duckdb_engine, spark_engine))
    if first == "spark":
        one, other = other, one
    append(one, 1, b"a", None)
    append(other, 1, b"not again")
    append(other, 2, b"b", first_offset=2)
    append(one, 2, b"not again")
    for lake in (one, other):
        assert raw_values(lake) == [b"a", None, b"b"]
        snapshot = lake.snapshot(RAW_EVENTS)
        assert (snapshot.batch, snapshot.rows) == (2, 3)
        assert snapshot.maximum("offset", by=("topic", "partition")) == {("events", 0): 2}
    one.replace(VISITS, one.engine.from_arrow(visits((DAYS[0], "a"), (DAYS[1], "b"))))
    other.replace(VISITS, other.engine.from_arrow(visits((DAYS[1], "c"))), days=(DAYS[1], DAYS[1]))
    assert users(one) == users(other) == [(DAYS[0], "a"), (DAYS[1], "c")]
    vectors = pa.Table.from_pylist([{"user_id": "u", "factors": [0.5, -2]}], USER_FACTORS.arrow)
    one.replace(USER_FACTORS, one.engine.from_arrow(vectors))
    assert conform(other.engine.to_arrow(other.read(USER_FACTORS)), USER_FACTORS) == vectors


def test_replacing_days_leaves_the_others_alone(lake: Lake):
    lake.replace(VISITS, lake.engine.from_arrow(visits(*((day, "old") for day in DAYS))))
    assert lake.snapshot(VISITS).rows_by("day") == dict.fromkeys(DAYS, 1)

    changed = visits((DAYS[1], "new"), (DAYS[2], "new"), (DAYS[2], "newer"))
    lake.replace(VISITS, lake.engine.from_arrow(changed), days=(DAYS[1], DAYS[2]))
    assert users(lake) == [(DAYS[0], "old"), (DAYS[1], "new"), (DAYS[2], "new"), (DAYS[2], "newer")]

    lake.replace(VISITS, lake.engine.from_arrow(visits()), days=(DAYS[0], DAYS[1]))
    assert users(lake) == [(DAYS[2], "new"), (DAYS[2], "newer")]

    before = lake.snapshot(VISITS).version
    outside = lake.engine.from_arrow(visits((DAYS[2], "outside")))
    with pytest.raises(Exception, match=r"(?i)day|predicate|replaceWhere"):
        lake.replace(VISITS, outside, days=(DAYS[0], DAYS[0]))
    assert lake.snapshot(VISITS).version == before

    lake.replace(VISITS, lake.engine.from_arrow(visits()))
    assert users(lake) == []


def test_a_version_that_is_pinned_stays_as_it_was(lake: Lake):
    append(lake, 1, b"a")
    version = lake.snapshot(RAW_EVENTS).version
    pinned = lake.read(RAW_EVENTS, version)
    append(lake, 2, b"b", first_offset=1)
    assert lake.engine.to_arrow(pinned.select("value"))["value"].to_pylist() == [b"a"]


@pytest.mark.long_on_spark
def test_maintenance_puts_files_together_and_changes_nothing_else(lake: Lake):
    for batch in range(1, 5):
        append(lake, batch, b"%d" % batch, first_offset=batch)
    pinned = lake.read(RAW_EVENTS)
    assert lake.maintain(RAW_EVENTS, timedelta(days=7)) == Maintenance(4, 4, 1, removed_files=0)

    snapshot = lake.snapshot(RAW_EVENTS)
    assert (snapshot.batch, snapshot.rows) == (4, 4)
    assert snapshot.maximum("offset", by=("topic", "partition")) == {("events", 0): 4}
    append(lake, 4, b"not again")
    append(lake, 5, b"5", first_offset=5)
    assert raw_values(lake) == [b"1", b"2", b"3", b"4", b"5"]
    # Who began to read before goes on.
    assert sorted(lake.engine.to_arrow(pinned.select("value"))["value"].to_pylist()) == [
        b"1",
        b"2",
        b"3",
        b"4",
    ]

    assert lake.maintain(RAW_EVENTS, timedelta(days=7)) == Maintenance(5, 2, 1, removed_files=0)
    version = lake.snapshot(RAW_EVENTS).version
    assert lake.maintain(RAW_EVENTS, timedelta(days=7)) == Maintenance(5, 1, 1, removed_files=0)
    assert lake.snapshot(RAW_EVENTS).version == version


def test_maintenance_deletes_what_no_version_within_the_retention_has(duckdb_lake: Lake):
    for batch in (1, 2):
        append(duckdb_lake, batch, b"%d" % batch, first_offset=batch)
    folder = Path(duckdb_lake.path(RAW_EVENTS)) / "topic=events" / "partition=0"
    # As a run that was killed leaves them.
    shutil.copy(next(folder.glob("*.parquet")), folder / "part-00000-left.parquet")
    assert duckdb_lake.maintain(RAW_EVENTS, timedelta(0)) == Maintenance(2, 2, 1, removed_files=3)
    assert len(list(folder.glob("*.parquet"))) == 1
    append(duckdb_lake, 2, b"not again")
    append(duckdb_lake, 3, b"3", first_offset=3)
    assert raw_values(duckdb_lake) == [b"1", b"2", b"3"]


def test_maintenance_deletes_commits_that_are_past_the_retention(duckdb_lake: Lake):
    log = Path(duckdb_lake.path(RAW_EVENTS)) / "_delta_log"

    def commits() -> list[int]:
        return sorted(int(path.stem) for path in log.glob("*.json"))

    for batch in range(1, 6):
        append(duckdb_lake, batch, b"%d" % batch, first_offset=batch)
    duckdb_lake.maintain(RAW_EVENTS, timedelta(days=7))
    assert commits() == [*range(7)]
    then = time.time() - timedelta(days=8).total_seconds()
    for path in log.glob("0*"):
        os.utime(path, (then, then))
    # A longer retention is a commit of its own.
    duckdb_lake.maintain(RAW_EVENTS, timedelta(days=9))
    assert commits() == [*range(8)]
    duckdb_lake.maintain(RAW_EVENTS, timedelta(days=7))
    assert commits() in ([6, 7, 8], [7, 8])
    assert not duckdb_lake.has(RAW_EVENTS, 3)
    assert duckdb_lake.snapshot(RAW_EVENTS).batch == 5
    append(duckdb_lake, 5, b"not again")
    append(duckdb_lake, 6, b"6", first_offset=6)
    assert raw_values(duckdb_lake) == [b"1", b"2", b"3", b"4", b"5", b"6"]
    # As another process finds it.
    again = Lake(str(Path(duckdb_lake.path(RAW_EVENTS)).parent), duckdb_lake.engine)
    assert again.snapshot(RAW_EVENTS).batch == 6
    assert again.snapshot(RAW_EVENTS).rows == 6


def test_a_replacement_of_rows_that_are_put_together_meanwhile_is_refused_whole(
    duckdb_lake: Lake, monkeypatch: pytest.MonkeyPatch
):
    for user in ("a", "b"):
        days = pa.concat_tables([visits((DAYS[0], user)), visits((DAYS[1], user))])
        deltalake.write_deltalake(duckdb_lake.path(VISITS), days, mode="append", partition_by=["day"])
    write = deltalake.write_deltalake

    def write_after_maintenance(*arguments: Any, **options: Any) -> None:
        with ThreadPoolExecutor(1) as other:
            other.submit(duckdb_lake.maintain, VISITS, timedelta(days=7)).result()
        write(*arguments, **options)

    monkeypatch.setattr(lake_module, "write_deltalake", write_after_maintenance)
    new = duckdb_lake.engine.from_arrow(visits((DAYS[1], "new")))
    with pytest.raises(LakeConflictError):
        duckdb_lake.replace(VISITS, new, days=(DAYS[1], DAYS[1]))
    everybody = [(day, user) for day in DAYS[:2] for user in ("a", "b")]
    assert users(duckdb_lake) == everybody
    # As it is tried again.
    duckdb_lake.replace(VISITS, new, days=(DAYS[1], DAYS[1]))
    assert users(duckdb_lake) == [*everybody[:2], (DAYS[1], "new")]


def test_files_without_rows_of_a_batch_are_not_opened(duckdb_lake: Lake):
    for batch in (1, 2, 3):
        append(duckdb_lake, batch, b"%d" % batch, first_offset=batch)
    held = {row["min.batch"]: row["path"] for row in duckdb_lake.snapshot(RAW_EVENTS).files.to_pylist()}
    for batch in (1, 3):
        (Path(duckdb_lake.path(RAW_EVENTS)) / held[batch]).unlink()
    rows = duckdb_lake.engine.to_arrow(duckdb_lake.read(RAW_EVENTS, batches=(2, 2)))
    assert rows["value"].to_pylist() == [b"2"]


def test_batches_are_split_into_ranges_by_their_rows(duckdb_lake: Lake):
    for batch, rows in enumerate((3, 1, 1, 6, 2), start=1):
        append(duckdb_lake, batch, *[b"%d" % batch] * rows, first_offset=10 * batch)
    snapshot = duckdb_lake.snapshot(RAW_EVENTS)
    assert list(snapshot.ranges_of_batches(1, 5, 4)) == [(1, 2), (3, 3), (4, 4), (5, 5)]
    assert list(snapshot.ranges_of_batches(2, 3, 4)) == [(2, 3)]
    assert list(snapshot.ranges_of_batches(1, 5, 100)) == [(1, 5)]
    assert list(snapshot.ranges_of_batches(6, 5, 4)) == []
    # Put together, each counts for as many.
    duckdb_lake.maintain(RAW_EVENTS, timedelta(days=7))
    assert list(duckdb_lake.snapshot(RAW_EVENTS).ranges_of_batches(1, 5, 6)) == [(1, 2), (3, 4), (5, 5)]


def test_the_rows_of_some_batches_are_read(lake: Lake):
    for batch in (1, 2, 3, 4):
        append(lake, batch, b"%d" % batch, first_offset=batch)
    lake.maintain(RAW_EVENTS, timedelta(days=7))
    rows = lake.engine.to_arrow(lake.read(RAW_EVENTS, batches=(2, 3)).select("value"))
    assert sorted(rows["value"].to_pylist()) == [b"2", b"3"]
    assert lake.engine.to_arrow(lake.read(RAW_EVENTS, batches=(0, 0)).select("value")).num_rows == 0


def test_a_table_of_an_earlier_version_gets_the_columns_that_it_lacks(lake: Lake):
    first_version = Table("visits", "one visit", VISITS.columns[:2], VISITS.key, VISITS.partition_by)
    lake.replace(first_version, lake.engine.from_arrow(visits((DAYS[0], "u1")).select(["day", "user_id"])))
    assert lake.engine.to_arrow(lake.read(VISITS)).select(["user_id", "seconds", "price"]).to_pylist() == [
        {"user_id": "u1", "seconds": None, "price": None}
    ]
    lake.replace(VISITS, lake.engine.from_arrow(visits((DAYS[1], "u2"))), days=(DAYS[1], DAYS[1]))
    assert lake.snapshot(VISITS).rows_by("day") == {DAYS[0]: 1, DAYS[1]: 1}


def test_rows_without_a_required_value_are_refused_on_every_engine(lake: Lake):
    append(lake, 1, b"a")
    without_time = raw_table([b"b"], 2).set_column(4, "kafka_time", pa.array([None], TIMESTAMP))
    with pytest.raises(Exception, match="kafka_time"):
        lake.append_batch(RAW_EVENTS, lake.engine.from_arrow(without_time), 2)
    assert raw_values(lake) == [b"a"]
    assert lake.snapshot(RAW_EVENTS).batch == 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"day": [DAYS[0]]}, "table visits have no column user_id"),
        ({"day": DAYS[:2], "user_id": ["a", None]}, "table visits: column user_id is null in 1 rows"),
        ({"seconds": [2**31]}, "table visits: column seconds is not int32: .*2147483648"),
        ({"seconds": ["soon"]}, "table visits: column seconds is not int32: .*soon"),
        ({"seconds": [[1]]}, "table visits: column seconds is not int32"),
        ({"price": [1e20]}, r"table visits: column price is not decimal128\(18, 4\)"),
        ({"at": ["noon"]}, r"table visits: column at is not timestamp\[us, tz=UTC\]"),
    ],
)
def test_rows_that_do_not_fit_are_named_by_table_and_column(columns, message):
    if "day" not in columns:
        columns = {
            "day": [DAYS[0]],
            "user_id": ["a"],
            "seconds": [1],
            "price": [None],
            "at": [None],
        } | columns
    with pytest.raises(LakeError, match=message):
        conform(pa.table(columns), VISITS)


def test_rows_that_fit_get_the_order_and_the_types_of_the_table():
    given = {
        "at": [None],
        "price": [Decimal(1)],
        "surplus": ["x"],
        "seconds": [7.0],
        "user_id": ["a"],
        "day": [DAYS[0]],
    }
    fitted = conform(pa.table(given), VISITS)
    assert fitted.schema == VISITS.arrow
    assert fitted.drop_columns(["at"]).to_pylist() == [
        {"day": DAYS[0], "user_id": "a", "seconds": 7, "price": Decimal(1)}
    ]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk, and not in every container")
    yield folder
    # Lazily: a Spark task that failed there may have a file open until it is collected.
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_named_and_leaves_what_was_there(duckdb_engine: DuckDBEngine, small_disk: Path):
    lake = Lake(str(small_disk / "lake"), duckdb_engine)
    append(lake, 1, b"a")
    with pytest.raises(
        LakeStorageError, match=rf"LAKE_PATH={small_disk}/lake: no space left for table raw_events: "
    ):
        append(lake, 2, os.urandom(4_000_000), first_offset=1)
    assert raw_values(lake) == [b"a"]
    assert lake.snapshot(RAW_EVENTS).batch == 1

    with (small_disk / "full").open("wb", buffering=0) as file:
        # Until the last byte is taken: not even the commit fits.
        while (taken := _write(file, bytes(65_536))) or _write(file, b"x"):
            assert taken >= 0
    with pytest.raises(LakeStorageError, match=r"no space left for table raw_events: .* 0 bytes free"):
        append(lake, 2, b"b", first_offset=1)
    with pytest.raises(LakeStorageError, match=r"no space left for table visits: .* 0 bytes free"):
        lake.snapshot(VISITS)
    (small_disk / "full").unlink()

    append(lake, 2, b"b", first_offset=1)
    assert raw_values(lake) == [b"a", b"b"]
    assert lake.snapshot(VISITS).rows == 0


@pytest.mark.long
def test_a_disk_that_is_full_for_spark_is_named_alike(spark_engine: SparkEngine, small_disk: Path):
    lake = Lake(str(small_disk / "lake"), spark_engine)
    append(lake, 1, b"a")
    message = rf"LAKE_PATH={small_disk}/lake: no space left for table {{}}: "
    with pytest.raises(LakeStorageError, match=message.format("raw_events")):
        append(lake, 2, os.urandom(4_000_000), first_offset=1)
    assert raw_values(lake) == [b"a"]
    many = visits(*((DAYS[0], os.urandom(1_000).hex()) for _ in range(5_000)))
    with pytest.raises(LakeStorageError, match=message.format("visits")):
        lake.replace(VISITS, spark_engine.from_arrow(many))


def _write(file: Any, data: bytes) -> int:
    try:
        return int(file.write(data))
    except OSError:
        return 0


def test_a_lake_path_that_cannot_be_a_folder_is_named_with_the_fix(lake: Lake, tmp_path: Path):
    (tmp_path / "lake").write_text("a file")
    message = rf"LAKE_PATH={tmp_path}/lake: table raw_events cannot be opened or written.*set LAKE_PATH"
    with pytest.raises(LakeStorageError, match=message):
        lake.snapshot(RAW_EVENTS)
    with pytest.raises(LakeStorageError, match=message):
        append(lake, 1, b"a")
    with pytest.raises(LakeStorageError, match="table visits"):
        lake.replace(VISITS, lake.engine.from_arrow(visits()))


def test_a_new_lake_is_for_its_owner_alone_and_one_that_is_there_stays_open(
    tmp_path: Path, duckdb_engine: DuckDBEngine
):
    (tmp_path / "old").mkdir()
    (tmp_path / "old").chmod(0o755)
    for name in ("new", "old"):
        lake = Lake(str(tmp_path / name), duckdb_engine)
        lake.append_rows(VISITS, VISITS.arrow.empty_table(), 1)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"new": 0o700, "old": 0o755}
