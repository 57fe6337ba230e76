"""Erased records that come again: from Kafka once more, or with a store that was put back to an earlier time.

Both the lake and PostgreSQL know where they were, so either can be lost.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from clickstream_assets.analytics.identity import IdentityRules
from clickstream_assets.catalogue import (
    CONFLICTING_EVENTS,
    ERASED_RECORDS,
    EVENTS,
    EXPERIMENT_EXPOSURES,
    ITEM_KEY,
)
from clickstream_assets.engine import as_view
from clickstream_assets.ingest.erasure import (
    KINDS,
    Records,
    identify,
    leave_out,
    note,
    places_of,
    records_at,
    sent_ids,
    take_out,
    untie,
)
from clickstream_assets.ingest.ties import persons_of
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.partition import TopicPartition
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres import erasures, pseudonyms


def leave_out_erased(lake: Lake, settings: Settings, kind: Records) -> None:
    """Leave out what Kafka has still of persons who were erased, of records that nothing was made of yet.

    Raises:
        PostgresError: the database cannot be reached, which knows where they are.
    """
    newest, taken = lake.snapshot(kind.raw), lake.snapshot(kind.put_into[-1]).batch
    if newest.batch <= taken:
        return
    by = ("topic", "partition")
    passed = newest.up_to_batch(taken).maximum("offset", by)
    last = newest.maximum("offset", by)
    offsets = {TopicPartition(*key): (passed.get(key, -1) + 1, end) for key, end in last.items()}
    places = erasures.places_among(settings, offsets)
    if places.num_rows:
        leave_out(lake, places, (taken + 1, newest.batch), kind)


def erase_again(lake: Lake, settings: Settings) -> None:
    """Take out of tables that were made anew, or put back, the records of persons who were erased.

    Raises:
        PostgresError: the database cannot be reached, which knows where they are.
    """
    for number, places in erasures.all_places(settings).items():
        for kind in KINDS:
            note(lake, number, records_at(lake, places, kind), kind)
            take_out(lake, [number], kind)


def keep_places_of_lake(lake: Lake, settings: Settings) -> list[int]:
    """Tell PostgreSQL of erasures that the lake knows and it does not, as it was put back to an earlier time.

    Returns:
        Their numbers.
    """
    if not lake.exists(ERASED_RECORDS):
        return []
    engine = lake.engine
    noted = lake.read(ERASED_RECORDS, columns=("erasure",)).select("erasure").distinct()
    unknown = sorted({*engine.to_arrow(as_view(noted))["erasure"].to_pylist()} - erasures.numbers(settings))
    for number in unknown:
        erasures.take_over(settings, number, places_of(lake, number), is_done=True)
    return unknown


def erase_known(lake: Lake, settings: Settings, places: Mapping[int, pa.Table]) -> dict[int, int]:
    """Erase from a lake and a PostgreSQL of an earlier time who was erased since: at once, by where their records are.

    Args:
        lake: has the records, or some of them; no others of these persons.
        settings: say where PostgreSQL is.
        places: ITEM_KEY of each record, by the erasure's number.

    Returns:
        How many records the lake had of each erasure.
    """
    found = {}
    for number, its in sorted(places.items()):
        who = identify(lake, _persons_at(lake, its, IdentityRules.of(settings)))
        erasures.take_over(settings, number, its, persons=who.persons, visitors=who.visitors)
        theirs = [records_at(lake, its, kind) for kind in KINDS]
        for kind, records in zip(KINDS, theirs, strict=True):
            note(lake, number, records, kind)
        if settings.pseudonyms:
            pseudonyms.forget(settings, sent_ids(lake, who, number))
        for kind in KINDS:
            take_out(lake, [number], kind)
        untie(lake, who)
        found[number] = sum(records.num_rows for records in theirs)
    return found


def _persons_at(lake: Lake, places: pa.Table, rules: IdentityRules) -> set[str]:
    """Return whose records are at some places."""
    engine = lake.engine
    wanted = engine.from_arrow(places.select(ITEM_KEY))
    found: set[str] = set()
    for table in (EVENTS, CONFLICTING_EVENTS):
        there = as_view(lake.read(table).join(wanted, on=list(ITEM_KEY), how="left_semi"))
        persons = persons_of(lake, there, rules).select("user_id").distinct()
        found.update(engine.to_arrow(as_view(persons))["user_id"].to_pylist())
    key = [name for name in ITEM_KEY if name in EXPERIMENT_EXPOSURES.by_name]
    shown = lake.read(EXPERIMENT_EXPOSURES).join(
        as_view(wanted.select(*key).distinct()), on=key, how="left_semi"
    )
    return found | {*engine.to_arrow(as_view(shown.select("unit").distinct()))["unit"].to_pylist()} - {None}
