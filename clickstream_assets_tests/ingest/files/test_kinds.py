"""Each kind of file gives the events that its rows say, however a copy of it is written."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from clickstream_assets.errors import InputError
from clickstream_assets.ingest.fields import Rejection, ValidationRules
from clickstream_assets.ingest.files import EventFile, skipped
from clickstream_assets.ingest.files.kinds import KINDS
from clickstream_assets.ingest.parsing import parse_record
from clickstream_assets_tests.analytics import records
from clickstream_assets_tests.analytics.records import money
from clickstream_assets_tests.conftest import DATA

NOW = 2_000_000_000_000_000
RULES = replace(records.RULES, earliest=0)
CASES = DATA.parent / "cases"

OTTO = (
    '{"session": 0, "events": [{"aid": 7, "ts": 1659304800025, "type": "clicks"}, '
    '{"aid": 7, "ts": 1659304860025, "type": "carts"}, {"aid": 7, "ts": 1659304920025, "type": "orders"}]}\n'
    '{"session": 1, "events": [{"aid": 0, "ts": 1659304800025, "type": "clicks"}]}\n'
)
RETAILROCKET = (
    "timestamp,visitorid,event,itemid,transactionid\n"
    "1433221332117,0,view,355,\n1433221392117,0,addtocart,355,\n"
    "1433221452117,0,transaction,355,17579\n1433221452117,0,transaction,356,17579\n1433221999827,1,view,318,\n"
)
OWN = (
    "event_id,event_type,user_id,timestamp,product_id,product_category,price,quantity,currency,order_id\n"
    "1,view,u1,2024-05-02T10:00:00Z,P1,Hats,12.00,,EUR,\n"
    '2,purchase,u1,2024-05-02T10:05:00Z,P1,"Hats, caps",12.00,2,EUR,O1\n'
)
REES46 = (
    "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
    "2019-11-01 00:00:00 UTC,view,100,205,electronics.smartphone,acme,489.07,520,4d3b\n"
    "2019-11-01 00:00:05 UTC,cart,100,205,,,489.07,520,4d3b\n"
)
YOOCHOOSE_CLICKS = (
    "1,2014-04-07T10:51:09.277Z,214001,0\n1,2014-04-07T10:54:09.868Z,214002,7\n"
    "2,2014-04-07T13:56:37.614Z,214003,S\n2,2014-04-07T13:57:00.000Z,214003,2089046275\n"
)
YOOCHOOSE_BUYS = "1,2014-04-07T10:58:00.306Z,214002,12462,1\n2,2014-04-07T14:02:36.889Z,214003,0,0\n"
TAOBAO = "1,100,2520,pv,1511544070\n1,100,2520,fav,1511544080\n1,100,2520,cart,1511544090\n2,101,2520,buy,1511544100\n"
DIGINETICA_VIEWS = (
    "sessionId;userId;itemId;timeframe;eventdate\n1;NA;81766;526309;2016-05-09\n2;18;31331;100;2016-05-10\n"
)
DIGINETICA_PURCHASES = (
    "sessionId;userId;timeframe;eventdate;ordernumber;itemId\n2;18;9000;2016-05-10;16421;25911\n"
    "2;18;9000;2016-05-10;16421;175\n"
)
UCI = (
    "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country\n"
    '489434,85048,"LIGHTS, 12",12,2009-12-01 07:45:00,6.95,13085.0,United Kingdom\n'
    "C489449,22087,PAPER,-3,2009-12-01 10:33:00,2.95,16321.0,Australia\n"
)


def judged(events: EventFile, rules: ValidationRules = RULES) -> Iterator[Any]:
    """What the pipeline makes of a file's records."""
    for _, value in events:
        yield from parse_record(value, NOW, rules)


def events_of(path: Path) -> list[Any]:
    return list(judged(EventFile(path)))


def kinds(path: Path) -> Counter[str]:
    found = events_of(path)
    assert not [one.args for one in found if isinstance(one, Rejection)]
    return Counter(one.event_type for one in found)


def visitors(path: Path) -> set[str]:
    return {one.user_id or one.anonymous_id or one.session_id for one in events_of(path)}


@pytest.fixture
def write(tmp_path: Path):
    def write_file(content: str, name: str = "file") -> Path:
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        return path

    return write_file


