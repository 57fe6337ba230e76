"""A table's cells without a value are none, whatever word stands for that, and a row of such cells is a blank line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from clickstream_assets.ingest.files import Columns, EventFile
from clickstream_assets_tests.ingest.files.test_kinds import (
    CUSTOMERS,
    ITEMS,
    ORDERS,
    TABLES,
    WITHOUT_HEADER,
    events_of,
)

TEXT_WORDS = ["NA", "<NA>", "NaN", "nan", "NaT", "None", "null"]
WORDS = ["\\N", "NULL", *TEXT_WORDS]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def values_of(events: EventFile) -> list[Any]:
    return [json.loads(value) for _, value in events]


def as_parquet(path: Path, content: str) -> None:
    """Write a CSV's cells as texts, and its empty ones as nulls."""
    header, *rows = csv.reader(io.StringIO(content))
    columns = [[row[place] or None for row in rows] for place in range(len(header))]
    parquet.write_table(
        pa.table({name: pa.array(column, pa.string()) for name, column in zip(header, columns, strict=True)}),
        path,
    )


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("blank", ["", " , ,", "NULL,\\N,"], ids=["empty", "blanks", "words"])
def test_rows_of_cells_without_a_value_are_blank_lines(path, name, blank):
    path.write_text(TABLES[name])
    as_published = values_of(EventFile(path))
    header, *rows = TABLES[name].splitlines()
    row = blank + "," * (header.count(",") - blank.count(","))
    path.write_text("\n".join([header, row, *rows, row, ",", ""]))
    events = EventFile(path)
    assert values_of(events) == as_published != []
    assert events.skipped == {"blank_line": 3}


@pytest.mark.parametrize("name", WITHOUT_HEADER)
def test_they_are_also_in_tables_without_a_header(path, name):
    _, *rows = TABLES[name].splitlines()
    path.write_text("\n".join([*rows, "," * rows[0].count(",")]))
    events = EventFile(path)
    assert len(values_of(events)) == len(rows)
    assert events.skipped == {"blank_line": 1}


@pytest.mark.parametrize("name", ["rees46", "own", "uci"])
def test_they_are_also_in_parquet(path, name):
    header, *rows = TABLES[name].splitlines()
    as_parquet(path, "\n".join([header, *rows]))
    as_published = values_of(EventFile(path))
    as_parquet(path, "\n".join([header, "," * header.count(","), *rows]))
    events = EventFile(path)
    assert values_of(events) == as_published != []
    assert events.skipped == {"blank_line": 1}


def test_a_value_for_all_events_makes_no_event_of_a_blank_line(path):
    path.write_text("user_id,timestamp\nu,2024-05-02T10:00:00Z\n,\n")
    events = EventFile(path, Columns.of((), ["event_type=page_view"]))
    assert len(values_of(events)) == 1
    assert events.skipped == {"blank_line": 1}


OWN_HEADER = (
    "event_type,timestamp,user_id,session_id,product_id,price,quantity,order_id,currency,"
    "campaign,product_category,colour\n"
)


@pytest.mark.parametrize("form", ["CSV", "Parquet"])
@pytest.mark.parametrize("word", WORDS)
def test_ids_numbers_and_times_are_missing_where_a_word_says_so(path, word, form):
    content = (
        OWN_HEADER + f"purchase,2024-05-02T10:00:00Z,{word},s,p,{word},{word},{word},{word},spring,Hats,red\n"
    )
    if form == "CSV":
        path.write_text(content)
    else:
        as_parquet(path, content)
    (value,) = values_of(EventFile(path))
    assert value == {
        "event_type": "purchase", "timestamp": "2024-05-02T10:00:00Z", "session_id": "s", "product_id": "p",
        "campaign": "spring", "product_category": "Hats", "colour": "red",
    }  # fmt: skip
    (event,) = events_of(path)
    assert (event.event_type, event.user_id, event.price, event.field_problems) == (
        "purchase",
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("word", "is_kept"), [*((word, True) for word in TEXT_WORDS), ("NULL", False), ("\\N", False)]
)
def test_a_name_or_a_category_can_be_a_word_that_is_no_number(path, word, is_kept):
    path.write_text(OWN_HEADER + f"view,2024-05-02T10:00:00Z,u,,p,,,,,{word},{word},{word}\n")
    (value,) = values_of(EventFile(path))
    texts = {name: word for name in ("campaign", "product_category", "colour") if is_kept}
    assert value == {
        "event_type": "view", "timestamp": "2024-05-02T10:00:00Z", "user_id": "u", "product_id": "p", **texts,
    }  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_public_data_sets_have_no_such_users_orders_or_prices(path, word):
    uci = TABLES["uci"].splitlines()
    path.write_text("\n".join([*uci, f"489450,22087,NA,3,2009-12-02 10:33:00,2.95,{word},NA"]))
    events = EventFile(path)
    assert len(values_of(events)) == 2
    assert events.skipped == {"no_customer": 1}
    path.write_text(TABLES["retailrocket"].replace("355,\n", f"355,{word}\n"))
    assert [one.order_id for one in events_of(path)] == [None, None, "17579", "17579", None]
    path.write_text(TABLES["rees46"].replace(",acme,489.07,520,", f",None,{word},{word},"))
    viewed = events_of(path)[0]
    assert (viewed.user_id, viewed.session_id, viewed.price, viewed.brand) == (None, "4d3b", None, "None")
    path.write_text(TABLES["diginetica"].replace("NA", word))
    assert [one.user_id for one in events_of(path)] == [None, "18"]


@pytest.mark.parametrize("name", ["retailrocket", "diginetica"])
@pytest.mark.parametrize("word", WORDS)
def test_words_for_no_value_do_not_hide_what_a_table_without_a_header_is(path, name, word):
    _, _, rows = TABLES[name].partition("\n")
    path.write_text(rows.replace("355,\n", f"355,{word}\n").replace("NA", word))
    assert EventFile(path).format.lower().startswith(name)


def test_olists_rows_without_their_ids_are_joined_with_nothing(path):
    (path.parent / "orders.csv").write_text(ORDERS + ",,delivered,2017-09-13 08:59:02\n,,,\n")
    (path.parent / "customers.csv").write_text(CUSTOMERS + ",nobody,x\n,,\n")
    (path.parent / "products.csv").write_text("product_id,product_category_name\n,hats\np1,NA\n,\n")
    path.write_text(ITEMS + ",1,,s,2017-09-19 09:45:35,58.90,13.29\n" + ",,,,,,\n" * 3)
    events = EventFile(path)
    found = values_of(events)
    assert events.skipped == {"no_order": 2, "blank_line": 3}
    assert [(one["order_id"], one["user_id"], one.get("product_category")) for one in found] == [
        ("o1", "person", "NA"), ("o1", "person", "NA"), ("o2", "person", None),
    ]  # fmt: skip
