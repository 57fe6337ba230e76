"""Files of products: what is read, what is rejected and why, and what the lake keeps."""

from __future__ import annotations

import bz2
import gzip
import json
import shutil
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clickstream_assets.catalogue import PRODUCT_FEED, RAW_PRODUCTS, REJECTED_PRODUCTS
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.errors import InputError
from clickstream_assets.ingest import product_feed
from clickstream_assets.ingest.product_feed import FIXES, FeedCounts, FeedFile, take_in, update_feed
from clickstream_assets.stores.lake import Lake, LakeConflictError
from clickstream_assets_tests.analytics.records import ARRIVED, RULES, money

Row = dict[str, Any]

GOOGLE = """\
id\ttitle\tdescription\tlink\timage_link\tavailability\tprice\tbrand\tgtin\tproduct_type\tgoogle_product_category
A1\tRed shoe\tGood\thttps://a.example/1\thttps://a.example/1.png\tin_stock\t12.50 EUR\tAcme\t4\tShoes > Red\t187
A2\tBlue shoe\tGood\t\t\tout of stock\t€9\t\t\t\tApparel > Shoes
A3\tHat\tGood\t\t\tpreorder\t\t\t\t\t166
"""
OWN = {
    "product_id": "A1",
    "name": "Red shoe",
    "category": "Shoes.Red",
    "brand": "Acme",
    "price": money("12.5"),
    "currency": "EUR",
    "image": "https://a.example/1.png",
    "link": "https://a.example/1",
    "available": True,
    "withdrawn": False,
}


def file(folder: Path, content: str | bytes, name: str = "feed") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(folder: Path, content: str | bytes) -> tuple[list[Row], list[str]]:
    """The products of a file, without what they do not say; and the lines that are rejected."""
    feed = FeedFile(file(folder, content), RULES)
    return list(feed), list(map(str, feed.rejected))


def said(row: Row) -> Row:
    return {name: value for name, value in row.items() if value is not None and name != "withdrawn"}


def test_a_merchant_feed_is_read_by_its_own_names(tmp_path: Path):
    feed = FeedFile(file(tmp_path, GOOGLE), RULES)
    first, *others = feed
    assert first == OWN
    assert set(first) == set(PRODUCT_FEED.column_names)
    assert list(map(said, others)) == [
        {
            "product_id": "A2",
            "name": "Blue shoe",
            "category": "Apparel.Shoes",
            "price": money("9"),
            "currency": "EUR",
            "available": False,
        },
        # The number of a category is no name of one.
        {"product_id": "A3", "name": "Hat", "available": True},
    ]
    assert feed.rejected == []
    assert feed.others == ["description", "gtin"]


