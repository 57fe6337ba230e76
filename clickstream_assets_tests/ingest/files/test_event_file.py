import csv
import gzip
import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from clickstream_assets.errors import InputError
from clickstream_assets.ingest.files import EventFile
from clickstream_assets.simulator.stream import Faults, RecordStream
from clickstream_assets.simulator.traffic import Traffic
from clickstream_assets_tests.conftest import DATA

REES46_HEADER = (
    "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
)
UCI_HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
FLAT_EVENT = (
    b'{"user_id": "user_7", "product_id": "product_3", "product_category": "tablets", '
    b'"event_type": "view", "timestamp": "2026-01-01T00:00:00.000000+00:00"}'
)
SEARCH_EVENT = (
    b'{"timestamp": "2026-01-01T00:00:00.000000", "user_id": "user_3", '
    b'"session_id": "0b7c0c1e-7a0c-4b0e-9d4f-0b6a4f1f5a11", "event_type": "search"}'
)

needs_public_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="the public data sets are not in ../shared/data"
)


@pytest.fixture
def write(tmp_path):
    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write_file


def events_of(path):
    return [json.loads(value) for _, value in EventFile(path)]


@pytest.mark.parametrize("name", ["events.jsonl", "events.jsonl.gz", "events", "events.csv", "events.txt.gz"])
def test_json_lines_pass_through_unchanged_whatever_the_name(write, name):
    events = EventFile(write(name, FLAT_EVENT + b"\n" + SEARCH_EVENT + b"\n"))
    assert events.format == "JSON lines"
    assert list(events) == [(b"user_7", FLAT_EVENT), (b"user_3", SEARCH_EVENT)]
    assert not events.skipped


def test_compression_is_recognised_without_the_ending_gz(write):
    path = write("events.jsonl", gzip.compress(FLAT_EVENT))
    assert list(EventFile(path)) == [(b"user_7", FLAT_EVENT)]


def test_blank_lines_are_counted_and_line_ends_of_windows_and_byte_order_marks_are_no_content(write):
    events = EventFile(write("e.jsonl", b"\xef\xbb\xbf\r\n" + FLAT_EVENT + b"\r\n\n  \n" + SEARCH_EVENT))
    assert [value for _, value in events] == [FLAT_EVENT, SEARCH_EVENT]
    assert events.skipped == {"blank_line": 3}


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (b'{"user_id": 7}', b"7"),
        (b'{"user_id": null}', None),
        (b'{"user_id": {"id": 1}}', None),
        (b'{"anonymous_id": "x", "session_id": "s"}', b"x"),
        (b'{"user_id": null, "session_id": "s"}', b"s"),
        (b'{"event_type": "view"}', None),
        (b'{"user_id": "user_1", "event', None),
        (b'["user_1"]', None),
        (b"no JSON at all", None),
        (b'{"user_id": "caf\xe9"}', None),
        ('{"user_id": "café"}'.encode(), "café".encode()),
    ],
)
def test_broken_lines_are_kept_for_the_pipeline_and_keyed_where_the_user_can_be_read(write, line, key):
    assert list(EventFile(write("e.jsonl", FLAT_EVENT + b"\n" + line)))[1] == (key, line)


def test_a_file_of_simulated_records_reads_back_as_it_was_even_if_it_begins_with_a_broken_one(write):
    traffic = Traffic(50, 20, seed=5, start=datetime(2026, 1, 1, tzinfo=UTC), events=800, seconds=86_400)
    made = [r.value for r in RecordStream(traffic, Faults(duplicate=0.1, conflicting=0.1, malformed=0.4))]
    made.insert(0, b'"user_1')
    assert [value for _, value in EventFile(write("e.jsonl", b"\n".join(made)))] == made


