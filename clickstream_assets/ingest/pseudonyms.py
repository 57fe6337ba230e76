"""Pseudonyms at the door of the lake: what is written to it names nobody by an id of theirs.

Parsing leaves out what nobody needs (`parse_batches`): bytes, user agents, and values of fields that cannot be read.
Ids are replaced here, a batch's at once, before anything is compared or written; so repetitions, ties and visits are
found by pseudonyms as they would be by ids.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import pyarrow as pa

from clickstream_assets.catalogue.who import ID_KINDS, kind_and_id, person_of
from clickstream_assets.engine import DataFrame, Engine, as_view, functions_of

PseudonymsOf = Callable[[str, Collection[str]], Mapping[str, str]]
"""Returns pseudonyms of ids of a kind, as `stores.postgres.pseudonyms.pseudonyms_of` does."""

Kept = Mapping[str, Mapping[str, str]]
"""Pseudonyms by ids, by their kind."""


def with_pseudonyms(engine: Engine, parsed: DataFrame, pseudonyms_of: PseudonymsOf) -> DataFrame:
    """Return PARSED rows with pseudonyms in place of ids; computed, and to be released.

    Args:
        engine: computes.
        parsed: PARSED rows of a batch, which are read several times.
        pseudonyms_of: gives the pseudonyms.
    """
    F, _ = functions_of(parsed)
    rows, maps = parsed, []
    for column, kind in ID_KINDS.items():
        sent = parsed.select(column).where(F.col(column).isNotNull()).distinct()
        ids = engine.to_arrow(sent)[column].to_pylist()
        kept = pseudonyms_of(kind, ids)
        known = pa.table({"sent": ids, "kept": [kept[each] for each in ids]}, _MAP)
        maps.append(engine.from_arrow(known))
        its = maps[-1].select(F.col("sent").alias(f"sent_{column}"), F.col("kept").alias(f"kept_{column}"))
        rows = rows.join(its, on=F.col(column) == F.col(f"sent_{column}"), how="left")
    columns = (
        F.col(f"kept_{name}").alias(name) if name in ID_KINDS else F.col(name) for name in parsed.columns
    )
    found = engine.persist(as_view(rows.select(*columns)))
    for df in maps:
        engine.release(df)
    return found


_MAP = pa.schema([("sent", pa.string()), ("kept", pa.string())])


def replaced(batch: pa.RecordBatch, kept: Kept) -> pa.RecordBatch:
    """Return events with pseudonyms in place of ids.

    Args:
        batch: rows with some of the columns of events.
        kept: those of all ids that there are in the rows.
    """
    for column, kind in ID_KINDS.items():
        if column in batch.schema.names:
            ids = batch.column(column).to_pylist()
            names = pa.array([None if each is None else kept[kind][each] for each in ids], pa.string())
            batch = batch.set_column(batch.schema.names.index(column), batch.schema.field(column), names)
    return batch


def persons_of(persons: Iterable[str], pseudonyms_of: PseudonymsOf) -> dict[str, str]:
    """Return persons by pseudonyms, by what their sender's ids name them."""
    named = {person: kind_and_id(person) for person in persons}
    by_kind: dict[str, list[str]] = {}
    for kind, sent_id in named.values():
        by_kind.setdefault(kind, []).append(sent_id)
    kept = {kind: pseudonyms_of(kind, ids) for kind, ids in by_kind.items()}
    return {person: person_of(kind, kept[kind][sent_id]) for person, (kind, sent_id) in named.items()}
