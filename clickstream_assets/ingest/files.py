"""Files of events: JSON lines as they are, and two public data sets as events.

A reader changes the form, not the values: the pipeline rejects and keeps an event that is not valid. The reader skips
only rows that are no events at all, and counts them by reason.
"""

import csv
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path
from typing import IO, cast

import msgspec

from clickstream_assets.errors import InputError

JSON_LINES = "JSON lines"
REES46 = "REES46"
UCI_ONLINE_RETAIL = "UCI Online Retail"

REES46_HEADER = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"
UCI_HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"

BLANK_LINE = "blank_line"
MALFORMED_ROW = "malformed_row"
NO_CUSTOMER = "no_customer"
CANCELLED_OR_RETURNED = "cancelled_or_returned"
NO_PRICE = "no_price"

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LONGEST_FIRST_LINE = 1 << 20
_FIRST_LINES = 100
_EXAMPLES = 5
_UCI_TIME = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}) (\d{1,2}):(\d{2})(?::(\d{2}))?", re.ASCII)
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")

KeyedValue = tuple[bytes | None, bytes]


class _CsvEvent(msgspec.Struct, omit_defaults=True):
    """An event of a data set; `price` keeps the digits of the file."""

    event_type: str
    user_id: str
    timestamp: str
    product_id: str
    session_id: str | None = None
    product_category: str | None = None
    brand: str | None = None
    price: msgspec.Raw | str | None = None
    currency: str | None = None
    quantity: int | None = None
    order_id: str | None = None
    properties: dict[str, str] | None = None


class _Keyed(msgspec.Struct):
    user_id: str | int | float | None = None
    anonymous_id: str | int | float | None = None
    session_id: str | int | float | None = None

    def key(self) -> bytes | None:
        """Return the first id that there is: what its visitor repeats or contradicts stays in order."""
        for given in (self.user_id, self.anonymous_id, self.session_id):
            if given is not None:
                return str(given).encode()
        return None


class _SkippedRow(Exception):
    """Raised for a row that is no event; the first argument is the reason, the second says more."""


