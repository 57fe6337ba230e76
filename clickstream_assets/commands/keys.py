"""`clickstream keys new`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from clickstream_assets.errors import InputError
from clickstream_assets.keys import Scope, new_key

keys_app = typer.Typer(help="Keys of the API.", no_args_is_help=True)


@keys_app.callback()
def _of_all() -> None:
    """Keep `new` a command of its own: typer makes the only one the whole."""


@keys_app.command("new")
def new_command(
    name: Annotated[str, typer.Argument(help="Whose key it is; two may have one name.")],
    scope: Annotated[
        list[Scope],
        typer.Option(
            help="What it may do; may be given several times. personal includes read, and admin all."
        ),
    ],
) -> None:
    """Make a key and print it, this once, as JSON, with the entry that API_KEYS needs."""
    try:
        secret, key = new_key(name, scope)
    except ValueError as error:
        raise InputError(f"NAME: {error}") from None
    typer.echo(json.dumps({"key": secret, "entry": key.entry}))
