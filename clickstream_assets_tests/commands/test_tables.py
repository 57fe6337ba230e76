"""The tables' reference: up to date, and complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clickstream_assets.catalogue import TABLES
from clickstream_assets.commands.app import app
from clickstream_assets.commands.tables import tables_page
from clickstream_assets.settings import Settings
from clickstream_assets_tests.databases import environment

PAGE = Path(__file__).parents[2] / "docs" / "tables.md"


def section(name: str) -> list[str]:
    (found,) = re.findall(rf"^## {name}\n\n(.*?)(?=\n## |\Z)", tables_page(), re.MULTILINE | re.DOTALL)
    return found.splitlines()


def test_the_page_in_the_docs_is_what_the_command_prints():
    assert PAGE.read_text() == tables_page(), "run: clickstream tables > docs/tables.md"


def test_every_table_has_a_section_with_a_row_per_column():
    for name, table in TABLES.items():
        rows = re.findall(r"^\| `(\w+)` \|", "\n".join(section(name)), re.MULTILINE)
        assert rows == table.column_names


def test_a_served_table_says_its_name_there_and_how_its_list_is_asked_for():
    lines = section("sessions")
    assert lines[:8] == [
        "A row is one visit: a user's events with no gap longer than the inactivity gap.",
        "",
        "- Key: `session_id`",
        "- Day: `session_date`",
        "- Kept in: the lake and PostgreSQL, as `clickstream_sessions`",
        "- First in PostgreSQL: `session_id`, `total_events`",
        "- Listed by: `GET /sessions`",
        "",
    ]
    assert (
        "| `session_date` | `date32[day]` | no |  | The shop's day of its start | `date`, `since`, `until` |"
        in lines
    )
    steps = "`none`, `view`, `add_to_cart`, `purchase`"
    assert [line for line in lines if line.startswith("| `furthest_step` | `string` | no |")] == [
        f"| `furthest_step` | `string` | no | {steps} | How far it came towards a purchase: none, view (or click), "
        "add_to_cart or purchase | `furthest_step` |"
    ]
    assert (
        "| `revenue` | `decimal128(28, 4)` | no |  | Sum of price times quantity of its purchases | sort |"
        in lines
    )


def test_no_migration_is_written_where_the_newest_one_makes_the_tables(
    postgres: Settings, monkeypatch: pytest.MonkeyPatch
):
    for name, value in environment(postgres).items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, ["tables", "--migration", "nothing"], catch_exceptions=False)
    assert (result.exit_code, result.stdout) == (0, "There is nothing to change.\n")


def test_columns_that_only_postgresql_has_are_named():
    assert "- Only in PostgreSQL: `id` (counted by PostgreSQL), `created_at` (when the row was inserted)" in (
        section("user_segments")
    )
