"""Times that went through a spreadsheet are read as they were meant, or a file says that nothing shows how."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import pytest

from clickstream_assets.errors import InputError
from clickstream_assets.ingest.files import EventFile, KeyedValue
from clickstream_assets.ingest.first_look import in_words, look_at_file, require_events
from clickstream_assets.settings import Settings
from clickstream_assets_tests.ingest.files.test_kinds import CUSTOMERS, ITEMS

UCI_HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
ORDER_HEADER = "order_id,customer_id,order_status,order_purchase_timestamp\n"
MONTH_FIRST, DAY_FIRST = "{0.month}/{0.day}/{0:%Y} {0.hour}:{0:%M}", "{0:%d-%m-%y} {0.hour}:{0:%M}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def times_of(events: EventFile) -> list[str]:
    return [json.loads(value)["timestamp"] for _, value in events]


def of_invoices(invoices: Sequence[tuple[str, str]]) -> str:
    rows = (f"{invoice},85123A,HEART,6,{time},2.55,17850,United Kingdom\n" for invoice, time in invoices)
    return UCI_HEADER + "".join(rows)


def sold(*invoices: tuple[int | str, str], write: Callable[[datetime], str]) -> str:
    return of_invoices([(str(number), write(datetime.fromisoformat(time))) for number, time in invoices])


@pytest.mark.parametrize(
    "form", [MONTH_FIRST, DAY_FIRST, "{0:%m.%d.%Y %H:%M:%S}", "{0:%d/%m/%Y %I:%M:%S %p}"]
)
@pytest.mark.parametrize(
    "invoices",
    [
        # A day alone, which invoices are known to be of: of Online Retail, and of its forerunner.
        [(536365, "2010-12-01T08:26:00"), (536366, "2010-12-01T08:28:00")],
        [(489434, "2009-12-01T07:45:00")],
        [("C536379", "2010-12-01T09:41:00")],
        [(560000, "2011-07-05T10:00:00"), (579000, "2011-11-12T10:00:00")],
        # Not in their order.
        [(579000, "2011-11-11T10:00:00"), (560000, "2011-07-07T09:00:00"), (536370, "2010-12-01T08:45:00")],
        # A day that is no month, after one that could be.
        [(100001, "2024-02-03T10:00:00"), (100002, "2024-02-13T10:00:00")],
        # Another shop's, whose numbers rise with time.
        [(100001, "2024-02-03T10:00:00"), (100003, "2024-03-01T10:00:00"), (100002, "2024-02-04T10:00:00")],
    ],
    ids=["a day", "the forerunner", "a return", "months", "in disorder", "a day that is no month", "another shop"],
)  # fmt: skip
def test_invoices_say_whether_their_times_begin_with_the_month_or_the_day(path, form, invoices):
    path.write_text(sold(*invoices, write=form.format))
    events = EventFile(path)
    assert events.format == "UCI Online Retail"
    assert times_of(events) == [time for _, time in invoices]


def test_what_is_not_known_of_times_is_said(path):
    path.write_text(of_invoices([("100001", "2/2/2024 9:00"), ("100002", "2/3/2024 10:00")]))
    events = EventFile(path)
    assert times_of(events) == ["2024-02-02T09:00:00", "2024-02-03T10:00:00"]
    assert in_words(events, look_at_file(Settings(_env_file=None), events)).startswith(
        "file is taken for UCI Online Retail, times like '2/3/2024 10:00' read with the month first, since nothing "
        "shows which it is: of its first 2 records "
    )


@pytest.mark.parametrize("written", ["2/2/2024 9:00", "2024-02-03 09:00:00", ""])
def test_what_has_one_reading_is_not_said(path, written):
    path.write_text(of_invoices([("100001", written)] * 2))
    assert EventFile(path).format == "UCI Online Retail"


def test_a_damaged_file_of_such_times_gives_what_is_readable_first(path):
    rows = [(str(100_000 + number), f"2/3/2024 {number % 24}:{number % 60:02}") for number in range(50_000)]
    whole = gzip.compress(of_invoices(rows).encode())
    path.write_bytes(whole[: len(whole) // 2])
    events = EventFile(path)
    read: list[KeyedValue] = []
    with pytest.raises(InputError, match=r"the file is truncated, after [1-9]"):
        read.extend(events)


@pytest.mark.parametrize(
    ("times", "right"),
    [
        (("10/2/2017 10:56", "7/24/2018 20:41"), ("2017-10-02T10:56:00", "2018-07-24T20:41:00")),
        (("02-10-2017 10:56", "24-07-2018 20:41"), ("2017-10-02T10:56:00", "2018-07-24T20:41:00")),
        (("2017-10-02 10:56:33", "2018-07-24 20:41:37"), ("2017-10-02T10:56:33", "2018-07-24T20:41:37")),
        (("2017-10-02 10:56:33.324049", "2018/7/24 20:41"), ("2017-10-02T10:56:33.324049", "2018-07-24T20:41:00")),
    ],
)  # fmt: skip
def test_olists_orders_have_their_times_also_out_of_a_spreadsheet(path, times, right):
    (path.parent / "orders.csv").write_text(
        ORDER_HEADER + f"o1,c1,delivered,{times[0]}\no2,c2,delivered,{times[1]}\n"
    )
    (path.parent / "customers.csv").write_text(CUSTOMERS)
    path.write_text(ITEMS)
    events = EventFile(path)
    assert events.format == "Olist order items"
    assert times_of(events) == [right[0], right[0], right[1]]
    assert events.skipped == {"no_order": 1}


def test_olists_times_of_which_nothing_shows_what_is_first_are_said(path):
    (path.parent / "orders.csv").write_text(ORDER_HEADER + "o1,c1,delivered,10/2/2017 10:56\n")
    (path.parent / "customers.csv").write_text(CUSTOMERS)
    path.write_text(ITEMS)
    assert EventFile(path).format.startswith(
        "Olist order items, times like '10/2/2017 10:56' read with the month"
    )


@pytest.mark.parametrize("time", ["soon", "", "30/30/2017 10:56", "Oct 2 2017 10:56"])
def test_a_time_of_olists_that_cannot_be_read_is_named_with_its_file_and_column(path, time):
    (path.parent / "olist_orders.csv").write_text(
        ORDER_HEADER + f"o1,c1,delivered,{time}\no2,c9,delivered,{time}\n"
    )
    (path.parent / "customers.csv").write_text(CUSTOMERS)
    path.write_text(ITEMS)
    events = EventFile(path)
    look = look_at_file(Settings(_env_file=None), events)
    with pytest.raises(
        InputError, match=re.escape("all of its rows are left out, 2 malformed_row, 1 no_customer")
    ) as caught:
        require_events(events, look)
    assert f"(such as line 2: order_purchase_timestamp {time!r} in olist_orders.csv: " in str(caught.value)
    assert "--map" not in str(caught.value)


def test_a_table_beside_olists_items_that_is_damaged_is_named_before_anything_is_read(path):
    orders = ORDER_HEADER + "".join(
        f"o{number},c1,delivered,2017-10-02 10:56:33\n" for number in range(200_000)
    )
    whole = gzip.compress(orders.encode())
    (path.parent / "orders").write_bytes(whole[: len(whole) // 2])
    (path.parent / "customers.csv").write_text(CUSTOMERS)
    path.write_text(ITEMS)
    with pytest.raises(
        InputError, match=r"/orders ends in the middle: the file is truncated, after \d+ readable rows"
    ):
        EventFile(path)