def test_rees46_rows_become_events(write):
    rows = (
        "2019-10-01 00:00:00 UTC,cart,1004856,2053013555631882655,electronics.smartphone,samsung,33.20,"
        "513903572,9333dfbd\n"
        "2019-10-01 00:00:01 UTC,view,100,205,,,0.00,554748717,\n"
        "not a time,purchase,100,,,,n/a,,s\n"
    )
    events = EventFile(write("sample.csv", REES46_HEADER + rows))
    assert events.format == "REES46"
    (first_key, first), (_, second), (third_key, third) = events
    assert first_key == b"513903572"
    assert json.loads(first) == {
        "event_type": "cart",
        "user_id": "513903572",
        "timestamp": "2019-10-01T00:00:00Z",
        "product_id": "1004856",
        "session_id": "9333dfbd",
        "product_category": "electronics.smartphone",
        "brand": "samsung",
        "price": 33.20,
        "properties": {"category_id": "2053013555631882655"},
    }
    assert b'"price":33.20,' in first
    assert json.loads(second) == {
        "event_type": "view",
        "user_id": "554748717",
        "timestamp": "2019-10-01T00:00:01Z",
        "product_id": "100",
        "price": 0.0,
        "properties": {"category_id": "205"},
    }
    # What is wrong in a row is for the pipeline to find, so it goes on as it is.
    assert third_key == b"s"
    assert json.loads(third)["timestamp"] == "not a time"
    assert json.loads(third)["price"] == "n/a"
    assert json.loads(third)["user_id"] == ""


def test_columns_may_come_in_another_order_and_with_others(write):
    path = write(
        "e.csv",
        "user_id,extra,event_time,event_type,product_id,category_id,category_code,brand,price,user_session\n"
        "u1,x,2019-10-01 00:00:00 UTC,view,p1,c1,,,1.50,s1\n",
    )
    assert events_of(path) == [
        {
            "event_type": "view",
            "user_id": "u1",
            "timestamp": "2019-10-01T00:00:00Z",
            "product_id": "p1",
            "session_id": "s1",
            "price": 1.5,
            "properties": {"category_id": "c1"},
        }
    ]


def test_uci_rows_become_purchases_and_refunds_and_others_are_counted_by_the_first_reason(write):
    rows = (
        '536365,85123A,"HEART, WHITE ""LARGE""",6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n'
        "536366,22633,HAND WARMER,1,2010-12-01 08:28:00,1.85,,United Kingdom\n"
        "C536379,D,Discount,-1,2010-12-01 09:41:00,27.50,14527.0,United Kingdom\n"
        "536414,22139,,56,2010-12-01 11:52:00,0.0,12345.0,United Kingdom\n"
        "C536380,22139,,-5,2010-12-01 11:52:00,0.0,,United Kingdom\n"
        "536415,22139,,0,2010-12-01 11:52:00,0.0,12345.0,United Kingdom\n"
        "536416,22139,,2,2010-12-01 11:52:00,1.0,12345.0,\n"
    )
    events = EventFile(write("retail.csv.gz", UCI_HEADER + rows))
    assert events.format == "UCI Online Retail"
    assert [(key, json.loads(value)) for key, value in events] == [
        (
            b"17850",
            {
                "event_type": "purchase",
                "user_id": "17850",
                "timestamp": "2010-12-01T08:26:00",
                "product_id": "85123A",
                "price": 2.55,
                "currency": "GBP",
                "quantity": 6,
                "order_id": "536365",
                "properties": {"description": 'HEART, WHITE "LARGE"', "country": "United Kingdom"},
            },
        ),
        (
            b"14527",
            {
                "event_type": "refund",
                "user_id": "14527",
                "timestamp": "2010-12-01T09:41:00",
                "product_id": "D",
                "price": 27.5,
                "currency": "GBP",
                "quantity": 1,
                "order_id": "C536379",
                "properties": {"description": "Discount", "country": "United Kingdom"},
            },
        ),
        (
            b"12345",
            {
                "event_type": "purchase",
                "user_id": "12345",
                "timestamp": "2010-12-01T11:52:00",
                "product_id": "22139",
                "price": 1.0,
                "currency": "GBP",
                "quantity": 2,
                "order_id": "536416",
            },
        ),
    ]
    assert events.skipped == {"no_customer": 2, "no_quantity": 1, "no_price": 1}


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("12/1/2010 8:26", "2010-12-01T08:26:00"),
        ("9/30/2011 17:05:09", "2011-09-30T17:05:09"),
        ("2010-12-01 08:26", "2010-12-01T08:26"),
        ("12/1/10 8:26", "2010-12-01T08:26:00"),
        ("13/12/2010 08:26", "2010-12-13T08:26:00"),
        ("13-12-2010 08:26", "2010-12-13T08:26:00"),
        ("13.12.2010 08:26", "2010-12-13T08:26:00"),
        ("12/1/2010 12:26:00 PM", "2010-12-01T12:26:00"),
        ("2010/12/01 8:26", "2010-12-01T08:26:00"),
    ],
)
def test_uci_times_are_read_in_the_forms_of_the_data_set_and_its_copies(write, written, sent):
    row = f"536365,85123A,HEART,6,{written},2.55,17850,United Kingdom\n"
    (event,) = events_of(write("retail.csv", UCI_HEADER + row))
    assert event["timestamp"] == sent