class EventFile:
    """The events of a file, in its order: JSON lines, a REES46 or a UCI Online Retail CSV, each also gzipped.

    Format and compression are recognised by content. Each iteration reads the file anew, and yields keys and values.

    Attributes:
        format: Format of the file.
        skipped: Numbers of rows that the latest iteration left out, by reason.
        examples: The first malformed rows of it, with their line numbers.

    Raises:
        InputError: the file is missing, empty, a folder or of no known format; and, while iterating, when it turns
            out to be truncated, damaged or not UTF-8.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.skipped: Counter[str] = Counter()
        self.examples: list[str] = []
        self.format = self._recognise()

    def __iter__(self) -> Iterator[KeyedValue]:
        """Yield the key (the id of the user, or else the visitor, where it can be read) and the value of each event."""
        self.skipped = Counter()
        self.examples = []
        read = 0
        try:
            with open_binary(self.path) as binary:
                for keyed in self._json_lines(binary) if self.format == JSON_LINES else self._csv(binary):
                    yield keyed
                    read += 1
        except EOFError:
            raise InputError(
                f"{self.path} ends in the middle: the gzip file is truncated, after {read} readable events; "
                "fetch it again"
            ) from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise InputError(
                f"{self.path} is damaged after {read} readable events ({error}); fetch it again"
            ) from None
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self.path} is not UTF-8: byte 0x{error.object[error.start]:02x} after {read} readable "
                "events; convert it, for example with `iconv -f latin1 -t utf-8`"
            ) from None

    def _recognise(self) -> str:
        if self.path.is_dir():
            raise InputError(f"{self.path} is a folder; name a file of events in it")
        try:
            first = self._first_line()
        except FileNotFoundError:
            raise InputError(f"{self.path} does not exist") from None
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror or error}") from None
        except (EOFError, zlib.error):
            raise InputError(f"{self.path} is a truncated or damaged gzip file; fetch it again") from None
        if not first:
            raise InputError(f"{self.path} is empty: it has no line of an event or a header")
        columns = _columns(first)
        for name, (header, _) in _CSV_FORMATS.items():
            if set(header.split(",")) <= set(columns):
                return name
        is_named_so = bool({".jsonl", ".ndjson"} & set(self.path.suffixes))
        if (first.startswith(b"{") or is_named_so) and self._begins_with_an_object():
            return JSON_LINES
        if is_named_so:
            raise InputError(
                f"{self.path} is no JSON lines, whatever its name says: none of its first {_FIRST_LINES} lines is a "
                f"JSON object, and the first is {_shorten(first)!r}"
            )
        raise InputError(
            f"{self.path} is of no known format: its first line is {_shorten(first)!r}. Known are JSON lines "
            f"(one object a line), REES46 ({REES46_HEADER}) and UCI Online Retail ({UCI_HEADER}), each also as .gz"
        )

    def _first_line(self) -> bytes:
        """Return the first line that is not blank, without a byte order mark; empty if there is none."""
        with open_binary(self.path) as binary:
            line = binary.readline(_LONGEST_FIRST_LINE).removeprefix(_BYTE_ORDER_MARK)
            while line and not line.strip():
                line = binary.readline(_LONGEST_FIRST_LINE)
        return line.strip()

    def _begins_with_an_object(self) -> bool:
        """Return whether one of the first lines is a JSON object; a daily file may begin with some broken records."""
        decode = msgspec.json.Decoder(dict).decode
        with open_binary(self.path) as binary:
            for _ in range(_FIRST_LINES):
                try:
                    decode(binary.readline(_LONGEST_FIRST_LINE).removeprefix(_BYTE_ORDER_MARK))
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    continue
                except (EOFError, zlib.error, gzip.BadGzipFile):
                    # Reading reports it, with the number of events before.
                    return True
                return True
        return False

    def _json_lines(self, binary: IO[bytes]) -> Iterator[KeyedValue]:
        decode = msgspec.json.Decoder(_Keyed).decode
        for number, line in enumerate(binary):
            value = line.removesuffix(b"\n").removesuffix(b"\r")
            if number == 0:
                value = value.removeprefix(_BYTE_ORDER_MARK)
            if not value.strip():
                self.skipped[BLANK_LINE] += 1
                continue
            try:
                key = decode(value).key()
            except (msgspec.MsgspecError, UnicodeDecodeError):
                key = None
            yield key, value

    def _csv(self, binary: IO[bytes]) -> Iterator[KeyedValue]:
        known_header, convert = _CSV_FORMATS[self.format]
        known = known_header.split(",")
        encode = msgspec.json.Encoder().encode
        with TextIOWrapper(binary, encoding="utf-8-sig", newline="") as text:
            rows = self._rows(text)
            _, header = next(rows)
            positions = [header.index(column) for column in known]
            as_known = header == known
            width = len(header)
            for line, row in rows:
                try:
                    if len(row) != width:
                        raise _SkippedRow(MALFORMED_ROW, f"{len(row)} columns instead of {width}")
                    event = convert(row if as_known else [row[position] for position in positions])
                except _SkippedRow as skip:
                    self._skip(line, *skip.args)
                    continue
                yield event.user_id.encode() or None, encode(event)

    def _rows(self, text: TextIOWrapper) -> Iterator[tuple[int, list[str]]]:
        """Yield the rows that are not blank, each with the number of its last line."""
        rows = csv.reader(text)
        try:
            for row in rows:
                if row:
                    yield rows.line_num, row
                else:
                    self.skipped[BLANK_LINE] += 1
        except csv.Error as error:
            raise InputError(
                f"{self.path}, line {rows.line_num}: {error}; a quote may be open somewhere before it"
            ) from None

    def _skip(self, line: int, reason: str, detail: str = "") -> None:
        self.skipped[reason] += 1
        if reason == MALFORMED_ROW and len(self.examples) < _EXAMPLES:
            self.examples.append(f"line {line}: {detail}")


def open_binary(path: Path) -> IO[bytes]:
    """Open a file that may be gzipped, whatever its name."""
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path, "rb")) if is_gzip else path.open("rb")


def _columns(line: bytes) -> list[str]:
    try:
        return next(csv.reader([line.decode()]), [])
    except (UnicodeDecodeError, csv.Error):
        return []


def _shorten(line: bytes) -> str:
    text = line.decode(errors="backslashreplace")
    return text if len(text) <= 200 else text[:200] + "…"


def _rees46_event(row: Sequence[str]) -> _CsvEvent:
    time, event_type, product_id, category_id, category_code, brand, price, user_id, session_id = row
    return _CsvEvent(
        event_type=event_type,
        user_id=user_id,
        # "2019-10-01 00:00:00 UTC"; anything else is left for the pipeline to reject.
        timestamp=f"{time[:10]}T{time[11:19]}Z" if time.endswith(" UTC") and len(time) == 23 else time,
        product_id=product_id,
        session_id=session_id or None,
        product_category=category_code or None,
        brand=brand or None,
        price=_number(price),
        properties={"category_id": category_id} if category_id else None,
    )


def _uci_event(row: Sequence[str]) -> _CsvEvent:
    invoice, stock_code, description, quantity_text, time, price, customer, country = row
    if not customer:
        raise _SkippedRow(NO_CUSTOMER)
    try:
        quantity = int(quantity_text)
        unit_price = float(price)
    except ValueError as error:
        raise _SkippedRow(MALFORMED_ROW, str(error)) from None
    if quantity <= 0:
        raise _SkippedRow(CANCELLED_OR_RETURNED)
    if unit_price <= 0:
        raise _SkippedRow(NO_PRICE)
    properties = {"description": description, "country": country}
    return _CsvEvent(
        event_type="purchase",
        user_id=customer.removesuffix(".0"),
        timestamp=_uci_time(time),
        product_id=stock_code,
        price=_number(price),
        currency="GBP",
        quantity=quantity,
        order_id=invoice,
        properties={name: text for name, text in properties.items() if text} or None,
    )


def _uci_time(text: str) -> str:
    """Return the shop's local time with no zone given, which is read by SHOP_TIME_ZONE.

    Copies of the data set have ISO 8601 times, or those of its first publication: month, day and year, 12/1/2010 8:26.
    """
    if american := _UCI_TIME.fullmatch(text):
        month, day, *rest = map(int, american.groups(default="0"))
        year, hour, minute, second = rest
        try:
            return datetime(year, month, day, hour, minute, second).isoformat()
        except ValueError as error:
            raise _SkippedRow(MALFORMED_ROW, f"InvoiceDate {text!r}: {error}") from None
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise _SkippedRow(
            MALFORMED_ROW,
            f"InvoiceDate {text!r} is neither like 2010-12-01 08:26:00 nor month/day/year like 12/1/2010 8:26",
        ) from None
    return text.replace(" ", "T", 1)


def _number(text: str) -> msgspec.Raw | str | None:
    if not text:
        return None
    return msgspec.Raw(text.encode()) if _JSON_NUMBER.fullmatch(text) else text


_CSV_FORMATS: dict[str, tuple[str, Callable[[Sequence[str]], _CsvEvent]]] = {
    REES46: (REES46_HEADER, _rees46_event),
    UCI_ONLINE_RETAIL: (UCI_HEADER, _uci_event),
}
