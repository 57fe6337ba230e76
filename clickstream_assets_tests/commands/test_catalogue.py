"""`clickstream catalogue`: what it takes in, and what it says of the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from clickstream_assets.catalogue import PRODUCT_FEED
from clickstream_assets.commands.app import app
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.settings import load_settings
from clickstream_assets.stores.lake import Lake

FEED = "id,title,price,gtin\na,Red shoe,12.50 EUR,1\nb,Blue shoe,cheap,2\nc,Hat,9,3\n"


@pytest.fixture
def feed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAKE_PATH", str(tmp_path / "lake"))
    path = tmp_path / "feed.csv"
    path.write_text(FEED)
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["catalogue", *map(str, arguments)])


def counts(result: Result) -> dict[str, Any]:
    return json.loads(result.stdout)


def kept(duckdb_engine: DuckDBEngine) -> dict[str, Any]:
    rows = Lake(load_settings().lake, duckdb_engine).rows(PRODUCT_FEED).to_pylist()
    return {row["product_id"]: (row["name"], row["withdrawn"]) for row in rows}


def test_what_can_be_read_is_taken_in_and_the_rest_is_named(feed: Path, duckdb_engine: DuckDBEngine):
    result = run(feed)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"{feed}, line 3: price='cheap': not_a_number; write a number, with its currency or without: 12.50 EUR "
        "(DECIMAL_COMMA says what a comma means)",
        f"{feed}: columns without a use here: gtin.",
    ]
    assert counts(result) == {"read": 2, "new": 2, "changed": 0, "same": 0, "withdrawn": 0, "rejected": 1}
    assert kept(duckdb_engine) == {"a": ("Red shoe", False), "c": ("Hat", False)}
    assert counts(run(feed)) == {"read": 2, "new": 0, "changed": 0, "same": 2, "withdrawn": 0, "rejected": 1}


def test_a_whole_feed_withdraws_what_it_lacks_unless_a_line_cannot_be_read(
    feed: Path, duckdb_engine: DuckDBEngine
):
    run(feed)
    feed.write_text("id,title\na,Shoe\nb,\n,x\n")
    result = run(feed, "--whole")
    assert "nothing is withdrawn, as the rejected lines may be of any product" in result.stderr
    assert kept(duckdb_engine) == {"a": ("Shoe", False), "b": (None, False), "c": ("Hat", False)}
    feed.write_text("id,title\na,Shoe\n")
    result = run(feed, "--whole")
    assert (result.exit_code, result.stderr) == (0, "")
    assert counts(result)["withdrawn"] == 2
    assert kept(duckdb_engine) == {"a": ("Shoe", False), "b": (None, True), "c": ("Hat", True)}


def test_a_dry_run_keeps_nothing_and_many_bad_lines_are_counted(feed: Path, duckdb_engine: DuckDBEngine):
    feed.write_text("id\n" + "undefined\n" * 30 + "a\n")
    result = run(feed, "--dry-run")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == f"{feed}: 10 more lines are rejected."
    assert counts(result) == {"read": 1, "rejected": 30}
    assert kept(duckdb_engine) == {}


def test_a_file_that_is_none_is_an_error_without_a_traceback(feed: Path):
    result = run(feed.with_name("none"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"{feed.with_name('none')} does not exist\n"