@pytest.mark.parametrize("written", ["2/30/2011 8:26", "30/13/2010 8:26", "2010/13/01 8:26", "soon", ""])
def test_uci_rows_of_a_time_in_no_known_form_are_malformed(write, written):
    events = EventFile(
        write("retail.csv", f"{UCI_HEADER}536365,85123A,HEART,6,{written},2.55,17850,United Kingdom\n")
    )
    assert list(events) == []
    assert events.skipped == {"malformed_row": 1}
    assert f"InvoiceDate {written!r}" in events.examples[0]


def test_malformed_rows_are_counted_and_the_first_are_shown_with_their_lines(write):
    good = '536365,85123A,"TWO\nLINES",6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n'
    bad = "536365,85123A,6\n" + "536365,85123A,X,six,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n"
    events = EventFile(write("retail.csv", UCI_HEADER + good + "\n" + bad + "a,b\n" * 10 + good))
    assert len(list(events)) == 2
    assert events.skipped == {"malformed_row": 12, "blank_line": 1}
    assert events.examples[0] == "line 5: 3 columns instead of 8"
    assert events.examples[1].startswith("line 6: ")
    assert "six" in events.examples[1]
    assert len(events.examples) == 5


def test_each_iteration_reads_and_counts_anew(write):
    events = EventFile(write("retail.csv", UCI_HEADER + "a,b\n"))
    assert [list(events), list(events)] == [[], []]
    assert events.skipped == {"malformed_row": 1}


@pytest.mark.parametrize("name", ["e.jsonl", "e.csv", "e.jsonl.gz"])
@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file_is_named(write, name, content):
    with pytest.raises(InputError, match="is empty"):
        EventFile(write(name, content))


PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4


@pytest.mark.parametrize("name", ["e.jsonl", "e.ndjson", "e.jsonl.gz"])
@pytest.mark.parametrize("content", [PNG, b"{\x00\n" + PNG, b"{\n  'a': 1\n}\n", b"[1]\n" * 200 + b"{}"])
def test_a_file_that_is_not_what_its_name_says_is_refused(write, name, content):
    data = gzip.compress(content) if name.endswith(".gz") else content
    with pytest.raises(InputError, match=rf"{name} is no JSON lines.*none of its first 100 lines"):
        EventFile(write(name, data))


@pytest.mark.parametrize("content", [REES46_HEADER, UCI_HEADER])
def test_a_header_alone_is_a_file_without_events(write, content):
    assert events_of(write("e.csv", content)) == []


