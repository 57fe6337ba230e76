"""`clickstream catalogue`: a file of what the shop sells."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from clickstream_assets.settings import load_settings

_SHOWN = 20


def catalogue_command(
    file: Annotated[Path, typer.Argument(help="JSON lines, CSV or TSV, also compressed.")],
    whole: Annotated[
        bool,
        typer.Option(
            "--whole", help="FILE names all products: those of earlier feeds that it lacks are withdrawn."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Keep nothing; say what is wrong.")] = False,
) -> None:
    """Take in what FILE says of the shop's products, field by field in place of what events say.

    A line is a product: product_id, and of name, category, brand, price,
    currency, image, link and available what there is. Feeds for Google
    Merchant Center are read by their own names: id, title, product_type,
    price (12.50 EUR), image_link, availability. Of two lines of one product
    the last counts; the same file again changes nothing.

    Lines that cannot be read are said on stderr, and the exit code is then 1;
    the others are taken in. Dagster serves them seconds later: its sensor
    `new_products` starts a run. The last line on stdout is
    one JSON object of counts.
    """
    # Imported here, so that `clickstream --help` need not wait for DuckDB.
    from clickstream_assets.engine import DuckDBEngine
    from clickstream_assets.ingest.fields import ValidationRules
    from clickstream_assets.ingest.product_feed import FeedCounts, FeedFile, take_in
    from clickstream_assets.stores.lake import Lake

    settings = load_settings()
    feed = FeedFile(file, ValidationRules.of(settings))
    rows = list(feed)
    counts = FeedCounts()
    # A line that cannot be read may be of any product.
    is_whole = whole and not feed.rejected
    if not dry_run and rows:
        # Whatever COMPUTE_ENGINE is: the feed is at hand, and DuckDB is there at once.
        counts = take_in(Lake(settings.lake, DuckDBEngine(settings)), rows, is_whole=is_whole)
    for rejected in feed.rejected[:_SHOWN]:
        typer.echo(f"{file}, {rejected}", err=True)
    if len(feed.rejected) > _SHOWN:
        typer.echo(f"{file}: {len(feed.rejected) - _SHOWN:,} more lines are rejected.", err=True)
    if whole and feed.rejected:
        typer.echo(f"{file}: nothing is withdrawn, as the rejected lines may be of any product.", err=True)
    if feed.others:
        typer.echo(f"{file}: columns without a use here: {', '.join(feed.others)}.", err=True)
    said = {"read": len(rows)} | asdict(counts) if not dry_run else {"read": len(rows)}
    typer.echo(json.dumps(said | {"rejected": len(feed.rejected)}))
    if feed.rejected:
        raise typer.Exit(1)
