"""Paths into a decoded record, as its sender has it: `properties.products[1].price`.

A name follows a dot, and what is in brackets selects from a list: a place from 0, `[*]` for all, and `[key=currency]`
for those objects of which a field has a value. A name with dots or brackets in it is `["a.b"]`. A text that holds JSON,
as some trackers' fields do, is gone through as what it holds, and stays a text.
"""

import operator
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import msgspec

from clickstream_assets.ingest.fields import Rejection


class Having(NamedTuple):
    """The objects of a list of which a field has a value, as text."""

    name: str
    value: str


class Every(NamedTuple):
    """All elements of a list."""


Step: TypeAlias = str | int | Having | Every
Path: TypeAlias = tuple[Step, ...]
Decode: TypeAlias = Callable[[bytes], Any]

encoder = msgspec.json.Encoder(decimal_format="number", enc_hook=lambda unreadable: unreadable.raw)
"""Writes what was decoded, numbers as they were written."""

_PLAIN = re.compile(r'[^.\[\]="]+')
_BRACKETS = re.compile(
    r'\[(?:(?P<every>\*)|(?P<place>\d+)|"(?P<name>(?:[^"\\]|\\.)*)"|(?P<field>[^=\[\]"]+)=(?P<value>[^\[\]]*))\]'
)


def parse_path(text: str) -> Path:
    """Read a path.

    Raises:
        ValueError: it is none.
    """
    path, end = path_at_start(text)
    if end != len(text):
        raise ValueError(f"{text[end:]!r} of {text!r} is no step of a path")
    return path


def path_at_start(text: str) -> tuple[Path, int]:
    """Read the path that a text begins with; return it, and where it ends.

    Raises:
        ValueError: there is none.
    """
    steps: list[Step] = []
    end = 0
    while end < len(text):
        if found := _BRACKETS.match(text, end):
            steps.append(_bracketed(found))
        else:
            dot = bool(steps) and text[end] == "."
            found = _PLAIN.match(text, end + dot) if dot or not steps else None
            if found is None:
                break
            steps.append(found[0])
        end = found.end()
    if not steps:
        raise ValueError(f"{text!r} does not begin with a path")
    return tuple(steps), end


def _bracketed(found: re.Match[str]) -> Step:
    if found["every"]:
        return Every()
    if found["place"]:
        return int(found["place"])
    if found["field"]:
        return Having(found["field"], found["value"])
    return re.sub(r"\\(.)", r"\1", found["name"])


def write_path(path: Path) -> str:
    """Write a path as `parse_path` reads it."""
    written = ""
    for step in path:
        match step:
            case str() if _PLAIN.fullmatch(step):
                written += f".{step}" if written else step
            case str():
                escaped = re.sub(r'(["\\])', r"\\\1", step)
                written += f'["{escaped}"]'
            case int():
                written += f"[{step}]"
            case Having(name, value):
                written += f"[{name}={value}]"
            case _:
                written += "[*]"
    return written


def nodes(value: Any, decode: Decode, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every value in a record with its path, from the outermost inwards."""
    children: Iterator[tuple[Step, Any]] = iter(())
    if isinstance(value, str):
        value = _held(value, decode)
    if isinstance(value, dict):
        children = iter(value.items())
    elif isinstance(value, list):
        children = iter(enumerate(value))
    for step, child in children:
        yield (*path, step), child
        yield from nodes(child, decode, (*path, step))


def with_value(record: Any, path: Path, value: Any, decode: Decode) -> Any:
    """Return a record with a value at a path; objects that are missing on the way are made, elements are not."""
    return _changed(record, path, lambda _: value, decode)


def without(record: Any, path: Path, decode: Decode) -> Any:
    """Return a record without what is at a path."""
    return _changed(record, path, None, decode)


def _changed(node: Any, path: Path, change: Callable[[Any], Any] | None, decode: Decode) -> Any:
    """Return a value with what is at a path changed, or taken out; the value itself where the path leads nowhere."""
    if isinstance(node, str) and (held := _held(node, decode)) is not None:
        changed = _changed(held, path, change, decode)
        return node if changed is held else encoder.encode(changed).decode()
    step, *rest = path
    if isinstance(step, str):
        return _changed_field(node, step, tuple(rest), change, decode)
    if not isinstance(node, list):
        return node
    kept = []
    for place, element in enumerate(node):
        if not _selects(step, place, element):
            kept.append(element)
        elif rest:
            kept.append(_changed(element, tuple(rest), change, decode))
        elif change:
            kept.append(change(element))
    is_same = len(kept) == len(node) and all(map(operator.is_, kept, node))
    return node if is_same else kept


def _changed_field(
    node: Any, name: str, rest: Path, change: Callable[[Any], Any] | None, decode: Decode
) -> Any:
    fields = {} if node is None and change else node
    if not isinstance(fields, dict) or (change is None and name not in fields):
        return node
    if change is None and not rest:
        return {other: value for other, value in fields.items() if other != name}
    before = fields.get(name)
    after = _changed(before, rest, change, decode) if rest else change and change(before)
    # What was made on the way to nowhere is not kept.
    return node if rest and after is before else {**fields, name: after}


def _selects(step: Step, place: int, element: Any) -> bool:
    match step:
        case int():
            return step == place
        case Having(name, value):
            return isinstance(element, dict) and name in element and str(element[name]) == value
        case _:
            return True


def _held(text: str, decode: Decode) -> Any:
    """Return the object or list that a text is in JSON; None where it is none."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return decode(text.encode())
    except Rejection:
        return None
