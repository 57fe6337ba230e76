"""JSON is one record, several, or a list of them in one object, however its lines are broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clickstream_assets.errors import InputError
from clickstream_assets.ingest.files import Columns, EventFile

CALLS = [
    {
        "type": "page",
        "messageId": f"m{number}",
        "anonymousId": "a",
        "timestamp": "2024-05-02T10:00:00Z",
        "n": number,
    }
    for number in range(3)
]
ORDER = {
    "type": "track",
    "event": "Order Completed",
    "anonymousId": "a",
    "timestamp": "2024-05-02T10:00:00Z",
    "properties": {"order_id": "o1", "products": [{"product_id": "p1"}, {"product_id": "p2"}]},
}
GA4 = {
    "event_name": "page_view",
    "event_timestamp": "1714644000000000",
    "user_pseudo_id": "1.2",
    "event_params": [{"key": "page_title", "value": {"string_value": "Home"}}],
}
OWN = {
    "event_type": "purchase",
    "user_id": "u",
    "timestamp": "2024-05-02T10:00:00Z",
    "items": [{"product_id": "p1", "price": 5}, {"product_id": "p2", "price": 7}],
}
OWN_ITEMS = {"items": [{"event_type": "page_view", "user_id": "u", "timestamp": "2024-05-02T10:00:00Z"}]}
BATCH = {"context": {"locale": "en"}, "batch": CALLS}
SESSION = {"session": 1, "events": [{"aid": 7, "ts": 1_659_304_800_025, "type": "clicks"}]}


def with_inner_objects_on_a_line(value: Any) -> str:
    """JSON as formatters write it: what is short and deep is on one line."""
    members = ",\n".join(f"  {json.dumps(name)}: {_list(given)}" for name, given in value.items())
    return "{\n" + members + "\n}\n"


def _list(given: Any) -> str:
    if not isinstance(given, list):
        return json.dumps(given)
    return "[\n" + ",\n".join("    " + json.dumps(one) for one in given) + "\n  ]"


FORMS: dict[str, Callable[[Any], str]] = {
    "one line": json.dumps,
    "indented": lambda value: json.dumps(value, indent=2),
    "inner objects on a line": with_inner_objects_on_a_line,
    "a blank line first": lambda value: "\n \n" + with_inner_objects_on_a_line(value),
    "a byte order mark": lambda value: "\ufeff" + with_inner_objects_on_a_line(value),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.json"


def values_of(path: Path, columns: Columns | None = None) -> list[Any]:
    return [json.loads(value) for _, value in EventFile(path, columns or Columns())]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    "event", [ORDER, GA4, OWN, OWN_ITEMS, BATCH], ids=["call", "GA4", "own", "items", "batch"]
)
def test_an_object_that_is_an_event_is_one_record_however_its_lines_are_broken(path, form, event):
    path.write_text(form(event), encoding="utf-8")
    assert values_of(path) == [event]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_several_objects_over_several_lines_are_a_record_each(path, form):
    path.write_text("\n".join(form(one).lstrip("\ufeff") for one in (ORDER, GA4, OWN)), encoding="utf-8")
    assert values_of(path) == [ORDER, GA4, OWN]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("name", ["results", "items", "events", "data", 'of "mine"'])
def test_the_one_list_of_objects_of_an_object_is_its_events(path, form, name):
    page = {
        "next": None,
        "count": 3,
        "timestamp": "now",
        "tags": ["a", 1.5],
        name: CALLS,
        "more": {name: [{}]},
        "left": [],
    }
    path.write_text(form(page), encoding="utf-8")
    events = EventFile(path)
    assert events.format == f"the list {name!r} of a JSON object"
    assert [json.loads(value) for _, value in events] == CALLS
    assert [key for key, _ in events] == [b"a"] * 3


@pytest.mark.parametrize("answers", [[{"status": 200}], CALLS], ids=["others", "calls"])
def test_of_several_lists_the_one_whose_objects_are_events_is_read(path, answers):
    path.write_text(json.dumps({"answers": [{"status": 200}], "items": CALLS, "more": answers}))
    if answers is CALLS:
        with pytest.raises(InputError, match=r"several lists of objects.*answers.*items.*more"):
            EventFile(path)
        return
    assert EventFile(path).format == "the list 'items' of a JSON object"
    assert values_of(path) == CALLS


def test_a_list_in_an_object_keeps_what_is_written_and_leaves_what_is_no_object_to_the_pipeline(path):
    path.write_text('{"results": [{"userId": 1, "price": 12.50}, null, 7,\n {"a": [1]}], "n": 1e400}')
    assert [value for _, value in EventFile(path)] == [
        b'{"userId": 1, "price": 12.50}', b"null", b"7", b'{"a": [1]}',
    ]  # fmt: skip


def test_otto_sessions_in_an_object_are_read_as_their_lines(path):
    path.write_text(json.dumps(SESSION))
    of_lines = values_of(path)
    path.write_text(json.dumps({"sessions": [SESSION]}))
    assert EventFile(path).format == "OTTO sessions"
    assert values_of(path) == of_lines != []


def test_fields_are_mapped_in_an_object_and_in_its_list(path):
    kinds = Columns.of(["event_type=kind"])
    one = {"kind": "view", "user_id": "u", "things": [{"kind": "x"}]}
    path.write_text(json.dumps(one, indent=1))
    assert [value["event_type"] for value in values_of(path, kinds)] == ["view"]
    path.write_text(json.dumps({"things": [one, one]}, indent=1))
    assert [value["event_type"] for value in values_of(path, kinds)] == ["view", "view"]
    with pytest.raises(
        InputError, match=r"--map event_type=sort: no object at the beginning of .* has 'sort'"
    ):
        EventFile(path, Columns.of(["event_type=sort"]))


@pytest.mark.parametrize("form", [FORMS["one line"], FORMS["indented"]], ids=["one line", "indented"])
def test_an_object_of_many_bytes_is_read_by_its_list_too(path, form):
    calls = [{**CALLS[0], "messageId": f"m{number}", "text": "x" * 1000} for number in range(3000)]
    path.write_text(form({"cursor": {"next": [1, 2]}, "results": calls, "took": 3}))
    assert path.stat().st_size > 3_000_000
    events = EventFile(path)
    assert events.format == "the list 'results' of a JSON object"
    assert [json.loads(value) for _, value in events] == calls
    path.write_text(path.read_text()[:2_500_000])
    with pytest.raises(InputError, match=r"the file is truncated, after 2\d{3} readable events"):
        list(EventFile(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps({"views": CALLS, "orders": CALLS}), r"several lists.*jq -c '\.\[\"views\"\]\[\]'.* or jq .*orders"),
        (json.dumps({"results": CALLS}) + "\n" + json.dumps({"results": CALLS}), r"jq -c '\.\[\"results\"\]\[\]'"),
        (json.dumps({"results": CALLS}, indent=1) * 2, r"events.json has JSON objects that are no events.*jq -c"),
        ('{"results":\n[{"a": 1}]}\noops', "more follows after the object that has its events in 'results'"),
        ('{"results": [{"a": 1}, {"a": oops}]}', "is of no known format"),
        ('{"next": 1, "res', "ends within its first JSON object: the file is truncated"),
        ('{\n"results": [\n{"a": 1},\n{"a": 2}', "the file is truncated, after 2 readable events"),
        (json.dumps({"rows": {"a": "x" * (1 << 20)}}), "is one big JSON object.* no list of events is in its first"),
        (json.dumps({**OWN, "text": "x" * (1 << 20)}), "is one big JSON object, which begins with event_type, user_id"),
    ],
    ids=["two lists", "lines", "objects", "more", "broken", "cut", "cut in the list", "big", "big event"],
)  # fmt: skip
def test_an_object_whose_events_cannot_be_told_says_what_to_do(path, text, message):
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        list(EventFile(path))


@pytest.mark.parametrize("first", ['{"user_id": "u", "eve', '{"user_id": "u"}}', '{"user_id":', '{"n": NaN}'])
def test_a_line_that_is_broken_or_of_no_standard_leaves_lines_lines(path, first):
    written = [first, *map(json.dumps, CALLS), "oops"]
    path.write_text("\n".join(written))
    events = EventFile(path)
    assert events.format == "JSON lines"
    assert [value.decode() for _, value in events] == written
