"""Logs that a keeper shortens while their processes go on writing."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from clickstream_assets.local import keeper
from clickstream_assets.local.keeper import shorten_logs


def test_a_log_that_is_too_long_becomes_its_own_predecessor(tmp_path: Path) -> None:
    for name in ("kafka.log", "api.log", "notes.txt"):
        (tmp_path / name).write_text("0123456789\n")
    (tmp_path / "api.log").write_text("short\n")
    # As a process has its own open.
    with (tmp_path / "kafka.log").open("ab", buffering=0) as log:
        shorten_logs(tmp_path, 10)
        log.write(b"goes on\n")
        there = {path.name: path.read_text() for path in tmp_path.iterdir()}
        assert there == {
            "kafka.log": "goes on\n",
            "kafka.log.1": "0123456789\n",
            "api.log": "short\n",
            "notes.txt": "0123456789\n",
        }
        log.write(b"and on\n")
        shorten_logs(tmp_path, 10)
    assert (tmp_path / "kafka.log").read_text() == ""
    assert (tmp_path / "kafka.log.1").read_text() == "goes on\nand on\n"


def test_a_log_that_has_filled_the_disk_is_cut_without_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "kafka.log"
    log.write_text("0123456789\n")

    def no_room(_: Any, copy: Path) -> None:
        copy.write_text("01")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", no_room)
    keeper.shorten_logs(tmp_path, 10)
    assert [path.name for path in tmp_path.iterdir()] == ["kafka.log"]
    assert log.read_text() == ""


def test_a_folder_that_is_not_there_has_no_logs(tmp_path: Path) -> None:
    shorten_logs(tmp_path / "logs")
