"""The feed of products: files and records of what a shop sells, read line by line, and what the lake keeps of them.

Column names are ours, or those of product feeds for Google Merchant Center,
https://support.google.com/merchants/answer/7052112.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from clickstream_assets.analytics.product_details import ADDRESS, MAX_ADDRESS_LENGTH, MAX_NAME_LENGTH
from clickstream_assets.catalogue import PRODUCT_FEED, RAW_PRODUCTS, RECORD_KEY, REJECTED_PRODUCTS
from clickstream_assets.errors import InputError
from clickstream_assets.ingest.fields import (
    FIELDS,
    Rejection,
    ValidationRules,
    read_id,
    read_price,
    read_text,
)
from clickstream_assets.ingest.files.sources import BYTE_ORDER_MARK, FAULTS, Source, named_fault
from clickstream_assets.ingest.retention import check_bytes
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets.stores.lake import Lake, LakeConflictError

Row = dict[str, Any]
"""A PRODUCT_FEED row."""

COLUMN_NAMES = {
    "product_id": ("product_id", "id", "item_id", "sku"),
    "name": ("name", "title", "product_name", "product_title", "item_name"),
    "category": ("category", "product_category", "product_type", "item_category", "google_product_category"),
    "brand": ("brand", "item_brand", "vendor", "manufacturer"),
    "price": ("price",),
    "currency": ("currency",),
    "image": ("image", "image_link", "image_url"),
    "link": ("link", "product_url", "product_link", "url"),
    "available": ("available", "availability", "in_stock"),
}
"""The names by which a feed may have each field; of several, the first that is given counts."""
_READ = frozenset(name for names in COLUMN_NAMES.values() for name in names)
# What can be ordered is available, if later.
_AVAILABILITY = {
    **dict.fromkeys(("in_stock", "instock", "in_store", "available", "preorder", "backorder"), True),
    **dict.fromkeys(("limited_availability", "limitedavailability"), True),
    **dict.fromkeys(("out_of_stock", "outofstock", "sold_out", "soldout", "discontinued"), False),
    **dict.fromkeys(("unavailable", "not_available"), False),
    **dict.fromkeys(("true", "yes", "y", "1"), True),
    **dict.fromkeys(("false", "no", "n", "0"), False),
}
_ADDRESS = re.compile(ADDRESS)
# A number of Google's list of categories is no name of one.
_NUMBERED = re.compile(r"\d+")
_DELIMITERS = ",;\t|"
_TRIES = 5

FIXES = {
    "missing": "give every line the id of its product",
    "too_long": "shorten it",
    "wrong_type": "write a text or a number",
    "not_a_number": "write a number, with its currency or without: 12.50 EUR (DECIMAL_COMMA says what a comma means)",
    "out_of_range": "write a price from 0 to below 10,000,000,000",
    "not_iso_4217": "write the currency's code, such as EUR",
    "not_an_address": "write an address of http or https, without spaces",
    "not_an_availability": "write in_stock, out_of_stock, true or false",
    "not_json": "write one JSON object a line",
    "not_csv": "quote values as RFC 4180 has it, a quote in a value twice",
    "number_of_values": "give it as many values as the header has names, and quote those that have the "
    "separator in them",
    "nul_character": "take the NUL character out",
    "number_out_of_range": "write a smaller number",
}
"""What to do about each rule that a line of a feed can break."""


@dataclass(frozen=True)
class RejectedLine:
    """A line of a feed that is no product: its number, and what is wrong with it."""

    line: int
    field: str | None
    rule: str
    value: str | None

    def __str__(self) -> str:
        """Say where it is, what is wrong, and what to do."""
        what = f"{self.field}={self.value!r}: " if self.field and self.value is not None else ""
        field = f"{self.field}: " if self.field and self.value is None else ""
        return f"line {self.line}: {what}{field}{self.rule}; {FIXES.get(self.rule, 'see docs/products.md')}"


def read_product(given: Mapping[str, Any], rules: ValidationRules, key: str | None = None) -> Row:
    """Read what a line or a record of a feed says of its product.

    Args:
        given: values by the names of COLUMN_NAMES; others are of no account.
        rules: say what stands for no id, and what a comma in a price means.
        key: the product's id, where the values name none.

    Raises:
        Rejection: a value cannot be read, or there is no product.
    """
    values = {_plain(name): value for name, value in given.items()}

    def first(field: str) -> Any:
        return next((values[n] for n in COLUMN_NAMES[field] if values.get(n) not in (None, "", [])), None)

    product_id = _product_id(first("product_id") or key, rules)
    price, currency = read_price(first("price"), rules.decimal_comma)
    if price is not None and price < 0:
        raise Rejection("price", "out_of_range", first("price"))
    return {
        "product_id": product_id,
        "name": read_text("name", first("name"), MAX_NAME_LENGTH),
        "category": _category(first("category"), rules),
        "brand": read_text("brand", first("brand")),
        "price": price,
        "currency": None
        if price is None
        else FIELDS["currency"].read("currency", first("currency"), rules) or currency,
        "image": _address("image", first("image")),
        "link": _address("link", first("link")),
        "available": _availability(first("available")),
        "withdrawn": False,
    }


def _product_id(value: Any, rules: ValidationRules) -> str:
    product_id = read_id("product_id", value, rules)
    if product_id is None:
        raise Rejection("product_id", "missing", value)
    return product_id


def _plain(name: str) -> str:
    # Google's feeds in other formats have the prefix of their namespace.
    return name.strip().lower().removeprefix("g:").replace(" ", "_")


def _category(value: Any, rules: ValidationRules) -> str | None:
    category = FIELDS["product_category"].read("category", value, rules)
    if category is None or _NUMBERED.fullmatch(category):
        return None
    return ".".join(filter(None, (part.strip() for part in category.split(">")))) or None


def _address(field: str, value: Any) -> str | None:
    # Of several pictures, the first.
    text = read_text(field, value[0] if isinstance(value, list) else value, MAX_ADDRESS_LENGTH)
    if text is not None and not _ADDRESS.match(text):
        raise Rejection(field, "not_an_address", text)
    return text


def _availability(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    text = read_text("available", value)
    if text is None:
        return None
    # Also as schema.org's address of it.
    word = text.rpartition("/")[2].lower().replace(" ", "_").replace("-", "_")
    if word not in _AVAILABILITY:
        raise Rejection("available", "not_an_availability", text)
    return _AVAILABILITY[word]


def decode_product(line: bytes | str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        Rejection: it is none.
    """
    try:
        found = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Rejection(None, "not_json", line if isinstance(line, str) else line.decode(errors="replace"))
    return found