@pytest.mark.parametrize(
    ("content", "name", "types", "number_of_visitors"),
    [
        (OTTO, "OTTO sessions", {"view": 2, "add_to_cart": 1, "purchase": 1}, 2),
        (RETAILROCKET, "RetailRocket", {"view": 2, "add_to_cart": 1, "purchase": 2}, 2),
        (OWN, "CSV of own fields", {"view": 1, "purchase": 1}, 1),
        (REES46, "REES46", {"view": 1, "add_to_cart": 1}, 1),
        (YOOCHOOSE_CLICKS, "YOOCHOOSE clicks", {"view": 4}, 2),
        (YOOCHOOSE_BUYS, "YOOCHOOSE buys", {"purchase": 2}, 2),
        (
            TAOBAO,
            "Taobao UserBehavior",
            {"view": 1, "add_to_wishlist": 1, "add_to_cart": 1, "purchase": 1},
            2,
        ),
        (DIGINETICA_VIEWS, "Diginetica item views", {"view": 2}, 2),
        (DIGINETICA_PURCHASES, "Diginetica purchases", {"purchase": 2}, 1),
        (UCI, "UCI Online Retail", {"purchase": 1, "refund": 1}, 2),
    ],
    ids=lambda value: value if isinstance(value, str) and "\n" not in value else "",
)
def test_each_kind_is_recognised_and_gives_its_events(write, content, name, types, number_of_visitors):
    path = write(content)
    assert EventFile(path).format == name
    assert kinds(path) == types
    assert len(visitors(path)) == number_of_visitors


def test_visitors_of_research_files_are_anonymous_also_the_one_with_the_number_0(write):
    assert {(one.anonymous_id, one.user_id) for one in events_of(write(RETAILROCKET))} == {
        ("0", None),
        ("1", None),
    }
    assert {(one.anonymous_id, one.user_id) for one in events_of(write(OTTO))} == {("0", None), ("1", None)}
    view = events_of(write(OTTO))[3]
    assert (view.product_id, view.event_time) == ("0", 1_659_304_800_025_000)


def test_a_session_stands_for_the_visitor_and_the_order_where_there_is_nothing_else(write):
    bought, unknown = events_of(write(YOOCHOOSE_BUYS))
    assert (bought.session_id, bought.order_id, bought.user_id, bought.anonymous_id) == ("1", "1", None, None)
    assert (bought.price, bought.quantity) == (money("12462"), 1)
    assert (unknown.price, unknown.quantity) == (None, None)


def test_what_yoochoose_says_of_a_click_is_a_category_a_brand_or_an_offer(write):
    found = [
        (one.product_category, one.brand, json.loads(one.properties or "{}"))
        for one in events_of(write(YOOCHOOSE_CLICKS))
    ]
    assert found == [
        (None, None, {}),
        ("7", None, {}),
        (None, None, {"special_offer": "true"}),
        (None, "2089046275", {}),
    ]


def test_diginetica_has_users_or_sessions_and_orders_of_several_products(write):
    anonymous, known = events_of(write(DIGINETICA_VIEWS))
    assert (anonymous.user_id, anonymous.session_id, known.user_id) == (None, "1", "18")
    # 526.309 seconds after midnight.
    assert anonymous.event_time == 1_462_752_526_309_000
    assert {(one.order_id, one.product_id) for one in events_of(write(DIGINETICA_PURCHASES))} == {
        ("16421", "25911"),
        ("16421", "175"),
    }


def test_the_second_online_retail_is_read_as_the_first(write):
    bought, returned = events_of(write(UCI))
    assert (bought.user_id, bought.price, bought.quantity, bought.currency) == (
        "13085",
        money("6.95"),
        12,
        "GBP",
    )
    assert (returned.event_type, returned.price, returned.quantity) == ("refund", money("2.95"), 3)
    assert json.loads(bought.properties)["description"] == "LIGHTS, 12"


TABLES = {
    "rees46": REES46,
    "retailrocket": RETAILROCKET,
    "own": OWN,
    "uci": UCI,
    "yoochoose": "session_id,timestamp,item_id,price,quantity\n" + YOOCHOOSE_BUYS,
    "taobao": "user_id,item_id,category_id,behavior_type,timestamp\n" + TAOBAO,
    "diginetica": DIGINETICA_VIEWS.replace(";", ","),
    "otto": "session,aid,ts,type\n0,7,1659304800025,clicks\n0,7,1659304860025,orders\n",
}
WITHOUT_HEADER = ("rees46", "retailrocket", "uci", "yoochoose", "taobao", "diginetica", "otto")


