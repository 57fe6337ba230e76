"""The one place where the command line reports errors."""

from typing import Any

import typer
from typer.core import TyperGroup

from clickstream_assets.errors import ClickstreamError


class ReportingGroup(TyperGroup):
    """A group whose commands, and those of its groups, end with a message where a ClickstreamError is raised.

    The message and its notes go to stderr, without a traceback, and the exit code is 1. Ctrl-C, where a command does
    not handle it itself, is Typer's: exit code 130.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the context names."""
        try:
            return super().invoke(ctx)
        except ClickstreamError as error:
            for line in (str(error), *getattr(error, "__notes__", ())):
                typer.echo(line, err=True)
            raise typer.Exit(1) from None
