"""Columns of a file that nobody knows are fields where somebody says so."""

from __future__ import annotations

import json
import shlex
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from clickstream_assets.errors import InputError
from clickstream_assets.ingest.files import Columns, EventFile, UnknownFormatError
from clickstream_assets.ingest.files.columns import missing_fields

ROWS = [
    {
        "when": "2024-05-02 10:00:00",
        "who": "u1",
        "sku": "P1",
        "user_id": "shop-1",
        "amount": "12.50",
        "colour": "red",
    },
    {
        "when": "2024-05-02 10:01:00",
        "who": "u2",
        "sku": "P2",
        "user_id": "shop-1",
        "amount": "7",
        "colour": "",
    },
]
SAID = Columns.of(
    ["timestamp=when", "user_id=who", "product_id=sku", "price=amount"], ["event_type=purchase", "quantity=2"]
)
EXPECTED = [
    {"timestamp": "2024-05-02 10:00:00", "user_id": "u1", "product_id": "P1", "price": 12.5, "colour": "red"},
    {"timestamp": "2024-05-02 10:01:00", "user_id": "u2", "product_id": "P2", "price": 7},
]
ALL = {"event_type": "purchase", "quantity": 2}


def as_csv(separator: str) -> str:
    lines = [separator.join(ROWS[0]), *(separator.join(row.values()) for row in ROWS)]
    return "\n".join(lines) + "\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "orders"


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"], ids=["comma", "semicolon", "tab", "pipe"])
def test_columns_of_a_csv_are_the_fields_that_somebody_says(path, separator):
    path.write_text(as_csv(separator))
    events = EventFile(path, SAID)
    found = list(events)
    assert events.format == "CSV, columns by --map"
    assert [json.loads(value) for _, value in found] == [{**row, **ALL} for row in EXPECTED]
    assert [key for key, _ in found] == [b"u1", b"u2"]


def test_columns_of_parquet_are_too(path):
    parquet.write_table(pa.Table.from_pylist(ROWS), path)
    assert [json.loads(value) for _, value in EventFile(path, SAID)] == [{**row, **ALL} for row in EXPECTED]


@pytest.mark.parametrize("form", ["lines", "array"])
def test_names_and_paths_of_json_are_too(path, form):
    rows = [
        {"when": 1714644000, "user": {"id": 7, "name": "x"}, "a.b": "P1", "price": 12.50, "n": 1},
        {"when": 1714644060, "user": None, "price": 3},
    ]
    path.write_text("\n".join(map(json.dumps, rows)) if form == "lines" else json.dumps(rows))
    said = Columns.of(["timestamp=when", "user_id=user.id", "product_id=a.b"], ["event_type=view"])
    assert [json.loads(value) for _, value in EventFile(path, said)] == [
        {
            "timestamp": 1714644000,
            "user_id": 7,
            "user": {"id": 7, "name": "x"},
            "product_id": "P1",
            "price": 12.5,
            "n": 1,
            "event_type": "view",
        },
        {"timestamp": 1714644060, "user": None, "price": 3, "event_type": "view"},
    ]


def test_columns_without_a_header_have_numbers(path):
    path.write_text("2024-05-02 10:00:00;u1;P1\n2024-05-02 10:01:00;u2;P2\n")
    said = Columns.of(["timestamp=1", "user_id=2", "product_id=3"], ["event_type=view"])
    assert [json.loads(value) for _, value in EventFile(path, said)] == [
        {
            "event_type": "view",
            "timestamp": f"2024-05-02 10:0{n}:00",
            "user_id": f"u{n + 1}",
            "product_id": f"P{n + 1}",
        }
        for n in range(2)
    ]


def test_a_value_for_all_events_makes_own_columns_whole(path):
    path.write_text("user_id,timestamp,event_type\nu1,2024-05-02T10:00:00Z,\n")
    assert [json.loads(value) for _, value in EventFile(path, Columns.of(fixed=["event_type=view"]))] == [
        {"user_id": "u1", "timestamp": "2024-05-02T10:00:00Z", "event_type": "view"}
    ]


def test_a_value_for_all_events_of_a_public_data_set_leaves_it_what_it_is(path):
    path.write_text("1,2014-04-07T10:58:00.306Z,214002,12462,1\n2,2014-04-07T14:02:36.889Z,214003,0,0\n")
    events = EventFile(path, Columns.of(fixed=["currency=EUR"]))
    assert events.format == "YOOCHOOSE buys"
    assert [(key, json.loads(value)["currency"]) for key, value in events] == [(b"1", "EUR"), (b"2", "EUR")]


@pytest.mark.parametrize(
    ("mapped", "fixed", "message"),
    [
        (["timestamp"], [], "--map timestamp: write it as FIELD=COLUMN"),
        (["=when"], [], "--map =when: write it as FIELD=COLUMN"),
        (
            ["time=when"],
            [],
            "--map time=when: an event has no field 'time'; its fields are event_type, timestamp,",
        ),
        ([], ["kind=view"], "--set kind=view: an event has no field 'kind'"),
        (["user_id=a", "user_id=b"], [], "--map says twice what user_id is"),
        (["user_id=a"], ["user_id=b"], "--map and --set both say what user_id is"),
    ],
)
def test_what_is_said_wrongly_is_named(mapped, fixed, message):
    with pytest.raises(InputError, match=message):
        Columns.of(mapped, fixed)