def rewritten(content: str, separator: str) -> str:
    written = io.StringIO()
    csv.writer(written, delimiter=separator, lineterminator="\n").writerows(csv.reader(io.StringIO(content)))
    return written.getvalue()


def values_of(path: Path) -> list[Any]:
    return [json.loads(value) for _, value in EventFile(path)]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"], ids=["comma", "semicolon", "tab", "pipe"])
@pytest.mark.parametrize("case", [str.upper, str.lower, str.title], ids=["upper", "lower", "title"])
@pytest.mark.parametrize("name", TABLES)
def test_a_table_may_have_another_separator_and_its_header_another_case(write, name, separator, case):
    as_published = values_of(write(TABLES[name]))
    header, _, rows = TABLES[name].partition("\n")
    assert as_published
    assert values_of(write(rewritten(f"{case(header)}\n{rows}", separator))) == as_published


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"], ids=["comma", "semicolon", "tab", "pipe"])
@pytest.mark.parametrize("header", ["", "a,b,c,d,e,f,g,h,i", "#"], ids=["none", "other names", "comment"])
@pytest.mark.parametrize("name", WITHOUT_HEADER)
def test_a_table_without_its_header_is_known_by_its_rows(write, name, separator, header):
    as_published = values_of(write(TABLES[name]))
    own, _, rows = TABLES[name].partition("\n")
    if header == "#":
        header = f"#{own}"
    elif header:
        header = ",".join(header.split(",")[: own.count(",") + 1])
    content = f"{header}\n{rows}" if header else rows
    assert values_of(write(rewritten(content, separator))) == as_published


@pytest.mark.parametrize("name", TABLES)
def test_a_table_in_parquet_gives_the_events_of_its_csv(write, tmp_path, name):
    source = write(TABLES[name])
    path = tmp_path / "table"
    parquet.write_table(arrow_csv.read_csv(source), path)
    as_csv = [one for one in events_of(source) if not isinstance(one, Rejection)]
    found = events_of(path)
    assert len(found) == len(as_csv) > 0
    without_hash = [
        field for field in as_csv[0]._fields if field not in ("payload_hash", "event_id", "properties")
    ]
    for one, other in zip(found, as_csv, strict=True):
        assert {field: getattr(one, field) for field in without_hash} == {
            field: getattr(other, field) for field in without_hash
        }


def test_parquet_of_own_fields_keeps_times_lists_and_objects(tmp_path):
    path = tmp_path / "orders.parquet"
    row = {
        "event_type": "purchase",
        "anonymous_id": "v",
        "user_id": None,
        "timestamp": 1_714_644_000,
        "items": [{"product_id": "P1", "price": 5.5, "quantity": 2}, {"product_id": "P2", "price": None}],
        "colour": "red",
    }
    table = pa.Table.from_pylist([row])
    times = table["timestamp"].cast(pa.timestamp("s")).cast(pa.timestamp("ns", "UTC"))
    parquet.write_table(table.set_column(3, "timestamp", times), path)
    first, second = events_of(path)
    assert (first.product_id, first.price, first.quantity) == ("P1", money("5.5"), 2)
    assert (second.product_id, second.price, second.anonymous_id) == ("P2", None, "v")
    assert first.event_time == 1_714_644_000_000_000
    assert json.loads(first.properties) == {"colour": "red"}


ORDERS = (
    "order_id,customer_id,order_status,order_purchase_timestamp\n"
    "o1,c1,delivered,2017-09-13 08:59:02\no2,c2,canceled,2017-09-14 08:59:02\n"
)
CUSTOMERS = "customer_id,customer_unique_id,customer_city\nc1,person,x\nc2,person,x\n"
ITEMS = (
    "order_id,order_item_id,product_id,seller_id,shipping_limit_date,price,freight_value\n"
    "o1,1,p1,s,2017-09-19 09:45:35,58.90,13.29\no1,2,p1,s,2017-09-19 09:45:35,58.90,13.29\n"
    "o2,1,p2,s,2017-09-19 09:45:35,20.00,1.00\no9,1,p2,s,2017-09-19 09:45:35,20.00,1.00\n"
)


