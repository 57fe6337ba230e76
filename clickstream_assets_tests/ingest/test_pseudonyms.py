"""Pseudonyms at the door of the lake: no id comes in, and all else is as it is with ids."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clickstream_assets.analytics.identity import IdentityRules
from clickstream_assets.catalogue import (
    EVENTS,
    EXPERIMENT_EXPOSURES,
    IDENTITY_CHANGES,
    IDENTITY_TIES,
    RAW_EVENTS,
    RAW_EXPOSURES,
    REJECTED_EVENTS,
    REJECTED_EXPOSURES,
    Table,
)
from clickstream_assets.engine import DuckDBEngine, Engine
from clickstream_assets.ingest import classification
from clickstream_assets.ingest.classification import (
    CLASSIFIED_TABLES,
    classify_records,
    misclassified_records,
)
from clickstream_assets.ingest.exposures import update_exposures
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.ingest.ties import update_ties
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake, LakeError
from clickstream_assets.stores.postgres.pseudonyms import pseudonyms_of
from clickstream_assets_tests.analytics.records import VIEW, encode, raw_table
from clickstream_assets_tests.databases import fresh_database, query, with_settings
from clickstream_assets_tests.erased import texts_in_files
from clickstream_assets_tests.ingest.test_exposures import record

IDS = ("ann-7", "bob-8", "phone-a", "phone-b", "visit-1", "visit-2", "Ann's browser/1.0", "too-long-id")
KINDS = {
    "user_id": "user",
    "user_before": "user",
    "user_after": "user",
    "anonymous_id": "anonymous",
    "session_id": "session",
}


@pytest.fixture
def settings(postgres: Settings, tmp_path: Path) -> Iterator[Settings]:
    with fresh_database(postgres) as own:
        yield with_settings(own, pseudonyms=True, lake_path=str(tmp_path / "lake"))


def sent(event_id: str, time: str, **fields: Any) -> bytes:
    whole = {**VIEW, "user_id": None, "event_id": event_id, "timestamp": f"2024-05-01T{time}:00Z", **fields}
    return encode({name: value for name, value in whole.items() if value is not None})


ANN, BOB = {"user_id": "ann-7"}, {"user_id": "bob-8"}
LINE = {"event_type": "purchase", "order_id": "o1", "price": 5, "quantity": 1}
BATCHES: list[list[bytes | None]] = [
    [
        sent("e0", "08:00", anonymous_id="phone-a", session_id="visit-1"),
        sent("e1", "09:00", anonymous_id="phone-a", user_agent="Ann's browser/1.0", **ANN),
        sent("e2", "09:30", session_id="visit-2"),
        sent("e3", "10:00", **LINE, **ANN),
        # The same line again, by a page that is loaded again.
        sent("e4", "10:05", **LINE, **ANN),
        sent("e5", "11:00", event_type="teleport", **ANN),
        b'{"event_type": "view", "user_id": "ann-7", "timest',
        sent("e6", "11:30", user_id="too-long-id" * 100, anonymous_id="phone-b"),
        sent("e7", "11:40", anonymous_id="phone-b", user_agent="Googlebot/2.1"),
        None,
    ],
    [
        sent("e1", "09:00", anonymous_id="phone-a", user_agent="Ann's browser/1.0", **ANN),
        sent("e3", "10:00", **{**LINE, "quantity": 2}, **ANN),
        # By the other id of the one whose line it is.
        sent("e8", "12:00", anonymous_id="phone-a", **LINE, **ANN),
        sent("e9", "12:30", anonymous_id="phone-b", **BOB),
        sent("e10", "13:00", session_id="visit-2", **BOB),
    ],
]


def lake_of(settings: Settings, engine: Engine) -> Lake:
    lake = Lake(settings.lake, engine)
    for batch in range(1, len(BATCHES) + 1):
        land(lake, batch)
        ingest(lake, settings)
    return lake


def land(lake: Lake, batch: int) -> None:
    raw = raw_table(BATCHES[batch - 1], batch, first_offset=100 * batch)
    keys = [b"ann-7"] * raw.num_rows
    raw = raw.set_column(raw.column_names.index("key"), raw.schema.field("key"), pa.array(keys, pa.binary()))
    lake.append_batch(RAW_EVENTS, lake.engine.from_arrow(raw), batch)


def ingest(lake: Lake, settings: Settings) -> None:
    classify_records(lake, ValidationRules.of(settings), partial(pseudonyms_of, settings))
    update_ties(lake, IdentityRules.of(settings))


def rows(lake: Lake, table: Table) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = lake.engine.to_arrow(lake.read(table)).to_pylist()
    return sorted(found, key=lambda row: str([row[name] for name in table.key]))


def ids_of(settings: Settings) -> dict[tuple[str, str], str]:
    """The ids of pseudonyms, by their kind."""
    found = query(settings, "SELECT kind, pseudonym, id FROM pseudonyms")
    return {(kind, pseudonym): sent_id for kind, pseudonym, sent_id in found}


def mapped_back(row: dict[str, Any], ids: dict[tuple[str, str], str]) -> dict[str, Any]:
    return {
        name: ids[KINDS[name], value] if name in KINDS and value is not None else value
        for name, value in row.items()
    }


def without_what_is_not_kept(row: dict[str, Any]) -> dict[str, Any]:
    gone = dict.fromkeys(("key", "value", "rejected_value", "user_agent"))
    row = {name: gone.get(name, value) for name, value in row.items()}
    if row.get("field_problems"):
        row["field_problems"] = [problem | {"value": None} for problem in row["field_problems"]]
    return row


def ids_in(settings: Settings) -> list[str]:
    texts = texts_in_files(Path(settings.lake))
    return [each for each in IDS if each in texts]


@pytest.mark.slow
@pytest.mark.long_on_spark
def test_a_lake_of_pseudonyms_is_the_one_of_ids_and_has_none_in_any_file(
    engine: Engine, settings: Settings, tmp_path: Path
):
    plain = with_settings(settings, pseudonyms=False, lake_path=str(tmp_path / "plain"))
    lake, of_ids = lake_of(settings, engine), lake_of(plain, engine)
    assert ids_in(settings) == []
    assert set(ids_in(plain)) == set(IDS)
    ids = ids_of(settings)
    for table in (*CLASSIFIED_TABLES, IDENTITY_TIES, IDENTITY_CHANGES):
        kept = [mapped_back(row, ids) for row in rows(lake, table)]
        # Rows without an id in their key are in the same order by it.
        expected = [without_what_is_not_kept(row) for row in rows(of_ids, table)]
        assert sorted(map(repr, kept)) == sorted(map(repr, expected)), table.name
    assert {table.name: lake.snapshot(table).rows for table in CLASSIFIED_TABLES} == {
        "events": 8,
        "duplicate_events": 3,
        "conflicting_events": 1,
        "rejected_events": 3,
        "erased_records": 0,
    }
    assert misclassified_records(lake, 2, first_batch=1) == []
    assert {row["event_id"]: row["is_bot"] for row in rows(lake, EVENTS)}["e7"]
    assert [(row["rule"], row["value"]) for row in rows(lake, REJECTED_EVENTS)] == [
        ("unknown", None),
        ("not_json", None),
        ("tombstone", None),
    ]
    assert sorted(kind for kind, _ in ids) == ["anonymous"] * 2 + ["session"] * 2 + ["user"] * 2


@pytest.mark.slow
def test_a_run_that_was_killed_before_it_emptied_its_records_leaves_that_to_the_next(
    duckdb_engine: DuckDBEngine, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    lake = Lake(settings.lake, duckdb_engine)
    land(lake, 1)
    # Killed after it had landed.
    assert "ann-7" in ids_in(settings)
    with monkeypatch.context() as killed:
        killed.delattr(classification, "empty_taken_in")
        with pytest.raises(NameError):
            classify_records(lake, ValidationRules.of(settings), partial(pseudonyms_of, settings))
    assert lake.snapshot(EVENTS).batch == 1
    assert "ann-7" in ids_in(settings)
    with monkeypatch.context() as killed:
        # Killed after the rows were emptied, before their files were deleted.
        killed.delattr(Lake, "delete_replaced_files")
        with pytest.raises(AttributeError):
            ingest(lake, settings)
    assert "ann-7" in ids_in(settings)
    ingest(lake, settings)
    assert ids_in(settings) == []
    before = rows(lake, EVENTS)
    ingest(lake, settings)
    assert rows(lake, EVENTS) == before
    (lake_folder := Path(settings.lake) / "events").rename(lake_folder.with_name("lost"))
    with pytest.raises(LakeError, match="have no bytes in raw_events any more"):
        ingest(lake, settings)


@pytest.mark.slow
def test_what_was_shown_in_experiments_names_units_by_the_same_pseudonyms(
    duckdb_engine: DuckDBEngine, settings: Settings
):
    lake = lake_of(settings, duckdb_engine)
    shown = [
        record(exposure_id="x1", unit="ann-7"),
        record(exposure_id="x2", unit="anonymous:phone-b"),
        b'{"unit": "ann-7"',
    ]
    lake.append_batch(RAW_EXPOSURES, duckdb_engine.from_arrow(raw_table(shown)), 1)
    assert update_exposures(lake, partial(pseudonyms_of, settings)) == 1
    ids = {sent_id: kept for (_, kept), sent_id in ids_of(settings).items()}
    assert {row["unit"] for row in rows(lake, EXPERIMENT_EXPOSURES)} == {
        ids["ann-7"],
        f"anonymous:{ids['phone-b']}",
    }
    assert [(row["rule"], row["value"]) for row in rows(lake, REJECTED_EXPOSURES)] == [("not_json", None)]
    assert ids_in(settings) == []
