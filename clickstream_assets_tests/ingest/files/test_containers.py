"""A file is the same events, whatever it is compressed or packed with, and says where it is broken."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from clickstream_assets.errors import InputError
from clickstream_assets.ingest.files import EventFile

EVENTS = [{"event_type": "view", "user_id": f"user_{number}", "price": 12.5} for number in range(20_000)]
LINES = b"".join(json.dumps(one).encode() + b"\n" for one in EVENTS)
CSV = "event_type,user_id,timestamp\n" + "view,u1,2024-05-02T10:00:00Z\n" * 3
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": partial(lzma.compress, preset=0),
    "zstd": zstandard.ZstdCompressor().compress,
}


def values_of(path: Path) -> list[bytes]:
    return [value for _, value in EventFile(path)]


def zipped(path: Path, files: Mapping[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file whose name says nothing."""
    return tmp_path / "events"


@pytest.mark.parametrize("compress", COMPRESSIONS.values(), ids=COMPRESSIONS)
def test_compression_is_recognised_by_content(path, compress):
    path.write_bytes(compress(LINES))
    assert values_of(path) == LINES.splitlines()


@pytest.mark.parametrize("compress", COMPRESSIONS.values(), ids=COMPRESSIONS)
def test_parts_that_were_compressed_each_and_put_together_are_one_file(path, compress):
    middle = LINES.index(b"\n", len(LINES) // 2) + 1
    path.write_bytes(compress(LINES[:middle]) + compress(LINES[middle:]))
    assert values_of(path) == LINES.splitlines()


@pytest.mark.parametrize("compress", COMPRESSIONS.values(), ids=COMPRESSIONS)
def test_a_truncated_file_gives_what_is_readable_and_says_so(path, compress):
    whole = compress(
        b"".join(b'{"user_id": "%d"}\n' % (number * 7919 % 999_983) for number in range(100_000))
    )
    path.write_bytes(whole[: len(whole) * 3 // 4])
    read: list[Any] = []
    with pytest.raises(InputError, match=r"the file is truncated, after \d+ readable events") as caught:
        read.extend(EventFile(path))
    read_before = int(str(caught.value).split("after ")[1].split()[0])
    assert read_before > 1_000


@pytest.mark.parametrize("compress", COMPRESSIONS.values(), ids=COMPRESSIONS)
def test_a_damaged_file_says_so(path, compress):
    whole = bytearray(
        compress(b"".join(b'{"user_id": "%d"}\n' % (n * 7919 % 999_983) for n in range(100_000)))
    )
    whole[len(whole) // 2 : len(whole) // 2 + 40] = b"\xff" * 40
    path.write_bytes(whole)
    with pytest.raises(InputError, match=r"damaged|truncated"):
        values_of(path)


@pytest.mark.parametrize("compress", COMPRESSIONS.values(), ids=COMPRESSIONS)
def test_a_file_of_which_nothing_is_readable_is_named_with_its_compression(path, compress):
    path.write_bytes(compress(LINES)[:9])
    with pytest.raises(InputError, match=r"events is a truncated or damaged \w+ file; fetch it again"):
        EventFile(path)


def test_the_one_file_in_a_zip_is_read_also_if_it_is_compressed_again(path):
    assert values_of(zipped(path, {"data/events.csv": CSV}))[0].startswith(b'{"event_type":"view"')
    assert values_of(zipped(path, {"events.jsonl.gz": gzip.compress(LINES)})) == LINES.splitlines()


def test_of_a_zip_of_several_files_the_one_of_events_is_read(path):
    zipped(
        path,
        {
            "events.csv": CSV,
            "category_tree.csv": "categoryid,parentid\n1,2\n",
            "README.txt": "what is in here\n",
            "__MACOSX/._events.csv": b"\x00\x05\x16\x07",
        },
    )
    assert len(values_of(path)) == 3


def test_a_zip_of_several_files_of_events_or_of_none_names_them(path):
    zipped(path, {"may.csv": CSV, "june.csv": CSV, "notes.txt": "x\n"})
    with pytest.raises(InputError, match=r"has several files of events: june\.csv, may\.csv; unpack it"):
        EventFile(path)
    zipped(path, {"a.txt": "x\n", "b.txt": "y\n"})
    with pytest.raises(InputError, match=r"has no file of events, but a\.txt, b\.txt"):
        EventFile(path)
    zipped(path, {})
    with pytest.raises(InputError, match="is a zip with no file in it"):
        EventFile(path)


def test_what_olists_items_refer_to_is_found_in_the_zip(path):
    zipped(
        path,
        {
            "olist_orders_dataset.csv": "order_id,customer_id,order_status,order_purchase_timestamp\n"
            "o1,c1,delivered,2017-09-13 08:59:02\n",
            "olist_customers_dataset.csv": "customer_id,customer_unique_id\nc1,person\n",
            "olist_order_items_dataset.csv": "order_id,order_item_id,product_id,price\no1,1,p1,58.90\n",
        },
    )
    assert [json.loads(value)["user_id"] for value in values_of(path)] == ["person"]


@pytest.mark.parametrize("size", [100, -1])
def test_a_truncated_zip_says_so(path, size):
    whole = zipped(path, {"events": LINES}).read_bytes()
    path.write_bytes(whole[:size])
    with pytest.raises(InputError, match="is a truncated or damaged zip file"):
        EventFile(path)


def test_a_tar_archive_is_to_be_unpacked(path):
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("events.jsonl")
        member.size = len(LINES)
        archive.addfile(member, io.BytesIO(LINES))
    with pytest.raises(InputError, match="is a tar archive; unpack it"):
        EventFile(path)


@pytest.mark.parametrize(
    ("begin", "name"), [(b"7z\xbc\xaf\x27\x1c\x00\x04", "7z"), (b"Rar!\x1a\x07\x01\x00", "RAR")]
)
def test_another_archive_is_to_be_unpacked(path, begin, name):
    path.write_bytes(begin + bytes(range(200)))
    with pytest.raises(InputError, match=f"is a {name} archive; unpack it"):
        EventFile(path)


def test_a_workbook_is_to_be_saved_as_csv(path):
    zipped(path, {"[Content_Types].xml": "<Types/>", "xl/workbook.xml": "<workbook/>"})
    with pytest.raises(InputError, match="is a workbook of Excel's; save the sheet as CSV"):
        EventFile(path)


def test_a_pointer_of_git_lfs_is_to_be_fetched(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5668612855\n")
    with pytest.raises(InputError, match="is a pointer of Git LFS"):
        EventFile(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_named(path, encoding):
    mark = "" if encoding == "utf-16" else "\ufeff"
    path.write_bytes((mark + CSV).encode(encoding))
    with pytest.raises(InputError, match="is UTF-16, not UTF-8; convert it"):
        EventFile(path)


# Written by the test: every test process collects this file.
ARRAYS: dict[str, Callable[[], str]] = {
    "one line": lambda: json.dumps(EVENTS),
    "a value a line": lambda: "[\n" + ",\n".join(map(json.dumps, EVENTS)) + "\n]\n",
    "indented": lambda: json.dumps(EVENTS, indent=4),
    "with a byte order mark": lambda: "\ufeff " + json.dumps(EVENTS),
    "an array a line": lambda: "".join(
        json.dumps(EVENTS[at : at + 100]) + "\n" for at in range(0, len(EVENTS), 100)
    ),
    "objects over several lines": lambda: "\n".join(json.dumps(one, indent=2) for one in EVENTS),
}


@pytest.mark.parametrize("write", ARRAYS.values(), ids=ARRAYS)
def test_the_objects_of_an_array_are_its_events_a_line_each(path, write):
    path.write_text(write(), encoding="utf-8")
    values = values_of(path)
    assert [json.loads(value) for value in values] == EVENTS
    assert not any(b"\n" in value for value in values)


def test_an_array_keeps_what_is_written_and_leaves_what_is_no_object_to_the_pipeline(path):
    path.write_bytes(
        b'[{"user_id": 1, "price": 12.50, "n": 123456789012345678901234567890}, null, 7 , "x]" ,{}]'
    )
    assert values_of(path) == [
        b'{"user_id": 1, "price": 12.50, "n": 123456789012345678901234567890}',
        b"null",
        b"7",
        b'"x]"',
        b"{}",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'[{"a": 1}, {"a": 2}', "the file is truncated, after 2 readable events"),
        (b'[{"a": 1}, {"a": ', "the file is truncated, after 1 readable events"),
        (b'[{"a": 1}, {"a": oops}]', "value 2 is no JSON"),
        (b'[{"a": 1}] oops}', "value 2 is no JSON"),
        (b'[{"a": 1}, ' + b"[" * 100_000 + b"]" * 100_000 + b"]", "value 2 is no JSON"),
        (b'[{"a": "caf\xe9"}, {"a": "\xe9"}]', "is not UTF-8: byte 0xe9"),
        (b"[1, 2, 3]", "is of no known format"),
        (b"[]", "is of no known format"),
    ],
)
def test_an_array_that_is_broken_says_where(path, text, message):
    path.write_bytes(text)
    with pytest.raises(InputError, match=message):
        values_of(path)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["array", "list", "lines", "parquet"])
def test_a_file_is_read_in_little_memory(path, form):
    row: dict[str, Any] = {
        "event_type": "view",
        "user_id": "u",
        "timestamp": "2024-05-02T10:00:00Z",
        "properties": "x" * 400,
    }
    number = 50_000
    if form == "parquet":
        parquet.write_table(pa.Table.from_pylist([row] * number), path, row_group_size=20_000)
    else:
        text = json.dumps(row)
        array = "[" + ",".join([text] * number) + "]"
        written = {"array": array, "list": f'{{"results": {array}}}', "lines": f"{text}\n" * number}
        path.write_text(written[form])
        del array, written
        assert path.stat().st_size > 20_000_000
    events = EventFile(path)
    tracemalloc.start()
    try:
        assert sum(1 for _ in events) == number
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 15_000_000


@pytest.mark.parametrize("wrap", [gzip.compress, lambda data: data], ids=["gzip", "zip"])
def test_parquet_is_read_out_of_another_container(path, wrap):
    written = io.BytesIO()
    parquet.write_table(
        pa.Table.from_pylist([{"event_type": "view", "user_id": "u", "timestamp": "x"}]), written
    )
    if wrap is gzip.compress:
        path.write_bytes(wrap(written.getvalue()))
    else:
        zipped(path, {"events.parquet": written.getvalue()})
    events = EventFile(path)
    assert events.format == "Parquet of own fields"
    assert len(list(events)) == 1


def test_a_truncated_parquet_file_says_so(path):
    parquet.write_table(
        pa.Table.from_pylist([{"event_type": "view", "user_id": "u", "timestamp": "x"}]), path
    )
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="is a truncated or damaged Parquet file"):
        EventFile(path)
