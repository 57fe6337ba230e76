"""The lake's tables, copied as of one moment while others write them, and put back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from clickstream_assets.backup import lake as copying
from clickstream_assets.backup.errors import BackupError
from clickstream_assets.backup.lake import copy_table, cut
from clickstream_assets.backup.place import Place, Written, uncounted
from clickstream_assets.catalogue import RAW_EVENTS, Table
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.stores.lake import Lake
from clickstream_assets_tests.analytics.records import raw_table
from clickstream_assets_tests.stores.test_lake import VISITS, visits

DAY = date(2024, 2, 29)
NAME = "2024-03-01T000000Z"


@pytest.fixture
def lake(duckdb_engine: DuckDBEngine, tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), duckdb_engine)


@pytest.fixture
def source(tmp_path: Path) -> Place:
    return Place(str(tmp_path / "lake"))


@pytest.fixture
def target(tmp_path: Path) -> Place:
    return Place(str(tmp_path / "backups"))


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A local disk's clock is finer than an object store's."""
    monkeypatch.setattr(copying, "_TICK_SECONDS", 0.02)


def replace(lake: Lake, *users: str) -> None:
    lake.replace(VISITS, lake.engine.from_arrow(visits(*((DAY, user) for user in users))))


def append(lake: Lake, batch: int, value: bytes) -> None:
    lake.append_batch(RAW_EVENTS, lake.engine.from_arrow(raw_table([value], batch, batch)), batch)


def copied(source: Place, target: Place, table: Table, version: int, **options: Any) -> dict[str, Written]:
    pinned = cut(source, only=[table.name])
    options = {"known": {}, "counting": uncounted, **options}
    return copy_table(source, table.name, version, pinned.moment, target, NAME, **options).files


def put_together(target: Place, folder: Path, table: Table) -> str:
    """Put the files of a copied table where a reader looks for them."""
    shutil.copytree(f"{target.uri}/files/{table.name}", folder / table.name)
    shutil.copytree(f"{target.uri}/{NAME}/lake/{table.name}", folder / table.name, dirs_exist_ok=True)
    return str(folder / table.name)


def users(lake: Lake, version: int | None = None) -> list[str]:
    return sorted(lake.engine.to_arrow(lake.read(VISITS, version))["user_id"].to_pylist())


def test_a_table_comes_back_at_its_version_without_what_was_committed_later(
    lake: Lake, source: Place, target: Place, tmp_path: Path
):
    replace(lake, "u1")
    replace(lake, "u1", "u2")
    pinned = cut(source)
    assert pinned.versions == {"visits": 2}
    replace(lake, "u3")
    result = copy_table(source, "visits", 2, pinned.moment, target, NAME, {}, uncounted)
    assert (result.table.version, result.table.rows) == (2, 2)

    back = put_together(target, tmp_path / "back", VISITS)
    there = Lake(str(tmp_path / "back"), lake.engine)
    assert there.snapshot(VISITS).version == 2
    assert users(there) == ["u1", "u2"]
    # An older version, which the lake still has, is there too; nothing of the later one is.
    assert users(there, version=1) == ["u1"]
    assert sorted(DeltaTable(back).to_pyarrow_table()["user_id"].to_pylist()) == ["u1", "u2"]
    names = {path.name for path in Path(back).rglob("*.parquet")}
    assert names == {
        Path(uri).name for version in (1, 2) for uri in DeltaTable(back, version=version).file_uris()
    }
    # Writers go on from there.
    replace(there, "u4")
    assert (there.snapshot(VISITS).version, users(there)) == (3, ["u4"])


def test_batches_that_a_table_has_are_known_after_its_return(
    lake: Lake, source: Place, target: Place, tmp_path: Path
):
    for batch in (1, 2, 3):
        append(lake, batch, b"%d" % batch)
    copied(source, target, RAW_EVENTS, lake.version(RAW_EVENTS) - 1)
    put_together(target, tmp_path / "back", RAW_EVENTS)
    there = Lake(str(tmp_path / "back"), lake.engine)
    assert there.snapshot(RAW_EVENTS).batch == 2
    append(there, 2, b"again")
    append(there, 3, b"other")
    assert sorted(there.rows(RAW_EVENTS)["value"].to_pylist()) == [b"1", b"2", b"other"]


