"""Where in a record, as its sender wrote it, an own field comes from.

Nothing says it twice: a place is found by writing something else there and translating the record anew, so it is what
the dialect's own functions read.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

from clickstream_assets.ingest.dialects import paths_of
from clickstream_assets.ingest.fields import TIMESTAMP_FIELDS, Rejection, ValidationRules
from clickstream_assets.ingest.parsing import decode_any, items_of, read_payload
from clickstream_assets.ingest.record_paths import Every, Having, Path, nodes, with_value, write_path
from clickstream_assets.settings import EventDialect

# Short, and like nothing that a dialect knows: no number, no time, no name of an event.
_MARK = "\ue000mark"
# Most places have the value as it is, and are found at once; of a record of thousands of lines others are not.
_MOST_TRIES = 500

_OF_A_LINE = frozenset(
    {*("product_id", "product_category", "brand", "price", "quantity", "currency"), "order_line"}
)


class Origin(NamedTuple):
    """The dialect of a record, and where it has a field: a path, of an object that lacks it too, or None."""

    dialect: EventDialect
    path: Path | None

    @property
    def words(self) -> str | None:
        """The path as it is written."""
        return write_path(self.path) if self.path else None


def origin_of(value: bytes | None, item: int, field: str | None, rules: ValidationRules) -> Origin | None:
    """Find where a rejected record has the field that is wrong, or would have it, were it not missing.

    Args:
        value: the record's bytes.
        item: the place in the record, from 1, of what was rejected.
        field: the own field; None for the whole record.
        rules: those of the record's topic.

    Returns:
        None for a record that has no fields: it is no JSON object, and no line that a dialect knows.
    """
    if value is None:
        return None
    try:
        payload, dialect = read_payload(value, rules.event_dialect)
    except Rejection:
        return None
    return Origin(dialect, _path(payload, dialect, item - 1, field) if field else None)


def _path(payload: dict[str, Any], dialect: EventDialect, index: int, field: str) -> Path | None:
    if field == "items" and dialect is EventDialect.OWN:
        return ("items", index)
    sent = _fields(payload, dialect, index)
    value = _value(sent, field)
    everywhere = list(nodes(payload, decode_any))
    if value is not None:
        # What is passed on as it is, lines that are in the item's place first; then what is made from several values.
        same = [path for path, node in everywhere if node == value and type(node) is type(value)]
        same.sort(key=lambda path: index not in path)
        others = (path for path, node in everywhere if not isinstance(node, dict | list))
        candidates: Iterable[Path] = chain(same, others)
    else:
        candidates = _lacking(everywhere, field, dialect)
    part = None
    for path in islice(candidates, _MOST_TRIES):
        found = _fields(with_value(payload, path, _MARK, decode_any), dialect, index)
        if _value(found, field) == _MARK:
            return _by_key(path, payload)
        if part is None and _value(found, field) != value:
            # What says the type of an event says of other fields whether they are there.
            is_of_it_alone = _without(found, field) == _without(sent, field)
            part = path if is_of_it_alone or field == "event_type" else None
    return _by_key(part, payload) if part else None


def _fields(payload: dict[str, Any], dialect: EventDialect, index: int) -> dict[str, Any]:
    """Return the own fields of an item; none where it cannot be read, or is not there."""
    try:
        item = items_of(payload, dialect)[index]
    except (Rejection, IndexError):
        return {}
    return {} if isinstance(item, Rejection) else item[0]


def _value(fields: dict[str, Any], field: str) -> Any:
    names = TIMESTAMP_FIELDS if field == "timestamp" else (field,)
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _without(fields: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in (field, "properties")}


def _lacking(everywhere: list[tuple[Path, Any]], field: str, dialect: EventDialect) -> Iterator[Path]:
    """Yield where a field could be that is nowhere, by the name that counts first: in the record, or in its lines."""
    objects: list[Path] = [(), *(path for path, node in everywhere if isinstance(node, dict))]
    objects.sort(key=len, reverse=field in _OF_A_LINE)
    for names in paths_of(field, dialect):
        for path in objects:
            yield (*path, *names)


def _by_key(path: Path, payload: Any) -> Path:
    """Return a path that names an element of a list by its `key`, if it has one: its place is not always the same."""
    named: list[Any] = []
    node = payload
    for step in path:
        assert not isinstance(step, Having | Every)
        try:
            node = node[step] if isinstance(node, list) else node.get(step)  # type: ignore[index]
        except (AttributeError, IndexError, KeyError):
            node = None
        key = node.get("key") if isinstance(step, int) and isinstance(node, dict) else None
        named.append(Having("key", key) if isinstance(key, str) and key.isidentifier() else step)
    return tuple(named)