@pytest.mark.parametrize("delimiter", [",", ";", "|", "\t"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_json_lines_and_tables_say_the_same(tmp_path: Path, delimiter: str, pack: Any):
    row = {**{name: OWN[name] for name in OWN if name != "withdrawn"}, "price": "12.50", "available": "true"}
    line = delimiter.join(f'"{value}"' for value in row.values())
    table = "\ufeff" + delimiter.join(row) + "\n\n" + line + "\n"
    assert read(tmp_path, pack(table.encode())) == ([OWN], [])
    lines = "\n" + json.dumps({**row, "price": 12.5, "available": True}) + "\n\n"
    assert read(tmp_path, pack(lines.encode())) == ([OWN], [])
    prefixed = {f"g:{name}": value for name, value in row.items() if name not in ("product_id", "currency")}
    google = json.dumps({"g:id": "A1", **prefixed, "g:price": "12.50 EUR"})
    assert read(tmp_path, pack(google.encode())) == ([OWN], [])


@pytest.mark.parametrize(
    ("line", "said_of_it"),
    [
        ('{"name": "x"}', "line 2: product_id: missing; give every line the id"),
        ('{"id": "undefined"}', "line 2: product_id='undefined': missing; give"),
        ('{"id": "a", "price": "cheap"}', "line 2: price='cheap': not_a_number; write a number, with its"),
        ('{"id": "a", "price": -1}', "line 2: price='-1': out_of_range; write a price from 0"),
        ('{"id": "a", "price": 1, "currency": "euros"}', "line 2: currency='euros': not_iso_4217; write the"),
        (
            '{"id": "a", "image": "javascript:alert(1)"}',
            "line 2: image='javascript:alert(1)': not_an_address;",
        ),
        ('{"id": "a", "link": "/p/1"}', "line 2: link='/p/1': not_an_address; write an address of http"),
        (
            '{"id": "a", "availability": "soon"}',
            "line 2: available='soon': not_an_availability; write in_stock",
        ),
        ('{"id": "a", "name": {"de": "x"}}', 'line 2: name=\'{"de":"x"}\': wrong_type; write a text'),
        (json.dumps({"id": "a", "title": "x" * 600}), f"line 2: name='{'x' * 200}': too_long; shorten it"),
        ('{"id": "a", "title": "\\u0000"}', "line 2: name='\ufffd': nul_character; take"),
        ('["a"]', "line 2: not_json; write one JSON object a line"),
        ('{"id": ', "line 2: not_json; write one JSON object a line"),
        ("\x00", "line 2: not_json; write one JSON object a line"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_with_field_value_and_fix(
    tmp_path: Path, line: str, said_of_it: str
):
    rows, (rejected,) = read(tmp_path, f'{{"id": "first"}}\n{line}\n{{"id": "last"}}\n')
    assert [row["product_id"] for row in rows] == ["first", "last"]
    assert rejected.startswith(said_of_it)


def test_rows_of_a_table_are_named_by_the_lines_that_they_begin_in(tmp_path: Path):
    rows, rejected = read(
        tmp_path, '\nid,name,price\na,"two\nlines",1\nb,x\nc,y,1,2\nd,"z"z,1\ne,w,one\nf,v,2\n'
    )
    assert [(row["product_id"], row["name"]) for row in rows] == [("a", "two\nlines"), ("f", "v")]
    assert [line.split(";")[0] for line in rejected] == [
        "line 5: number_of_values",
        "line 6: number_of_values",
        "line 7: not_csv",
        "line 8: price='one': not_a_number",
    ]


def test_every_rule_has_a_fix(tmp_path: Path):
    assert all(fix and not fix.endswith(".") for fix in FIXES.values())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("[1]", "is one JSON list; write it as JSON lines"),
        ("<rss/>", "is XML; write it as JSON lines"),
        (
            "name,price\nx,1\n",
            "the header 'name, price' has no column of product ids; name one product_id, id",
        ),
        (b"id,name\na,\xff\n", "is not UTF-8: byte 0xff"),
        pytest.param(gzip.compress(GOOGLE.encode())[:-20], "truncated or damaged gzip file", id="truncated"),
    ],
)
def test_a_file_that_is_none_is_said_so(tmp_path: Path, content: Any, problem: str):
    with pytest.raises(InputError, match=problem.replace("(", r"\(")):
        read(tmp_path, content)
    with pytest.raises(InputError, match="does not exist"):
        FeedFile(tmp_path / "none", RULES)
    with pytest.raises(InputError, match="is a folder"):
        FeedFile(tmp_path, RULES)


def test_a_comma_before_cents_is_read_where_the_settings_say_so(tmp_path: Path):
    path = file(tmp_path, "id;price\na;1.299,50 €\n")
    (row,) = FeedFile(path, replace(RULES, decimal_comma=True))
    assert (row["price"], row["currency"]) == (Decimal("1299.50"), "EUR")


def row_of(product: str, **more: Any) -> Row:
    return dict.fromkeys(PRODUCT_FEED.column_names) | {"product_id": product, "withdrawn": False} | more


def test_the_last_line_counts_and_the_same_again_writes_nothing(duckdb_engine: DuckDBEngine, tmp_path: Path):
    lake = Lake(str(tmp_path), duckdb_engine)
    rows = [row_of("a", name="1"), row_of("b", price=money("2")), row_of("a", name="3")]
    assert take_in(lake, rows) == FeedCounts(new=2)
    version = lake.version(PRODUCT_FEED)
    assert take_in(lake, rows) == FeedCounts(same=2)
    assert lake.version(PRODUCT_FEED) == version
    # What a line leaves out is not said any more.
    assert take_in(lake, [row_of("b", brand="x"), row_of("c")]) == FeedCounts(new=1, changed=1)
    assert take_in(lake, [row_of("a", name="3"), row_of("d")], is_whole=True) == FeedCounts(
        new=1, same=1, withdrawn=2
    )
    assert take_in(lake, [row_of("a", name="3"), row_of("d")], is_whole=True) == FeedCounts(same=2)
    kept = {row["product_id"]: row for row in lake.rows(PRODUCT_FEED).to_pylist()}
    assert kept == {
        "a": row_of("a", name="3"),
        "b": row_of("b", brand="x", withdrawn=True),
        "c": row_of("c", withdrawn=True),
        "d": row_of("d"),
    }
    # It is sold again.
    assert take_in(lake, [row_of("c")]) == FeedCounts(changed=1)


def test_another_who_writes_at_the_same_time_loses_nothing(
    duckdb_engine: DuckDBEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lake, other = (Lake(str(tmp_path), duckdb_engine) for _ in range(2))
    take_in(lake, [row_of("a")])
    merge, calls = Lake.merge, []

    def merge_after_another(self: Lake, *arguments: Any) -> None:
        calls.append(self)
        if len(calls) == 1:
            merge(other, PRODUCT_FEED, arguments[1].slice(0, 0))
            raise LakeConflictError("another writer was first")
        merge(self, *arguments)

    monkeypatch.setattr(product_feed.Lake, "merge", merge_after_another)
    assert take_in(lake, [row_of("b")]) == FeedCounts(new=1)
    assert len(calls) == 2
    assert {row["product_id"] for row in lake.rows(PRODUCT_FEED).to_pylist()} == {"a", "b"}


def land(lake: Lake, batch: int, *records: tuple[bytes | None, bytes | None], first: int = 0) -> None:
    """Put records of a topic's partition into a batch of `raw_products`."""
    rows = [
        {
            **{"topic": "products", "partition": 0, "offset": first + n, "batch": batch},
            **{"kafka_time": ARRIVED, "key": key, "value": value},
        }
        for n, (key, value) in enumerate(records)
    ]
    table = pa.Table.from_pylist(rows, schema=RAW_PRODUCTS.arrow)
    lake.append_batch(RAW_PRODUCTS, lake.engine.from_arrow(table), batch)


def kept(lake: Lake) -> dict[str, tuple[Any, ...]]:
    rows = lake.rows(PRODUCT_FEED).to_pylist()
    return {row["product_id"]: (row["name"], row["price"], row["withdrawn"]) for row in rows}


def rejections(lake: Lake) -> list[tuple[Any, ...]]:
    rows = lake.rows(REJECTED_PRODUCTS).to_pylist()
    return sorted((row["offset"], row["field"], row["rule"], row["rejected_value"]) for row in rows)


def test_records_of_the_topic_are_taken_in_once_and_one_without_a_value_withdraws(
    duckdb_engine: DuckDBEngine, tmp_path: Path
):
    lake = Lake(str(tmp_path), duckdb_engine)
    land(
        lake,
        1,
        (b"a", b'{"name": "old"}'),
        # The value's own id comes before the key.
        (b"key", b'{"id": "b", "title": "B", "price": "2 EUR"}'),
        (b"a", b'{"g:id": "a", "g:title": "A"}'),
        (None, b'{"name": "of nothing"}'),
        (b"c", b"no JSON"),
        (b"d", None),
    )
    assert update_feed(lake, RULES) == 2
    assert kept(lake) == {
        "a": ("A", None, False),
        "b": ("B", money("2"), False),
        "d": (None, None, True),
    }
    rejected = [(3, "product_id", "missing", None), (4, None, "not_json", "no JSON")]
    assert rejections(lake) == rejected
    version = lake.version(PRODUCT_FEED)
    assert update_feed(lake, RULES) == 0
    assert (lake.version(PRODUCT_FEED), rejections(lake)) == (version, rejected)
    land(lake, 2, (b"a", None), (b"undefined", None), first=6)
    land(lake, 3, (b"d", b'{"name": "D"}'), (b"b", None), (b"b", b'{"price": 3}'), first=8)
    assert update_feed(lake, RULES) == 1
    assert kept(lake) == {
        "a": ("A", None, True),
        "b": (None, money("3"), False),
        "d": ("D", None, False),
    }
    assert rejections(lake)[-1] == (7, "product_id", "missing", "undefined")


def test_a_run_that_is_killed_between_its_two_tables_is_made_up_for(
    duckdb_engine: DuckDBEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lake = Lake(str(tmp_path), duckdb_engine)
    land(lake, 1, (b"a", b'{"name": "A"}'), (b"b", b"no JSON"))

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(product_feed, "take_in", killed)
        with pytest.raises(KeyboardInterrupt):
            update_feed(lake, RULES)
    assert (len(rejections(lake)), kept(lake)) == (1, {})
    # More came meanwhile, and a file between two batches.
    land(lake, 2, (b"a", b'{"name": "A2"}'), (b"c", b"[]"), first=2)
    take_in(lake, [row_of("a", name="file"), row_of("f")])
    update_feed(lake, RULES)
    assert [offset for offset, *_ in rejections(lake)] == [1, 3]
    assert kept(lake) == {"a": ("A2", None, False), "f": (None, None, False)}


def test_records_that_were_put_back_are_taken_in_again(duckdb_engine: DuckDBEngine, tmp_path: Path):
    lake = Lake(str(tmp_path), duckdb_engine)
    land(lake, 1, (b"a", b'{"name": "A"}'))
    land(lake, 2, (b"a", b'{"name": "A2"}'), first=1)
    update_feed(lake, RULES)
    shutil.rmtree(lake.path(RAW_PRODUCTS))
    land(lake, 1, (b"a", b'{"name": "A"}'), (b"b", b'{"name": "B"}'))
    update_feed(lake, RULES)
    assert kept(lake) == {"a": ("A", None, False), "b": ("B", None, False)}
