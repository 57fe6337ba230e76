"""`clickstream simulate` and `clickstream replay`.

The last line on stdout is one JSON object of counts; progress and words for people go to stderr.
"""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clickstream_assets.commands.progress import counting
from clickstream_assets.errors import InputError
from clickstream_assets.settings import load_settings
from clickstream_assets.simulator.habits import USUAL, Habits

if TYPE_CHECKING:
    from clickstream_assets.ingest.replay import Stop

_EXIT_INTERRUPTED = 130

_NoKafka = Annotated[bool, typer.Option("--no-kafka", help="Do not send to KAFKA_TOPIC.")]
_NoFiles = Annotated[
    bool, typer.Option("--no-files", help="Do not append to the daily files in RAW_LOGS_PATH.")
]
_Rate = Annotated[float | None, typer.Option(help="Records per second.")]
MapOption = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="FIELD=COLUMN",
        help="Which column of the file is a field; of JSON also a path, user.id.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="FIELD=VALUE", help="Give a field of all events this value: JSON, or else a text."
    ),
]
TimeOfDayOption = Annotated[
    str | None,
    typer.Option(metavar="HH:MM", help="Read a timestamp that is a day alone as this time of it."),
]
AnywayOption = Annotated[
    bool, typer.Option("--anyway", help="Send FILE even if nearly all of its first records will be rejected.")
]


def _shopping(help_: str) -> Any:
    return typer.Option(help=help_, rich_help_panel="Shopping")


def simulate(
    events: Annotated[
        int | None, typer.Option("--events", "-n", help="How many events (default: live, until Ctrl-C).")
    ] = None,
    rate: _Rate = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed makes the same bytes, but for live events.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="When the events begin, such as 2026-01-31 or 2026-01-31T08:00Z.")
    ] = None,
    days: Annotated[
        float | None, typer.Option(help="Days that the events are spread over (default: 7).")
    ] = None,
    users: Annotated[int | None, typer.Option(help="Shoppers (default: NUM_USERS).")] = None,
    products: Annotated[int | None, typer.Option(help="Products (default: NUM_PRODUCTS).")] = None,
    late: Annotated[float, typer.Option(help="Share of the events that are sent late.")] = 0.0,
    late_by_minutes: Annotated[float, typer.Option(help="The most that a late event is late.")] = 90.0,
    duplicate: Annotated[float, typer.Option(help="Share that is sent again.")] = 0.0,
    conflicting: Annotated[
        float, typer.Option(help="Share that is contradicted by another event with its id.")
    ] = 0.0,
    malformed: Annotated[
        float, typer.Option(help="Share that is followed by a record that is no event.")
    ] = 0.0,
    bots: Annotated[float, typer.Option(help="Share of the visits that are a robot's.")] = 0.01,
    flash_sale_hours: Annotated[
        float | None,
        typer.Option(
            help="Hours from one flash sale to the next: many look at a product of which there are few."
        ),
    ] = None,
    anonymous: Annotated[
        float, _shopping("Share of the shoppers who have an anonymous id for each device.")
    ] = USUAL.anonymous,
    late_login: Annotated[
        float, _shopping("Share of those who log in within a visit, or days later.")
    ] = USUAL.late_login,
    never_login: Annotated[float, _shopping("Share of those who never log in.")] = USUAL.never_login,
    second_device: Annotated[float, _shopping("Share of those who have two devices.")] = USUAL.second_device,
    shared_device: Annotated[
        float, _shopping("Share of those who share a device with somebody.")
    ] = USUAL.shared_device,
    guest_checkout: Annotated[
        float, _shopping("Share of the orders without a login that are a guest's; the rest need one.")
    ] = USUAL.guest_checkout,
    identify: Annotated[
        float, _shopping("Share of the logins that an identify event announces.")
    ] = USUAL.identify,
    refunds: Annotated[
        float, _shopping("Share of what is ordered that is sent back days later, whole or in part.")
    ] = USUAL.refunds,
    page_views: Annotated[
        float, _shopping("Share of the visits that begin on a page without a product.")
    ] = USUAL.page_views,
    impressions: Annotated[
        float, _shopping("Share of the looks at a product after it was shown in a list.")
    ] = USUAL.impressions,
    wishlists: Annotated[float, _shopping("Share of the looks that end on the wish list.")] = USUAL.wishlists,
    searches: Annotated[float, _shopping("Share of the looks after a search.")] = USUAL.searches,
    checkouts: Annotated[
        float, _shopping("Share of the orders that begin with begin_checkout.")
    ] = USUAL.checkouts,
    custom: Annotated[float, _shopping("Share of the visits with a custom event.")] = USUAL.custom,
    items: Annotated[
        float, _shopping("Share of lists, checkouts and orders of several products that are one record.")
    ] = USUAL.items,
    unit_rows: Annotated[float, _shopping("Share of the orders with a row for each unit.")] = USUAL.unit_rows,
    foreign_currency: Annotated[
        float, _shopping("Share of the orders in another currency.")
    ] = USUAL.foreign_currency,
    local_times: Annotated[
        float, _shopping("Share of the visits whose times are by SHOP_TIME_ZONE's clock.")
    ] = USUAL.local_times,
    plain: Annotated[bool, typer.Option("--plain", help="Flat events, without sessions and ids.")] = False,
    catalogue: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the shop's products to FILE, for `clickstream catalogue`."),
    ] = None,
    site: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Address of the shop's own pages, for the products' pictures and links."
        ),
    ] = None,
    no_kafka: _NoKafka = False,
    no_files: _NoFiles = False,
) -> None:
    """Make shoppers' events and send them to Kafka and the daily files.

    Without --events, or with --rate and neither --start nor --days, events
    are live: they carry the current time and come one each
    SIMULATOR_INTERVAL seconds, or at --rate. Otherwise they fill --days from
    --start (by default the week up to an hour ago; with --seed, which is to
    make the same events each time, from 2026-01-01) and are sent as fast as
    possible, or at --rate.

    --late, --duplicate, --conflicting and --malformed are shares of the
    events; repeated and broken records come on top of --events. What the
    shop's people do is as in a usual shop, or by the shares below "Shopping".
    """
    with _stoppable() as stop:
        # Imported here, so that `clickstream --help` need not wait for the Kafka client.
        from clickstream_assets.simulator.run import SimulationOptions, run_simulation
        from clickstream_assets.simulator.stream import Faults

        habits = Habits(
            anonymous=anonymous,
            late_login=late_login,
            never_login=never_login,
            second_device=second_device,
            shared_device=shared_device,
            guest_checkout=guest_checkout,
            identify=identify,
            refunds=refunds,
            page_views=page_views,
            impressions=impressions,
            wishlists=wishlists,
            searches=searches,
            checkouts=checkouts,
            custom=custom,
            items=items,
            unit_rows=unit_rows,
            foreign_currency=foreign_currency,
            local_times=local_times,
        )
        options = SimulationOptions(
            events=events,
            rate=rate,
            seed=seed,
            start=_time("--start", start),
            days=days,
            users=users,
            products=products,
            bots=bots,
            flash_sale_hours=flash_sale_hours,
            # Nobody has to say that flat events have none.
            habits=Habits() if plain and habits == USUAL else habits,
            plain=plain,
            faults=Faults(
                late=late,
                late_by_minutes=late_by_minutes,
                duplicate=duplicate,
                conflicting=conflicting,
                malformed=malformed,
            ),
            feed=catalogue,
            site=site,
            kafka=not no_kafka,
            files=not no_files,
        )
        expected = None if events is None else round(events * (1 + duplicate + conflicting + malformed))
        started = monotonic()
        with counting("Simulating", expected, "events") as progress:
            made = run_simulation(load_settings(), options, stop=stop, progress=progress)
        counts = asdict(made) | {"start": made.start.isoformat()}
        _conclude(counts, monotonic() - started, was_cut_short=stop() and events is not None)


