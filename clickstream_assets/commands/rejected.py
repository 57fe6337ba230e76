"""`clickstream rejected list` and `clickstream rejected replay`."""

import base64
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clickstream_assets.errors import InputError
from clickstream_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    from clickstream_assets.stores.lake import Lake

_SHOWN_CHARACTERS = 100

rejected_app = typer.Typer(
    help="The records that the ingest rejected: what is wrong with them, and sending them again.",
    no_args_is_help=True,
)

_Rule = Annotated[str | None, typer.Option(help="Only those that break this rule, such as missing.")]
_Field = Annotated[str | None, typer.Option(help="Only those where this field is wrong.")]
_Value = Annotated[str | None, typer.Option(help="Only those whose wrong field has this value.")]


@rejected_app.command("list")
def list_command(
    rule: _Rule = None,
    field: _Field = None,
    value: _Value = None,
    limit: Annotated[int, typer.Option(min=0, help="How many of the newest to show in the text.")] = 20,
    format: Annotated[
        Literal["text", "json"], typer.Option(help="text, or json: all of them, an object a line, whole.")
    ] = "text",
) -> None:
    """Show the rejected records: counted by rule and field, and the newest."""
    # Imported here, so that `clickstream --help` need not wait for DuckDB.
    from clickstream_assets.ingest.fields import BEFORE_START
    from clickstream_assets.ingest.rejected import (
        Selection,
        all_rejected,
        count_rejected,
        newest_rejected,
    )
    from clickstream_assets.stores.start_date import start_date

    settings = load_settings()
    lake = _lake(settings)
    selection = Selection(rule, field, value)
    if format == "json":
        for record in all_rejected(lake, selection):
            typer.echo(json.dumps(_json_record(record), ensure_ascii=False))
        return
    groups = count_rejected(lake, selection)
    total = sum(group.records for group in groups)
    typer.echo(f"{total:,} {'record is' if total == 1 else 'records are'} rejected.")
    for group in groups:
        typer.echo(f"{group.records:>12,}  {group.rule}  {group.field or '(the record)'}")
    if any(group.rule == BEFORE_START for group in groups):
        typer.echo(
            f"{BEFORE_START}: before {start_date(settings)}. To take these too, set EVENTS_START_DATE to an earlier "
            "day, start Dagster and `clickstream stream` anew, and run "
            f"`clickstream rejected replay --rule {BEFORE_START}`."
        )
    newest = newest_rejected(lake, selection, limit)
    if newest:
        typer.echo("The newest, with partition and offset:")
    for record in newest:
        typer.echo(
            f"{record['partition']}:{record['offset']}  {record['kafka_time']:%Y-%m-%d %H:%M:%S}  "
            f"{record['rule']}  {record['field'] or ''}  {_shown(record['value'])}"
        )


@rejected_app.command("replay")
def replay_command(
    rule: _Rule = None,
    field: _Field = None,
    value: _Value = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="FIELD=VALUE", help="Give a field this value first: JSON, or else a text."
        ),
    ] = None,
    drop: Annotated[list[str] | None, typer.Option(metavar="FIELD", help="Take a field out first.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Send nothing; say what would be sent.")] = False,
) -> None:
    """Mend rejected records and send them to KAFKA_TOPIC again.

    Only what is a valid event by then is sent, so without --set and --drop it
    is what a changed setting allows, such as a larger MAX_EVENT_BYTES. The
    rejected records stay; sending one twice makes a duplicate. What needs
    another hand can be written to a file with `list --format json`, and sent
    with `clickstream replay`.

    The last line on stdout is one JSON object of counts.
    """
    from clickstream_assets.catalogue.units import EPOCH, MICROSECOND
    from clickstream_assets.ingest.fields import ValidationRules
    from clickstream_assets.ingest.rejected import Selection, all_rejected, send_again
    from clickstream_assets.stores.kafka.producer import KafkaSink
    from clickstream_assets.stores.start_date import with_start_date

    settings = with_start_date(load_settings())
    now = (datetime.now(UTC) - EPOCH) // MICROSECOND
    records = all_rejected(_lake(settings), Selection(rule, field, value))
    how = (ValidationRules.of(settings), now, dict(_change(change) for change in changes or ()), drop or ())
    if dry_run:
        resent = send_again(records, lambda _key, _value: None, *how)
    else:
        with KafkaSink(settings) as sink:
            resent = send_again(records, sink.send, *how)
    if resent.example:
        typer.echo(f"Still no valid event, so not sent: {resent.example}", err=True)
    counts = {
        "selected": resent.selected,
        "would_be_sent" if dry_run else "sent": resent.sent,
        "still_rejected": dict(resent.still_rejected),
    }
    typer.echo(json.dumps(counts))


def _lake(settings: Settings) -> "Lake":
    from clickstream_assets.catalogue import REJECTED_EVENTS
    from clickstream_assets.engine import DuckDBEngine
    from clickstream_assets.stores.lake import Lake

    # Whatever COMPUTE_ENGINE is: what is rejected is few, and DuckDB is there at once.
    lake = Lake(settings.lake, DuckDBEngine(settings))
    if not lake.exists(REJECTED_EVENTS):
        raise InputError(
            f"LAKE_PATH={settings.lake}: there is no table rejected_events. Materialize it first, or set LAKE_PATH to "
            "where the lake is"
        )
    return lake


def _change(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InputError(f"--set {text}: write it as FIELD=VALUE, such as --set event_type=view")
    try:
        return name, json.loads(value, parse_float=Decimal, parse_constant=str)
    except ValueError:
        return name, value


def _json_record(record: dict[str, Any]) -> dict[str, Any]:
    shown = record | {"kafka_time": record["kafka_time"].isoformat()}
    for name in ("key", "value"):
        content = shown.pop(name)
        try:
            shown[name] = None if content is None else content.decode()
        except UnicodeDecodeError:
            shown[f"{name}_base64"] = base64.b64encode(content).decode()
    return shown


def _shown(value: bytes | None) -> str:
    if value is None:
        return "(no value)"
    text = value[: 4 * _SHOWN_CHARACTERS].decode(errors="replace")
    line = " ".join(text.split())
    # What a terminal would act on is not for the terminal.
    printable = "".join(c if c.isprintable() else "\ufffd" for c in line)
    return printable[:_SHOWN_CHARACTERS] + ("…" if len(value) > _SHOWN_CHARACTERS else "")
