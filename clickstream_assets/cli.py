"""The `clickstream` command."""

import typer

from clickstream_assets.api.cli import api
from clickstream_assets.local.cli import fetch_jars_command, stack_app
from clickstream_assets.local.demo import demo
from clickstream_assets.local.spark_cli import spark_app
from clickstream_assets.prepare import prepare_command
from clickstream_assets.recommender.cli import evaluate
from clickstream_assets.rejected.cli import rejected_app
from clickstream_assets.reports.cli import report_command
from clickstream_assets.settings_page import settings_command
from clickstream_assets.simulator.cli import replay, simulate
from clickstream_assets.streaming.cli import stream

app = typer.Typer(
    help="Click events from Kafka to sessions, segments and recommendations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(stack_app, name="stack")
app.add_typer(spark_app, name="spark")
app.add_typer(rejected_app, name="rejected")
app.command()(simulate)
app.command()(replay)
app.command()(stream)
app.command()(api)
app.command()(evaluate)
app.command("report")(report_command)
app.command()(demo)
app.command("settings")(settings_command)
app.command("prepare")(prepare_command)
app.command("fetch-jars")(fetch_jars_command)