DAYS = {
    "2024-05-02": "2024-05-02T12:30:00",
    "20240502": "2024-05-02T12:30:00",
    "20240502.0": "2024-05-02T12:30:00",
    " 2024-05-02 ": "2024-05-02T12:30:00",
}
NO_DAYS = ["2024-05-02T10:00:00Z", "2024-05-02 10:00", "1714644000", "20240532", "soon", "2/5/2024"]


@pytest.mark.parametrize("form", ["JSON", "CSV", "JSON by --map", "CSV by --map", "Parquet"])
@pytest.mark.parametrize(("written", "read"), [*DAYS.items(), *((time, time) for time in NO_DAYS)])
def test_a_day_alone_is_at_the_time_that_somebody_says(path, form, written, read):
    name = "when" if "--map" in form else "timestamp"
    row = {"event_type": "purchase", "user_id": "u", name: written, "product_id": "p"}
    if form == "Parquet":
        parquet.write_table(pa.Table.from_pylist([row]), path)
    elif form.startswith("JSON"):
        path.write_text(json.dumps(row))
    else:
        path.write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    mapped = ["timestamp=when"] if "--map" in form else []
    assert [
        json.loads(value)["timestamp"] for _, value in EventFile(path, Columns.of(mapped, (), "12:30"))
    ] == [read]
    assert [json.loads(value)["timestamp"] for _, value in EventFile(path, Columns.of(mapped))] == [written]


def test_days_that_are_no_texts_are_so_too(path):
    noon = Columns.of((), (), "12:00")
    path.write_text('{"event_type": "view", "user_id": "u", "timestamp": 20240502}')
    assert [json.loads(value)["timestamp"] for _, value in EventFile(path, noon)] == ["2024-05-02T12:00:00"]
    row = {"event_type": "view", "user_id": "u", "event_timestamp": date(2024, 5, 2)}
    parquet.write_table(pa.Table.from_pylist([row]), path)
    assert [json.loads(value)["event_timestamp"] for _, value in EventFile(path, noon)] == [
        "2024-05-02T12:00:00"
    ]


@pytest.mark.parametrize("text", ["noon", "25:00", "", "12:00 PM"])
def test_a_time_of_day_that_is_none_is_named(text):
    with pytest.raises(InputError, match=f"--time-of-day {text}: write it as hours and minutes"):
        Columns.of((), (), text)


@pytest.mark.parametrize(
    ("header", "options"),
    [
        ("user_id,product_id,event_type,ts", "--map timestamp=ts"),
        (
            "Event Time,user,event_name,item_id",
            "--map event_type=event_name --map 'timestamp=Event Time' --map user_id=user --map product_id=item_id",
        ),
        (
            "order_id,CustomerID,sku,order_date",
            "--set event_type=purchase --map timestamp=order_date --map user_id=CustomerID --map product_id=sku",
        ),
        ("date,ts,uid,product_id,query", "--set event_type=view --map timestamp=ts --map user_id=uid"),
        ("a,b,c", "--set event_type=view --map timestamp=COLUMN --map user_id=COLUMN"),
        ("event_type,timestamp,visitorid,product_id", "--map user_id=visitorid"),
        ("action,event_timestamp,session_id,user", "--map event_type=action"),
    ],
)  # fmt: skip
def test_columns_names_suggest_what_to_type(path, header, options):
    path.write_text(f"{header}\n{','.join('x' * (header.count(',') + 1))}\n")
    with pytest.raises(UnknownFormatError) as caught:
        EventFile(path)
    assert str(caught.value).endswith(f"by its columns' names perhaps with {options}")
    if "COLUMN" not in options:
        words = shlex.split(options)
        pairs = list(zip(words[::2], words[1::2], strict=True))
        mapped, fixed = ([text for option, text in pairs if option == name] for name in ("--map", "--set"))
        (event,) = [json.loads(value) for _, value in EventFile(path, Columns.of(mapped, fixed))]
        assert not missing_fields(event)


def test_a_column_that_is_not_there_is_named_with_those_that_are(path):
    said = Columns.of(["timestamp=time"])
    there = ", ".join(ROWS[0])
    path.write_text(as_csv(";"))
    with pytest.raises(
        InputError, match=f"--map timestamp=time: .*orders has no column 'time'; it has {there}"
    ):
        EventFile(path, said)
    parquet.write_table(pa.Table.from_pylist(ROWS), path)
    with pytest.raises(InputError, match=f"has no column 'time'; it has {there}"):
        EventFile(path, said)
    path.write_text("\n".join(map(json.dumps, ROWS)))
    with pytest.raises(
        InputError, match=f"no object at the beginning of .*orders has 'time'; they have {there}"
    ):
        EventFile(path, said)
    path.write_text("nothing at all\n")
    with pytest.raises(InputError, match="is neither JSON nor a table"):
        EventFile(path, said)
