"""All that the lake holds of a person: their records as they came, and their rows in each table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from clickstream_assets.analytics.identity import IdentityRules
from clickstream_assets.catalogue import IDENTITY_TIES, ITEM_KEY, TABLES, Table
from clickstream_assets.catalogue.who import PERSON_COLUMNS
from clickstream_assets.engine import as_view
from clickstream_assets.ingest.erasure import (
    KINDS,
    OF_EVENTS,
    OF_EXPOSURES,
    Identified,
    Records,
    exposures_of,
    records_of,
    with_ids,
)
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake

_OF_RECORDS = {table.name for kind in KINDS for table in (kind.raw, *kind.put_into, kind.erased)}


def rows_of_person(lake: Lake, who: Identified, settings: Settings) -> Iterator[tuple[Table, pa.Table]]:
    """Yield each table that has rows of persons, and these by their keys, in the order of the graph.

    Args:
        lake: has them.
        who: the persons.
        settings: say how records are read, and how ties are.
    """
    found: dict[str, pa.Table] = {}
    events = records_of(lake, who, IdentityRules.of(settings), ValidationRules.of(settings))
    for kind, records in ((OF_EVENTS, events), (OF_EXPOSURES, exposures_of(lake, who))):
        found |= {table.name: rows for table, rows in _by_place(lake, kind, records)}
    for table in TABLES.values():
        if not table.in_lake or not lake.exists(table):
            continue
        rows = found.get(table.name) if table.name in _OF_RECORDS else _by_ids(lake, table, who)
        if rows is not None and rows.num_rows:
            yield table, rows.sort_by([(name, "ascending") for name in table.key])


def _by_place(lake: Lake, kind: Records, records: pa.Table) -> Iterator[tuple[Table, pa.Table]]:
    for table in (kind.raw, *kind.put_into):
        key = [name for name in ITEM_KEY if name in table.by_name]
        places = records if table is kind.raw else _of(records, table)
        wanted = as_view(lake.engine.from_arrow(places.select(key)).distinct())
        rows = lake.read(table).join(wanted, on=key, how="left_semi")
        yield table, lake.engine.to_arrow(as_view(rows))


def _of(records: pa.Table, table: Table) -> pa.Table:
    return records.filter(pc.equal(records["erased_from"], table.name))


def _by_ids(lake: Lake, table: Table, who: Identified) -> pa.Table | None:
    persons = who.users if table is IDENTITY_TIES else who.persons
    ids = {name: persons for name in PERSON_COLUMNS if name in table.by_name}
    return lake.engine.to_arrow(with_ids(lake.read(table), ids)) if ids else None


def as_json(rows: pa.Table) -> list[dict[str, Any]]:
    """Return rows with bytes as the text that they are, or in hexadecimal digits where they are none."""
    return [{name: _plain(value) for name, value in row.items()} for row in rows.to_pylist()]


def _plain(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"hex": value.hex()}