def replay(
    file: Annotated[Path, typer.Argument(help="JSON, CSV, TSV or Parquet, also compressed or in a zip.")],
    rate: _Rate = None,
    limit: Annotated[int | None, typer.Option(help="The most records to send (default: all).")] = None,
    mapped: MapOption = None,
    fixed: SetOption = None,
    time_of_day: TimeOfDayOption = None,
    anyway: AnywayOption = False,
    no_kafka: _NoKafka = False,
    no_files: _NoFiles = False,
) -> None:
    """Send the events of FILE to Kafka and the daily files, in its order.

    FILE is told by its content: JSON lines or an array (own fields, Segment,
    GA4, Shopify, Snowplow), Snowplow TSV, CSV or Parquet of own fields, and
    the data sets REES46, UCI Online Retail, RetailRocket, YOOCHOOSE, OTTO,
    Taobao, Diginetica and Olist; as it is, or as gzip, bzip2, xz, zstd or zip.
    Any other table: --map timestamp=when --map user_id=who --set
    event_type=view.

    The first thousand records are looked at before any is sent: how many of
    them will be rejected is said, with field and rule, and where nearly all
    would be nothing is sent.
    """
    with _stoppable() as stop:
        from clickstream_assets.ingest.files import Columns, EventFile
        from clickstream_assets.ingest.replay import run_replay

        events = EventFile(file, Columns.of(mapped or (), fixed or (), time_of_day))
        started = monotonic()
        with counting(f"Replaying {file.name}", limit) as progress:
            replayed = run_replay(
                load_settings(),
                events,
                rate=rate,
                limit=limit,
                kafka=not no_kafka,
                files=not no_files,
                anyway=anyway,
                stop=stop,
                progress=progress,
                notice=lambda line: typer.echo(line, err=True),
            )
        for example in replayed.examples:
            typer.echo(f"Skipped a malformed row: {example}", err=True)
        _conclude(asdict(replayed), monotonic() - started, was_cut_short=stop())


def _conclude(counts: dict[str, Any], seconds: float, *, was_cut_short: bool) -> None:
    """Say what was done, to people and as the last line of stdout to scripts."""
    rate = round(counts["sent"] / seconds) if seconds else 0
    details = ", ".join(
        f"{count:,} {name}"
        for name, count in (counts | counts.get("skipped", {})).items()
        if isinstance(count, int) and name not in ("sent", "seed") and count
    )
    typer.echo(
        f"{'Stopped: sent' if was_cut_short else 'Sent'} {counts['sent']:,} records in {seconds:.1f} s "
        f"({rate:,}/s){': ' if details else ''}{details}",
        err=True,
    )
    typer.echo(json.dumps(counts | {"seconds": round(seconds, 3)}))
    if was_cut_short:
        raise typer.Exit(_EXIT_INTERRUPTED)


def _time(option: str, text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{option}={text}: is no ISO 8601 date or time; write it as 2026-01-31 or 2026-01-31T08:00:00Z"
        ) from None


@contextmanager
def _stoppable() -> Iterator["Stop"]:
    """Yield a function that says if Ctrl-C or SIGTERM came; a second one ends the program at once."""
    came = False

    def note(_signal: int, _frame: FrameType | None) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: came
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