def test_a_truncated_gzip_file_gives_what_is_readable_and_then_says_so(write):
    whole = gzip.compress(b"\n".join(b'{"user_id": "user_%d"}' % number for number in range(100_000)))
    path = write("e.jsonl", whole[: len(whole) // 2])
    events = iter(EventFile(path))
    read = 0

    def read_all():
        nonlocal read
        for _ in events:
            read += 1

    with pytest.raises(InputError, match="truncated, after") as caught:
        read_all()
    assert read > 10_000
    assert f"after {read} readable events" in str(caught.value)


RETAIL_ROW = "536365,85123A,{},6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n"
DAMAGED = bytearray(gzip.compress(b"\n".join(b'{"user_id": "%d"}' % n for n in range(200_000))))
DAMAGED[len(DAMAGED) // 2 : len(DAMAGED) // 2 + 20] = b"\xff" * 20


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nothing.jsonl", None, r"nothing\.jsonl does not exist"),
        ("", None, "is a folder"),
        (
            "e.csv",
            "when,who,what\n1,2,3\n",
            "'when,who,what'.*JSON lines.*REES46.*UCI Online Retail.*--map timestamp=when",
        ),
        (
            "e.csv",
            "event_type,user_id,event_time\nview,u,1\n",
            "It has no column of the name timestamp: say which .*--map timestamp=event_time$",
        ),
        ("e.jsonl", gzip.compress(FLAT_EVENT)[:12], "truncated or damaged gzip"),
        ("e.jsonl", bytes(DAMAGED), "is damaged"),
        ("e.csv", (UCI_HEADER + RETAIL_ROW.format("CAFÉ")).encode("latin-1"), r"not UTF-8: byte 0xc9.*iconv"),
        ("e.csv", UCI_HEADER + RETAIL_ROW.format('"OPEN') + "x" * 200_000, r"line 3: .*quote"),
    ],
    ids=["missing", "folder", "unknown header", "no time", "cut off", "damaged", "encoding", "open quote"],
)
def test_a_file_that_cannot_be_read_is_named_with_what_is_wrong(write, tmp_path, name, content, message):
    path = tmp_path / name if content is None else write(name, content)
    with pytest.raises(InputError, match=message):
        list(EventFile(path))


@needs_public_data
def test_the_rees46_file_gives_the_counts_of_its_description():
    events = EventFile(DATA / "rees46_multicategory_20191001_train.csv.gz")
    values = [value for _, value in events]
    decoded = [json.loads(value, parse_float=Decimal) for value in values]
    assert (events.format, dict(events.skipped), len(values)) == ("REES46", {}, 14_074)
    assert len(set(values)) == 14_073
    assert Counter(event["event_type"] for event in decoded) == {"view": 13_775, "purchase": 175, "cart": 124}
    assert len({event["user_id"] for event in decoded}) == 3_633
    assert len({event["product_id"] for event in decoded}) == 5_543
    assert len({event["session_id"] for event in decoded}) == 4_079
    assert len({event["properties"]["category_id"] for event in decoded}) == 408
    assert len({event["brand"] for event in decoded if "brand" in event}) == 783
    assert sum("product_category" not in event for event in decoded) == 4_720
    assert sum("brand" not in event for event in decoded) == 2_039
    purchases = [event for event in decoded if event["event_type"] == "purchase"]
    assert len({event["user_id"] for event in purchases}) == 156
    assert sum(event["price"] for event in purchases) == Decimal("47794.53")
    times = [event["timestamp"] for event in decoded]
    assert (min(times), max(times)) == ("2019-10-01T00:00:00Z", "2019-10-01T02:50:00Z")


@pytest.mark.long
@needs_public_data
def test_the_uci_file_gives_the_counts_of_its_description():
    path = DATA / "uci_online_retail_20101201-20110930.csv.gz"
    events = EventFile(path)
    everything = [json.loads(value, parse_float=Decimal) for _, value in events]
    decoded = [event for event in everything if event["event_type"] == "purchase"]
    refunds = [event for event in everything if event["event_type"] == "refund"]
    assert events.format == "UCI Online Retail"
    assert (len(decoded), len(refunds)) == (266_495, 6_357)
    assert len(everything) + events.skipped.total() == 370_931
    assert events.skipped == {"no_customer": 98_056, "no_price": 23}
    assert len({event["user_id"] for event in decoded}) == 3_616
    assert len({event["product_id"] for event in decoded}) == 3_508
    assert len({(event["user_id"], event["product_id"]) for event in decoded}) == 188_843
    revenue = sum(event["quantity"] * event["price"] for event in decoded)
    assert round(revenue, 2) == Decimal("6192078.94")
    assert not any("." in event["user_id"] for event in decoded)
    with gzip.open(path, "rt", encoding="utf-8", newline="") as text:
        of_customers = [
            row for row in csv.DictReader(text) if row["CustomerID"] and float(row["UnitPrice"]) > 0
        ]
    for event, row in zip(everything, of_customers, strict=True):
        assert event["order_id"] == row["InvoiceNo"]
        assert event["quantity"] == abs(int(row["Quantity"]))
        assert event["event_type"] == ("refund" if row["InvoiceNo"].startswith("C") else "purchase")
        assert event["properties"].get("description", "") == row["Description"]
        assert event["timestamp"].replace("T", " ") == row["InvoiceDate"]