def test_olists_items_are_joined_with_the_orders_and_customers_beside_them(write):
    write(ORDERS, "olist_orders_dataset.csv")
    write(CUSTOMERS, "people.csv")
    path = write(ITEMS, "olist_order_items_dataset.csv")
    events = EventFile(path)
    found = list(judged(events))
    assert events.format == "Olist order items"
    assert events.skipped == {"no_order": 1}
    assert [(one.order_id, one.order_line, one.user_id, one.price, one.quantity) for one in found] == [
        ("o1", "1", "person", money("58.9"), 1),
        ("o1", "2", "person", money("58.9"), 1),
        ("o2", "1", "person", money("20"), 1),
    ]
    assert {one.currency for one in found} == {"BRL"}
    assert {one.product_category for one in found} == {None}
    write("product_id,product_category_name\np1,perfumaria\n", "olist_products_dataset.csv")
    assert [one.product_category for one in events_of(path)] == ["perfumaria", "perfumaria", None]


def test_olists_items_without_what_they_refer_to_name_it(write):
    path = write(ITEMS, "olist_order_items_dataset.csv")
    with pytest.raises(InputError, match="put the data set's orders and customers beside it"):
        list(EventFile(path))
    write(ORDERS, "olist_orders_dataset.csv")
    with pytest.raises(
        InputError, match=r"put the data set's customers beside it, as olist_customers_dataset\.csv"
    ):
        list(EventFile(path))


def test_an_otto_session_that_is_none_is_left_out_and_counted(write):
    events = EventFile(write(OTTO + '{"session": 3, "events": []}\n{"session": 4}\n\n'))
    assert len(list(events)) == 4
    assert events.skipped == {"no_events": 1, "malformed_row": 1, "blank_line": 1}
    assert events.examples[0].startswith("session 4: ")


@pytest.mark.parametrize("name", ["rees46", "yoochoose"])
@pytest.mark.parametrize("zone", ["", "Z", "+00:00"])
def test_times_of_data_sets_in_utc_are_so_in_copies_that_do_not_say_it(write, name, zone):
    as_published = [one.event_time for one in events_of(write(TABLES[name]))]
    content = re.sub(r"(\d\d:\d\d:\d\d(?:\.\d+)?)( UTC|Z)", rf"\g<1>{zone}", TABLES[name])
    assert content != TABLES[name] or zone == "Z"
    tokyo = replace(RULES, time_zone="Asia/Tokyo")
    assert [one.event_time for one in judged(EventFile(write(content)), tokyo)] == as_published


def test_rees46_rows_of_a_type_that_nobody_knows_are_left_to_the_pipeline(write):
    path = write(REES46 + "2019-11-01 00:00:05 UTC,peek,100,205,,,489.07,520,4d3b\n")
    assert [one.rule for one in events_of(path) if isinstance(one, Rejection)] == ["unknown"]


COLUMNS = (
    "event_id,derived_tstamp,event,domain_userid,contexts_com_snowplowanalytics_snowplow_ecommerce_product_1"
)


def test_a_table_of_another_trackers_columns_is_read_as_its_records(write):
    path = write(
        f"{COLUMNS},unstruct_event_com_snowplowanalytics_snowplow_ecommerce_snowplow_ecommerce_action_1\n"
        'e1,2024-05-02 10:00:00,unstruct,d,"[{""id"": ""P"", ""price"": 2.5}]","{""type"": ""add_to_cart""}"\n'
    )
    events = EventFile(path)
    assert events.format == "CSV of snowplow events"
    (event,) = events_of(path)
    assert (event.event_type, event.product_id, event.price, event.anonymous_id) == (
        "add_to_cart",
        "P",
        money("2.5"),
        "d",
    )


def test_snowplows_tsv_is_sent_as_it_is_and_keyed_by_the_visitor(write):
    columns = [""] * 131
    columns[3], columns[5], columns[6], columns[15] = "2024-05-02 10:00:00.000", "page_view", "e-1", "device"
    line = "\t".join(columns)
    events = EventFile(write(f"{line}\n{line}\n", "enriched.tsv"))
    assert events.format == "Snowplow TSV"
    assert list(events) == [(b"device", line.encode())] * 2
    (event, _) = events_of(events.path)
    assert (event.event_type, event.anonymous_id) == ("page_view", "device")


