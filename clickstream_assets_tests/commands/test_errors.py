"""Errors, as the command line shows them; and its version."""

from importlib.metadata import version

import pytest
import typer
from typer.testing import CliRunner

from clickstream_assets.commands.app import app
from clickstream_assets.commands.errors import ReportingGroup
from clickstream_assets.errors import ClickstreamError


def fail(kind: str) -> None:
    if kind == "fault":
        raise KeyError("a fault of ours")
    if kind == "stopped":
        raise KeyboardInterrupt
    error = ClickstreamError("NAME=value: what is wrong; what to do")
    error.add_note("and what came of it")
    raise error


@pytest.fixture
def commands() -> typer.Typer:
    """A command line with a command, and the same in a group of its own."""
    commands, group = typer.Typer(cls=ReportingGroup), typer.Typer()
    commands.add_typer(group, name="group")
    for each in (commands, group):
        each.command()(fail)
        each.command()(lambda: None)
    return commands


@pytest.mark.parametrize("path", [["fail"], ["group", "fail"]])
def test_a_user_sees_the_message_and_its_notes_without_a_traceback(commands, path):
    result = CliRunner().invoke(commands, [*path, "mendable"])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "NAME=value: what is wrong; what to do\nand what came of it\n"


def test_a_fault_of_ours_keeps_its_traceback_and_ctrl_c_its_exit_code(commands):
    assert isinstance(CliRunner().invoke(commands, ["fail", "fault"]).exception, KeyError)
    assert CliRunner().invoke(commands, ["fail", "stopped"]).exit_code == 130


def test_all_commands_are_reported_on():
    assert app.info.cls is ReportingGroup


def test_it_says_its_version():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"clickstream_assets {version('clickstream-assets')}\n")
