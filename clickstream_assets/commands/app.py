"""The `clickstream` command."""

from importlib.metadata import version
from typing import Annotated

import typer

from clickstream_assets.commands.api import api
from clickstream_assets.commands.backup import backup_command, restore_command
from clickstream_assets.commands.catalogue import catalogue_command
from clickstream_assets.commands.demo import demo
from clickstream_assets.commands.errors import ReportingGroup
from clickstream_assets.commands.evaluate import evaluate
from clickstream_assets.commands.incidents import incidents_app
from clickstream_assets.commands.keys import keys_app
from clickstream_assets.commands.metrics import metrics_command
from clickstream_assets.commands.models import models_app
from clickstream_assets.commands.persons import erase_command, erasures_command, export_command
from clickstream_assets.commands.prepare import prepare_command
from clickstream_assets.commands.rejected import rejected_app
from clickstream_assets.commands.report import report_command
from clickstream_assets.commands.settings import settings_command
from clickstream_assets.commands.simulate import replay, simulate
from clickstream_assets.commands.spark import spark_app
from clickstream_assets.commands.stack import fetch_jars_command, stack_app
from clickstream_assets.commands.stream import stream
from clickstream_assets.commands.tables import tables_command

app = typer.Typer(
    cls=ReportingGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"clickstream_assets {version('clickstream_assets')}")
        raise typer.Exit


@app.callback()
def _of_all(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Click events from Kafka to sessions, segments and recommendations."""


app.add_typer(stack_app, name="stack")
app.add_typer(spark_app, name="spark")
app.add_typer(rejected_app, name="rejected")
app.add_typer(incidents_app, name="incidents")
app.add_typer(models_app, name="models")
app.add_typer(keys_app, name="keys")
app.command()(simulate)
app.command()(replay)
app.command("catalogue")(catalogue_command)
app.command("export")(export_command)
app.command("erase")(erase_command)
app.command("erasures")(erasures_command)
app.command()(stream)
app.command()(api)
app.command()(evaluate)
app.command("report")(report_command)
app.command()(demo)
app.command("settings")(settings_command)
app.command("tables")(tables_command)
app.command("metrics")(metrics_command)
app.command("prepare")(prepare_command)
app.command("backup")(backup_command)
app.command("restore")(restore_command)
app.command("fetch-jars")(fetch_jars_command)