def test_datagens_shoes_are_views_and_orders_of_them(write):
    view = {
        "product_id": "b1",
        "user_id": "c7",
        "view_time": 70,
        "page_url": "https://s.example/b1",
        "ip": "203.0.113.7",
    }
    order = {"order_id": 1000, "product_id": "b1", "customer_id": "c7", "ts": 1_609_459_260_000}
    path = write("".join(json.dumps(one) + "\n" for one in ({**view, "ts": 1_609_459_200_000}, order)))
    seen, bought = events_of(path)
    assert (seen.event_type, seen.product_id, seen.user_id) == ("view", "b1", "c7")
    assert seen.event_time == 1_609_459_200_000_000
    assert json.loads(seen.properties) == {"page_url": "https://s.example/b1", "view_time": 70}
    assert (bought.event_type, bought.user_id, bought.order_id, bought.price) == (
        "purchase",
        "c7",
        "1000",
        None,
    )


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The content with some bytes changed, put in, taken out or cut off."""
    for _ in range(draw.randint(1, 5)):
        at = draw.randrange(len(content) + 1)
        put_in = draw.choice([b'"', b"\n", b"\r", b",", b";", b"\x00", b"\xff", b"{", b"]", b"9" * 40, b""])
        content = content[:at] + put_in + content[at + draw.choice([0, 0, 1, 20]) :]
    return content[: draw.randrange(len(content) + 1)] if draw.random() < 0.1 else content


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_file_is_read_or_refused_in_words(tmp_path, seed):
    draw = random.Random(seed)
    path = tmp_path / "file"
    parquet.write_table(
        pa.Table.from_pylist([{"event_type": "view", "user_id": "u", "timestamp": "x"}]), path
    )
    contents = [
        path.read_bytes(),
        OTTO.encode(),
        ITEMS.encode(),
        *(text.encode() for text in TABLES.values()),
    ]
    outcomes: Counter[str] = Counter()
    for _ in range(150):
        content = damaged(draw.choice(contents), draw)
        path.write_bytes(draw.choice([content, gzip.compress(content), zstandard.compress(content)]))
        try:
            outcomes["read"] += len(list(EventFile(path))) > 0
        except InputError:
            outcomes["refused"] += 1
    assert min(outcomes["read"], outcomes["refused"]) > 10


RIGHT = {
    "04-otto-session-lines.jsonl": ({"view": 2, "add_to_cart": 1, "purchase": 1}, 2, None),
    "05-retailrocket-events.csv": ({"view": 2, "add_to_cart": 1, "purchase": 2}, 2, None),
    "20-own-fields.csv": ({"view": 1, "purchase": 1}, 1, "24"),
    "22-rees46-no-header.csv": ({"view": 1, "add_to_cart": 1}, 1, None),
    "24-yoochoose-clicks.dat": ({"view": 3}, 2, None),
    "24-yoochoose-buys.dat": ({"purchase": 2}, 2, "12462"),
    "26-connect-datagen-shoe-clickstream.jsonl": ({"view": 1}, 1, None),
}


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not in ../shared/cases")
@pytest.mark.parametrize("name", RIGHT)
def test_the_cases_that_are_files_give_their_right_values(name):
    path = CASES / name
    types, persons, revenue = RIGHT[name]
    assert kinds(path) == types
    assert len(visitors(path)) == persons
    paid = [
        one.price * (one.quantity or 1)
        for one in events_of(path)
        if one.event_type == "purchase" and one.price is not None
    ]
    assert sum(paid) == money(revenue or "0")


PAGE = (Path(__file__).parents[3] / "docs" / "files.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(
    r"^##+ ([^\n]+)\n(?:(?!#)[^\n]*\n)*?```(?:csv|json)\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE
)


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_each_example_of_the_page_is_what_its_heading_says(write, name, example):
    write(ORDERS, "orders")
    write(CUSTOMERS, "customers")
    path = write(example)
    events = EventFile(path)
    assert events.format == name
    found = list(judged(events))
    assert len(found) >= 1
    assert not events.skipped
    assert not [one.args for one in found if isinstance(one, Rejection)]


def test_the_page_has_an_example_of_each_kind_and_each_reason_to_leave_a_row_out():
    names = [name for name, _ in EXAMPLES]
    assert {kind.name for kind in KINDS} | {"JSON lines", "CSV of own fields", "OTTO sessions"} == set(names)
    reasons = {value for name, value in vars(skipped).items() if name.isupper() and isinstance(value, str)}
    assert {reason for reason in reasons if f"`{reason}`" not in PAGE} == set()
