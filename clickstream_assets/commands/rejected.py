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
    from clickstream_assets.ingest.fields import ValidationRules
    from clickstream_assets.ingest.record_paths import Path
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
    from clickstream_assets.ingest.fields import BEFORE_START, ValidationRules
    from clickstream_assets.ingest.rejected import (
        ADVICE,
        Selection,
        all_rejected,
        count_rejected,
        field_in_words,
        newest_rejected,
    )
    from clickstream_assets.stores.kafka.partition import TopicPartition
    from clickstream_assets.stores.start_date import start_date

    settings = load_settings()
    lake = _lake(settings)
    selection = Selection(rule, field, value)
    rules = ValidationRules.of(settings)
    if format == "json":
        for record in all_rejected(lake, selection):
            typer.echo(json.dumps(_json_record(record, rules), ensure_ascii=False))
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
    for advised in dict.fromkeys(group.rule for group in groups if group.rule in ADVICE):
        typer.echo(f"{advised}: {ADVICE[advised]}.")
    if groups and settings.pseudonyms:
        typer.echo(
            "What they said is not kept (PSEUDONYMS); Kafka has it, at these offsets, for as long as its topics say."
        )
    newest = newest_rejected(lake, selection, limit)
    if newest:
        typer.echo("The newest, with topic, partition and offset:")
    for record in newest:
        topic = record["topic"]
        words = field_in_words(record["value"], record["item"], record["field"], rules.of_topic(topic))
        typer.echo(
            f"{TopicPartition(topic, record['partition'])}:{record['offset']}  "
            f"{record['kafka_time']:%Y-%m-%d %H:%M:%S}  {record['rule']}  {words}  {_shown(record['value'])}"
        )


@rejected_app.command("replay")
def replay_command(
    rule: _Rule = None,
    field: _Field = None,
    value: _Value = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Give a field, in its sender's words, this value first: JSON, or else a text.",
        ),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD", help="Take a field, in its sender's words, out first."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Send nothing; say what would be sent.")] = False,
) -> None:
    """Mend rejected records and send them again to the topics that they came from.

    A FIELD is where the record has it, as `list` shows it: event_type of an
    own record, properties.products[1].price of a Segment call. products[*] is
    all of a list, event_params[key=currency] those whose key is that, and
    ["a.b"] a name with a dot.

    Only what is a valid event by then is sent, so without --set and --drop it
    is what a changed setting allows, such as a larger MAX_EVENT_BYTES. The
    rejected records stay; sending one twice makes a duplicate. What needs
    another hand can be written to a file with `list --format json`, and sent
    with `clickstream replay`.

    The last line on stdout is one JSON object of counts.
    """
    from clickstream_assets.catalogue.units import EPOCH, MICROSECOND
    from clickstream_assets.ingest.fields import ValidationRules
    from clickstream_assets.ingest.rejected import ADVICE, Selection, all_rejected, send_again
    from clickstream_assets.stores.kafka.producer import KafkaSink
    from clickstream_assets.stores.start_date import with_start_date

    settings = with_start_date(load_settings())
    now = (datetime.now(UTC) - EPOCH) // MICROSECOND
    records = all_rejected(_lake(settings), Selection(rule, field, value))
    mending = (dict(map(_change, changes or ())), list(map(_dropped, drop or ())))
    how = (ValidationRules.of(settings), settings.topics, now, *mending)
    if dry_run:
        resent = send_again(records, lambda _key, _value, _topic: None, *how)
    else:
        with KafkaSink(settings) as sink:
            resent = send_again(records, sink.send, *how)
    if resent.example:
        typer.echo(f"Still no valid event, so not sent: {resent.example}", err=True)
    for advised in resent.still_rejected.keys() & ADVICE.keys():
        typer.echo(f"{advised}: {ADVICE[advised]}.", err=True)
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


def _change(text: str) -> "tuple[Path, Any]":
    from clickstream_assets.ingest.record_paths import path_at_start

    try:
        path, end = path_at_start(text)
    except ValueError:
        path, end = (), 0
    if not path or text[end : end + 1] != "=":
        raise InputError(f"--set {text}: write it as FIELD=VALUE, such as --set event_type=view")
    value = text[end + 1 :]
    try:
        return path, json.loads(value, parse_float=Decimal, parse_constant=str)
    except ValueError:
        return path, value


def _dropped(text: str) -> "Path":
    from clickstream_assets.ingest.record_paths import parse_path

    try:
        return parse_path(text)
    except ValueError as error:
        raise InputError(f"--drop {text}: {error}; write it as properties.products[0].price") from None


def _json_record(record: dict[str, Any], rules: "ValidationRules") -> dict[str, Any]:
    from clickstream_assets.ingest.origins import origin_of

    origin = origin_of(record["value"], record["item"], record["field"], rules.of_topic(record["topic"]))
    shown = record | {
        "kafka_time": record["kafka_time"].isoformat(),
        "dialect": origin and origin.dialect,
        "path": origin and origin.words,
    }
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