@pytest.mark.slow
def test_a_log_with_checkpoints_is_copied_up_to_the_version(
    lake: Lake, source: Place, target: Place, tmp_path: Path
):
    # delta-rs writes a checkpoint every 100 commits.
    for batch in range(1, 106):
        append(lake, batch, b"%d" % batch)
    copied(source, target, RAW_EVENTS, 103)
    back = put_together(target, tmp_path / "back", RAW_EVENTS)
    log = Path(back) / "_delta_log"
    assert [path.name for path in log.glob("*.checkpoint*")]
    assert max(path.name for path in log.glob("*.json")) == f"{103:020}.json"
    assert Lake(str(tmp_path / "back"), lake.engine).snapshot(RAW_EVENTS).rows == 103
    # A checkpoint that is later than the version is left out, and what says that it is the last.
    shutil.rmtree(target.uri)
    copied(source, target, RAW_EVENTS, 50)
    names = [path.name for path in Path(f"{target.uri}/{NAME}/lake/raw_events/_delta_log").iterdir()]
    assert sorted(names) == [f"{version:020}.json" for version in range(51)]


def test_tables_are_of_one_moment_whatever_is_written_while_they_are_looked_at(
    lake: Lake, source: Place, monkeypatch: pytest.MonkeyPatch
):
    """Each round writes `raw_events` and, because of it, `visits`; of the two, `visits` is never ahead in a cut."""
    append(lake, 1, b"1")
    replace(lake, "round 1")
    rounds = iter(range(2, 30))
    look = copying._commits

    def look_and_write(place: Place, table: str) -> dict[int, int]:
        found = look(place, table)
        number = next(rounds)
        append(lake, number, b"%d" % number)
        replace(lake, f"round {number}")
        return found

    monkeypatch.setattr(copying, "_commits", look_and_write)
    pinned = cut(source)
    (user,) = users(lake, pinned.versions["visits"])
    # raw_events was looked at first, and round 2 came before visits was.
    assert lake.snapshot(RAW_EVENTS, version=pinned.versions["raw_events"]).batch == 2
    assert user == "round 2"


def test_files_that_an_earlier_backup_has_are_not_copied_again(lake: Lake, source: Place, target: Place):
    replace(lake, "u1")
    first = copied(source, target, VISITS, 1)
    lake.append(VISITS, lake.engine.from_arrow(visits((DAY, "u2"))))
    data = [path for path in first if path.startswith("files/")]
    assert len(data) == 1
    before = Path(f"{target.uri}/{data[0]}").stat().st_mtime_ns
    second = copied(source, target, VISITS, 2, known=first)
    assert Path(f"{target.uri}/{data[0]}").stat().st_mtime_ns == before
    assert second[data[0]] == first[data[0]]
    assert len([path for path in second if path.startswith("files/")]) == 2


def test_a_file_of_the_version_that_upkeep_has_deleted_is_named(lake: Lake, source: Place, target: Place):
    replace(lake, "u1")
    (uri,) = DeltaTable(lake.path(VISITS)).file_uris()
    pinned = cut(source)
    replace(lake, "u2")
    lake.maintain(VISITS, timedelta(0))
    with pytest.raises(BackupError, match=rf"{Path(uri).name} is gone.*LAKE_RETENTION_DAYS"):
        copy_table(source, "visits", 1, pinned.moment, target, NAME, {}, uncounted)


def test_a_file_of_an_older_version_may_go_while_it_is_copied(
    lake: Lake, source: Place, target: Place, monkeypatch: pytest.MonkeyPatch
):
    replace(lake, "u1")
    (older,) = DeltaTable(lake.path(VISITS)).file_uris()
    replace(lake, "u2")
    copy = Place.copy

    def copy_after_upkeep(place: Place, name: str, to: Place, new_name: str) -> Written:
        Path(older).unlink(missing_ok=True)
        return copy(place, name, to, new_name)

    monkeypatch.setattr(Place, "copy", copy_after_upkeep)
    files = copied(source, target, VISITS, 2)
    assert [path for path in files if path.startswith("files/")] == [
        f"files/visits/{Path(uri).relative_to(lake.path(VISITS))}"
        for uri in DeltaTable(lake.path(VISITS)).file_uris()
    ]


def test_a_copy_that_fails_leaves_no_half_of_a_file(
    lake: Lake, source: Place, target: Place, monkeypatch: pytest.MonkeyPatch
):
    replace(lake, "u1")
    (path,) = DeltaTable(lake.path(VISITS)).file_uris()
    chunks = Place.chunks

    def interrupted(place: Place, name: str) -> Iterator[bytes]:
        yield from chunks(place, name)
        raise KeyboardInterrupt

    monkeypatch.setattr(Place, "chunks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        source.copy(f"visits/{Path(path).relative_to(lake.path(VISITS))}", target, "files/half")
    assert list(Path(target.uri).rglob("half*")) == []
