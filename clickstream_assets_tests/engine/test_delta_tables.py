"""Opened tables follow their logs: commits of others, and tables that are put back, deleted or made anew."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from clickstream_assets.engine import delta_tables


def write(path: Path, *numbers: int) -> None:
    for number in numbers:
        write_deltalake(str(path), pa.table({"number": [number]}), mode="append")


def numbers(table: DeltaTable) -> list[int]:
    return sorted(table.to_pyarrow_table()["number"].to_pylist())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "table"
    write(path, 1, 2)
    return path


def test_what_others_commit_is_seen_without_opening_anew(path: Path):
    table = delta_tables.newest(str(path))
    write(path, 3)
    assert delta_tables.newest(str(path)) is table
    assert (table.version(), numbers(table)) == (2, [1, 2, 3])
    # Our own too.
    write_deltalake(table, pa.table({"number": [4]}), mode="append")
    assert numbers(delta_tables.newest(str(path))) == [1, 2, 3, 4]


def test_a_version_stays_what_it_is(path: Path):
    assert numbers(delta_tables.at(str(path), 1)) == [1, 2]
    newest = delta_tables.newest(str(path))
    assert delta_tables.at(str(path), 1) is newest
    write(path, 3)
    delta_tables.newest(str(path))
    pinned = delta_tables.at(str(path), 1)
    assert pinned is not newest
    assert delta_tables.at(str(path), 1) is pinned
    assert numbers(pinned) == [1, 2]
    assert numbers(delta_tables.at(str(path), 0)) == [1]
    with pytest.raises(DeltaError):
        delta_tables.at(str(path), 7)


def test_a_table_that_is_put_back_is_not_what_it_was(path: Path, tmp_path: Path):
    backup = tmp_path / "backup"
    shutil.copytree(path, backup)
    write(path, 3)
    assert numbers(delta_tables.newest(str(path))) == [1, 2, 3]
    assert numbers(delta_tables.at(str(path), 2)) == [1, 2, 3]
    shutil.rmtree(path)
    shutil.copytree(backup, path)
    assert numbers(delta_tables.newest(str(path))) == [1, 2]
    # And what is written then has the numbers of the commits that are gone.
    write(path, 30)
    assert numbers(delta_tables.at(str(path), 2)) == [1, 2, 30]
    write(path, 40)
    assert numbers(delta_tables.newest(str(path))) == [1, 2, 30, 40]


def test_a_table_that_is_gone_is_not_there(path: Path):
    delta_tables.newest(str(path))
    shutil.rmtree(path)
    with pytest.raises(TableNotFoundError):
        delta_tables.newest(str(path))
    write(path, 5)
    assert numbers(delta_tables.newest(str(path))) == [5]


def test_no_thread_has_a_table_move_on_for_another(path: Path):
    table = delta_tables.newest(str(path))
    write(path, 3)
    with ThreadPoolExecutor(1) as other:
        assert other.submit(lambda: delta_tables.newest(str(path)).version()).result() == 2
    assert table.version() == 1


@pytest.mark.slow
def test_only_so_many_versions_are_kept(path: Path):
    write(path, *range(3, 30))
    for version in range(29):
        assert delta_tables.at(str(path), version).version() == version
    assert len(delta_tables._opened.pinned) == delta_tables._VERSIONS_KEPT