_decoder = msgspec.json.Decoder(float_hook=Decimal)


class FeedFile:
    """A file of products: JSON lines or a table with a header, compressed or not.

    Args:
        path: The file.
        rules: Rules that its values are read by.

    Attributes:
        rejected: Lines that the latest iteration left out.
        others: Names of columns that are none of ours, in order.

    Raises:
        InputError: the file is missing, empty or of another format, or its header names no product.
    """

    def __init__(self, path: Path, rules: ValidationRules) -> None:
        self.path = path
        self.rejected: list[RejectedLine] = []
        self.others: list[str] = []
        self._rules = rules
        if path.is_dir():
            raise InputError(f"{path} is a folder; name a file of products in it")
        source = Source(path)
        packed = source.packed()
        if packed is not None:
            if len(packed) != 1:
                raise InputError(
                    f"{path} is a zip of {len(packed)} files; unpack it, and name the one of products"
                )
            (source,) = packed
        self._source = source
        start = source.head().lstrip()
        if not start:
            raise InputError(f"{path} is empty")
        if start.startswith((b"[", b"<")):
            kind = "one JSON list" if start.startswith(b"[") else "XML"
            raise InputError(
                f"{path} is {kind}; write it as JSON lines, an object a line, or as CSV with a header"
            )
        self._is_json = start.startswith(b"{")

    def __iter__(self) -> Iterator[Row]:
        """Yield the products of the file, in its order; see `rejected` for the lines that are none."""
        self.rejected, self.others = [], []
        read = 0
        try:
            with self._source.opened() as file:
                for line, given in self._lines(file):
                    try:
                        yield read_product(given, self._rules)
                    except Rejection as rejection:
                        self._reject(line, rejection)
                    read += 1
        except FAULTS as error:
            raise named_fault(self.path, error, f"{read} lines") from None

    def _reject(self, line: int, rejection: Rejection) -> None:
        self.rejected.append(RejectedLine(line, rejection.field, rejection.rule, rejection.shown))

    def _lines(self, file: IO[bytes]) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield the numbers of lines, from 1, and what they say by the names that the file has."""
        if not self._is_json:
            yield from self._rows(TextIOWrapper(file, encoding="utf-8-sig", newline=""))
            return
        others: dict[str, None] = {}
        for number, line in enumerate(file, start=1):
            line = line.removeprefix(BYTE_ORDER_MARK).strip()
            if not line:
                continue
            try:
                given = decode_product(line)
            except Rejection as rejection:
                self._reject(number, rejection)
                continue
            others.update(dict.fromkeys(name for name in given if _plain(name) not in _READ))
            self.others = list(others)
            yield number, given

    def _rows(self, text: TextIOWrapper) -> Iterator[tuple[int, Mapping[str, Any]]]:
        before, first = 1, text.readline()
        while first and not first.strip():
            before, first = before + 1, text.readline()
        delimiter = max(_DELIMITERS, key=first.count)
        header = next(csv.reader([first], delimiter=delimiter))
        names = [_plain(name) for name in header]
        if not set(names) & set(COLUMN_NAMES["product_id"]):
            raise InputError(
                f"{self.path}: the header {', '.join(header)[:200]!r} has no column of product ids; name one "
                f"{', '.join(COLUMN_NAMES['product_id'])}"
            )
        self.others = [name for name in header if _plain(name) not in _READ]
        rows = csv.reader(text, delimiter=delimiter, strict=True)
        while True:
            # Where the row begins: a quoted value may have several lines.
            line = before + rows.line_num + 1
            try:
                row = next(rows, None)
            except csv.Error as error:
                self._reject(line, Rejection(None, "not_csv", str(error)))
                continue
            if row is None:
                return
            if not any(row):
                continue
            if len(row) != len(names):
                self._reject(line, Rejection(None, "number_of_values", delimiter.join(row)))
                continue
            yield line, dict(zip(names, row, strict=True))


@dataclass(frozen=True)
class FeedCounts:
    """Outcome of `take_in`: products that the feed names."""

    new: int = 0
    changed: int = 0
    same: int = 0
    withdrawn: int = 0
    """Those that it named before and does not name any more."""


def take_in(
    lake: Lake, rows: Iterable[Row], *, is_whole: bool = False, batch: int | None = None
) -> FeedCounts:
    """Keep what a feed says: of each product the last row, in place of what feeds said of it before.

    The same again changes nothing, and writes nothing but a batch's number.

    Args:
        lake: keeps it.
        rows: PRODUCT_FEED rows; of one that is withdrawn, what feeds said before stays.
        is_whole: Whether the products that feeds named before, and these rows do not, are withdrawn.
        batch: Number of the batch of `raw_products` that the rows are, which is taken in once.

    Raises:
        LakeConflictError: others write the table all the time.
    """
    told = {row["product_id"]: row for row in rows}
    for left in range(_TRIES, 0, -1):
        counts, changed = _compared(lake, told, is_whole)
        try:
            if changed or batch is not None:
                lake.merge(PRODUCT_FEED, pa.Table.from_pylist(changed, schema=PRODUCT_FEED.arrow), batch)
            return counts
        except LakeConflictError:
            if left == 1:
                raise
    raise AssertionError


def _compared(lake: Lake, told: Mapping[str, Row], is_whole: bool) -> tuple[FeedCounts, list[Row]]:
    kept = lake.rows(PRODUCT_FEED)
    if not is_whole:
        kept = kept.filter(pc.is_in(kept["product_id"], pa.array(told, pa.string())))
    before = {row["product_id"]: row for row in kept.to_pylist()}
    told = {
        name: {**before[name], "withdrawn": True} if row["withdrawn"] and name in before else row
        for name, row in told.items()
    }
    new = [row for name, row in told.items() if name not in before]
    changed = [row for name, row in told.items() if name in before and before[name] != row]
    gone = [
        {**row, "withdrawn": True}
        for name, row in before.items()
        if name not in told and not row["withdrawn"]
    ]
    same = len(told) - len(new) - len(changed)
    return FeedCounts(len(new), len(changed), same, len(gone)), [*new, *changed, *gone]


def products_topic(settings: Settings) -> Topics | None:
    """Return the topic of products; None where none is set."""
    if settings.kafka_products_topic is None:
        return None
    return Topics(settings, [settings.kafka_products_topic], "KAFKA_PRODUCTS_TOPIC")


def update_feed(lake: Lake, rules: ValidationRules) -> int:
    """Take in what the records of new batches of `raw_products` say, each batch once.

    A record is of the product that its value names, or else its key; without a value it withdraws that of its key. What
    says nothing of a product is kept in `rejected_products`.

    Returns:
        How many records of these batches are rejected.
    """
    taken, newest = (lake.snapshot(table).batch for table in (PRODUCT_FEED, RAW_PRODUCTS))
    # The records can have been put back to an earlier time.
    is_put_back = taken > newest
    batches = range(1 if is_put_back else taken + 1, newest + 1)
    check_bytes(lake, RAW_PRODUCTS, batches)
    if is_put_back:
        lake.mark(PRODUCT_FEED, {PRODUCT_FEED.name: 0})
    count = 0
    for batch in batches:
        records = lake.rows_of_batch(RAW_PRODUCTS, batch)
        order = [(name, "ascending") for name in RECORD_KEY]
        rows, rejected = [], []
        for record in records.sort_by(order).to_pylist():
            try:
                rows.append(_read_record(record["key"], record["value"], rules))
            except Rejection as rejection:
                why = {"field": rejection.field, "rule": rejection.rule, "rejected_value": rejection.shown}
                rejected.append(record | why)
        # First: once the feed holds a batch, both tables do.
        if rejected:
            found = pa.Table.from_pylist(rejected, schema=REJECTED_PRODUCTS.arrow)
            lake.append_rows(REJECTED_PRODUCTS, found, batch)
        take_in(lake, rows, batch=batch)
        count += len(rejected)
    return count


def _read_record(key: bytes | None, value: bytes | None, rules: ValidationRules) -> Row:
    name = None if key is None else key.decode(errors="replace")
    if value is not None:
        return read_product(decode_product(value), rules, name)
    return dict.fromkeys(PRODUCT_FEED.column_names) | {
        "product_id": _product_id(name, rules),
        "withdrawn": True,
    }
