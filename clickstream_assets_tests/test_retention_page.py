"""The page of retention: everything that is kept is on it, with what ends it, and the settings' defaults are true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from clickstream_assets.catalogue import LIVE_EVENTS, TABLES
from clickstream_assets.local.stack import SERVERS, Stack
from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.metadata import METADATA

PAGE = Path(__file__).parents[1] / "docs/retention.md"


class Row(NamedTuple):
    """A row of the page's tables but the one of figures."""

    what: str
    grows_by: str
    ended_by: str
    gone: str

    @property
    def names(self) -> set[str]:
        """What it is about, as it is named in code."""
        return set(re.findall(r"`([^`]+)`", self.what))


def rows_of(title: str) -> list[Row]:
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = [line.strip()[1:-1].split("|") for line in section.splitlines() if line.startswith("| ")]
    return [Row(*(cell.strip() for cell in line)) for line in lines[2:]]


ROWS = {title: rows_of(title) for title in ("The lake", "PostgreSQL", "Dagster's database", "Others")}
ALL = [row for rows in ROWS.values() for row in rows]
IN_LAKE = {table.name for table in TABLES.values() if table.in_lake}
FOLDERS = {*(server.name for server in SERVERS), "dagster", "logs", "lake", "checkpoints", "raw_logs"}


def test_every_table_of_the_lake_is_on_the_page() -> None:
    named = {name for row in ROWS["The lake"] for name in row.names}
    assert named == IN_LAKE


def test_every_table_of_postgresql_is_on_the_page() -> None:
    named = {name for row in ROWS["PostgreSQL"] for name in row.names}
    assert named == set(METADATA.tables)


@pytest.mark.usefixtures("servers")
def test_elasticsearchs_indices_and_each_folder_of_a_home_are_on_the_page(stack: Stack) -> None:
    named = {name for row in ROWS["Others"] for name in row.names}
    own = Settings(_env_file=None)
    paths = {Path(own.lake).name, Path(own.checkpoints).name, own.raw_logs.name}
    there = {path.name for path in stack.home.iterdir() if path.is_dir()}
    assert paths | there <= FOLDERS
    assert {*FOLDERS, LIVE_EVENTS.name, "ELASTICSEARCH_ALERTS_INDEX"} <= named


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.what[:40])
def test_each_row_says_what_ends_it_and_by_which_default(row: Row) -> None:
    assert row.grows_by
    assert bool(row.ended_by) != row.grows_by.startswith("nothing") or row.ended_by == "Spark"
    for setting, default in re.findall(r"`([A-Z_]+_DAYS)`(?: \((\d+)\))?", row.ended_by):
        field = Settings.model_fields[setting.lower()]
        assert default in ("", str(field.default)), setting


def test_each_setting_that_ends_something_is_on_the_page() -> None:
    named = {name for row in ALL for name in re.findall(r"`([A-Z_]+)`", row.ended_by)}
    assert {name.upper() for name in Settings.model_fields if name.endswith("_retention_days")} <= named
