"""Persons are taken out of the lake: nothing of theirs stays, and each record is in one place still."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clickstream_assets.analytics.identity import IdentityRules
from clickstream_assets.catalogue import (
    ERASED_RECORDS,
    EVENTS,
    IDENTITY_CHANGES,
    IDENTITY_TIES,
    ITEM_KEY,
    RAW_EVENTS,
    Table,
)
from clickstream_assets.engine import DuckDBEngine, Engine
from clickstream_assets.errors import InputError
from clickstream_assets.ingest.classification import (
    CLASSIFIED_TABLES,
    classify_records,
    counts_by_hour,
    misclassified_records,
)
from clickstream_assets.ingest.erasure import (
    identify,
    note,
    records_at,
    records_of,
    refuse_shared,
    take_out,
    untie,
)
from clickstream_assets.ingest.ties import update_ties
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake
from clickstream_assets_tests.analytics.records import RULES, VIEW, encode, raw_table

WHO = IdentityRules.of(Settings(_env_file=None))
ANN_BY_DEVICE, ANN, ANN_TIED, ANN_AGAIN, ANN_LATER, ANN_BROKEN, ANN_TORN, ANN_LINES = range(8)
BOB, BOB_ON_THE_FAMILY_DEVICE, ANN_ON_THE_FAMILY_DEVICE, BOB_TIED_TO_FAMILY = range(8, 12)
FAMILY_ANN, BOB_NAMES_ANN = 12, 13
OF_ANN = {*range(8), ANN_ON_THE_FAMILY_DEVICE, FAMILY_ANN}


def sent(event_id: str, time: str = "10:00", **fields: Any) -> dict[str, Any]:
    whole = {**VIEW, "user_id": None, "event_id": event_id, "timestamp": f"2024-05-01T{time}:00Z", **fields}
    return {name: value for name, value in whole.items() if value is not None}


def records() -> list[bytes]:
    """What two persons did, each with a device of their own, and both with one of the family."""
    ann, bob = {"user_id": "ann-7"}, {"user_id": "bob-8"}
    line = {"event_type": "purchase", "order_id": "o1", "price": 5, "quantity": 1}
    found = {
        ANN_BY_DEVICE: encode(sent("e0", "08:00", anonymous_id="phone-a")),
        ANN: encode(sent("e1", "09:00", **ann)),
        ANN_TIED: encode(sent("e2", "09:30", anonymous_id="phone-a", **ann)),
        ANN_AGAIN: encode(sent("e1", "09:00", **ann)),
        ANN_LATER: encode(sent("e1", "09:00", product_id="p9", **ann)),
        ANN_BROKEN: encode(sent("e5", event_type="teleport", **ann)),
        ANN_TORN: b'{"event_type": "view", "user_id": "ann-7", "timest',
        ANN_LINES: encode(
            {**sent("e7", "11:00", **ann, **line), "items": [{"product_id": "p1"}, {"product_id": "p2"}]}
        ),
        BOB: encode(sent("e8", "10:00", anonymous_id="phone-b", **bob)),
        BOB_ON_THE_FAMILY_DEVICE: encode(sent("e9", "12:30", anonymous_id="tv")),
        ANN_ON_THE_FAMILY_DEVICE: encode(sent("e10", "13:30", anonymous_id="tv")),
        BOB_TIED_TO_FAMILY: encode(sent("e11", "12:00", anonymous_id="tv", **bob)),
        FAMILY_ANN: encode(sent("e12", "13:00", anonymous_id="tv", **ann)),
        BOB_NAMES_ANN: encode(
            sent("e13", "14:00", event_type="teleport", properties={"friend": "ann-7"}, **bob)
        ),
    }
    return [found[number] for number in sorted(found)]


def lake_of(path: Path, engine: Engine) -> Lake:
    lake = Lake(str(path), engine)
    lake.append_batch(RAW_EVENTS, engine.from_arrow(raw_table(records())), 1)
    classify_records(lake, RULES)
    update_ties(lake, WHO)
    return lake


def rows(lake: Lake, table: Table) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = lake.engine.to_arrow(lake.read(table)).to_pylist()
    return sorted(found, key=lambda row: str([row[name] for name in table.key]))


def erase(lake: Lake, number: int, *persons: str) -> list[date]:
    who = identify(lake, persons)
    note(lake, number, records_of(lake, who, WHO, RULES))
    days = take_out(lake, [number])
    untie(lake, who)
    return days


def texts_in(lake: Lake) -> str:
    return " ".join(
        repr(rows(lake, table)) for table in (RAW_EVENTS, *CLASSIFIED_TABLES, IDENTITY_TIES, IDENTITY_CHANGES)
    )


@pytest.mark.slow
@pytest.mark.long_on_spark
def test_a_person_is_gone_from_all_tables_and_all_others_stay(engine: Engine, tmp_path: Path):
    lake = lake_of(tmp_path / "lake", engine)
    before = {table: rows(lake, table) for table in (RAW_EVENTS, *CLASSIFIED_TABLES, IDENTITY_TIES)}
    assert erase(lake, 1, "ann-7") == [date(2024, 5, 1)]
    after = {table: rows(lake, table) for table in before}
    for table in CLASSIFIED_TABLES[:-1]:
        assert after[table] == [row for row in before[table] if row["offset"] not in OF_ANN]
    assert {row["offset"] for row in after[ERASED_RECORDS]} == OF_ANN
    for old, new in zip(before[RAW_EVENTS], after[RAW_EVENTS], strict=True):
        assert new == (old | {"key": None, "value": None} if old["offset"] in OF_ANN else old)
    # The family's device is Bob's still, from when he was first tied to it.
    assert after[IDENTITY_TIES] == [row for row in before[IDENTITY_TIES] if row["user_id"] == "bob-8"]
    assert misclassified_records(lake, 1, first_batch=1) == []
    (hour,) = counts_by_hour(lake, 1)
    assert (hour["raw_events"], hour["items"], hour["erased_records"]) == (14, 15, 11)
    texts = texts_in(lake)
    assert "phone-a" not in texts
    # Once: Bob's own word of her.
    assert texts.count("ann-7") == 2  # In raw_events and in rejected_events.


@pytest.mark.slow
def test_an_erasure_goes_on_where_it_was_killed_and_can_be_repeated(
    duckdb_engine: DuckDBEngine, tmp_path: Path
):
    whole = lake_of(tmp_path / "whole", duckdb_engine)
    erase(whole, 1, "ann-7")
    lake = lake_of(tmp_path / "lake", duckdb_engine)
    who = identify(lake, ["ann-7"])
    note(lake, 1, records_of(lake, who, WHO, RULES))
    # Killed after the events alone have gone: nothing says any more whose the others are, but the notes.
    lake.delete(EVENTS, '"offset" < 8')
    note(lake, 1, records_of(lake, who, WHO, RULES))
    for _ in range(2):
        take_out(lake, [1])
        untie(lake, who)
    for table in (RAW_EVENTS, *CLASSIFIED_TABLES, IDENTITY_TIES):
        assert rows(lake, table) == rows(whole, table)


@pytest.mark.slow
def test_a_lake_made_anew_leaves_out_what_was_erased(duckdb_engine: DuckDBEngine, tmp_path: Path):
    erased = lake_of(tmp_path / "erased", duckdb_engine)
    erase(erased, 1, "ann-7")
    places = duckdb_engine.to_arrow(erased.read(ERASED_RECORDS)).select(ITEM_KEY)
    lake = lake_of(tmp_path / "anew", duckdb_engine)
    note(lake, 1, records_at(lake, places))
    take_out(lake, [1])
    for table in (RAW_EVENTS, *CLASSIFIED_TABLES):
        assert rows(lake, table) == rows(erased, table)


@pytest.mark.slow
def test_tables_that_were_put_back_alone_do_not_take_erased_records_for_others(
    duckdb_engine: DuckDBEngine, tmp_path: Path
):
    lake = lake_of(tmp_path / "lake", duckdb_engine)
    erase(lake, 1, "ann-7")
    raw = duckdb_engine.to_arrow(lake.read(RAW_EVENTS))
    noted = duckdb_engine.to_arrow(lake.read(ERASED_RECORDS))
    anew = Lake(str(tmp_path / "anew"), duckdb_engine)
    anew.append_batch(RAW_EVENTS, duckdb_engine.from_arrow(raw), 1)
    note(anew, 1, noted.drop_columns(["erasure"]))
    classify_records(anew, RULES)
    for table in CLASSIFIED_TABLES:
        assert rows(anew, table) == rows(lake, table)


@pytest.mark.slow
def test_a_person_comes_back_as_a_new_one(duckdb_engine: DuckDBEngine, tmp_path: Path):
    lake = lake_of(tmp_path / "lake", duckdb_engine)
    erase(lake, 1, "ann-7")
    again = raw_table([encode(sent("e20", "16:00", user_id="ann-7"))], 2, first_offset=20)
    lake.append_batch(RAW_EVENTS, duckdb_engine.from_arrow(again), 2)
    assert classify_records(lake, RULES) == {"events": 1}
    assert misclassified_records(lake, 2, first_batch=1) == []
    assert erase(lake, 2, "ann-7") == [date(2024, 5, 1)]
    assert [row["offset"] for row in rows(lake, ERASED_RECORDS) if row["erasure"] == 2] == [20]


@pytest.mark.slow
def test_a_visitor_is_the_user_whom_the_device_was_tied_to(duckdb_engine: DuckDBEngine, tmp_path: Path):
    lake = lake_of(tmp_path / "lake", duckdb_engine)
    assert identify(lake, ["anonymous:phone-a"]) == identify(lake, ["ann-7"])
    who = identify(lake, ["ann-7"])
    assert (who.users, who.visitors, who.shared) == ({"ann-7"}, {"phone-a"}, {"tv"})
    assert who.persons == {"ann-7", "anonymous:phone-a"}
    with pytest.raises(InputError, match="anonymous:tv was tied to several users, ann-7, bob-8"):
        refuse_shared(lake, ["anonymous:tv"])
    refuse_shared(lake, ["anonymous:tv", "ann-7", "bob-8"])
    both = identify(lake, ["ann-7", "bob-8"])
    assert (both.visitors, both.shared) == ({"phone-a", "phone-b", "tv"}, frozenset())


@pytest.mark.slow
def test_nobody_is_erased_for_a_person_who_is_not_there(duckdb_engine: DuckDBEngine, tmp_path: Path):
    lake = lake_of(tmp_path / "lake", duckdb_engine)
    assert records_of(lake, identify(lake, ["eve"]), WHO, RULES).num_rows == 0
    assert identify(lake, ["session:s1"]).sessions == {"s1"}


def test_conditions_name_no_person(duckdb_engine: DuckDBEngine, tmp_path: Path):
    lake = lake_of(tmp_path / "lake", duckdb_engine)
    erase(lake, 1, "ann-7")
    logs = [path.read_bytes() for path in (tmp_path / "lake").glob("*/_delta_log/*.json")]
    assert logs
    assert not any(b"ann-7" in log or b"phone-a" in log for log in logs)
    assert isinstance(rows(lake, ERASED_RECORDS)[0]["offset"], int)
    assert pa.types.is_int64(ERASED_RECORDS.arrow.field("erasure").type)
