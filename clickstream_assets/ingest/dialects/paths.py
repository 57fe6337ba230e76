"""Small helpers of the dialects: values by nested paths, what is left besides, and one item per product."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

from clickstream_assets.catalogue import TYPES_OF_PRODUCTS

Item = tuple[dict[str, Any], str]
"""An event's own fields as an own record has them, and what its id ends in besides the record's."""

Table = tuple[tuple[str, tuple[tuple[str, tuple[str, ...]], ...]], ...]
"""For each own field the paths at which a record has it, a name and those below it each; the first value counts."""

PER_PRODUCT = TYPES_OF_PRODUCTS | {"view", "click", "impression", "refund"}
"""Event types of which a record with several products is one event each."""

# Google's word for what is missing, in any field.
NOT_SET = "(not set)"


def table(**paths: str) -> Table:
    """Make a table of `field="first.path second.path"`."""
    return tuple(
        (field, tuple((first, tuple(more)) for first, *more in (path.split(".") for path in text.split())))
        for field, text in paths.items()
    )


def with_joined_names(fields: Table) -> Table:
    """Return a table that also has each nested name as one: a.b as a_b and "a.b", as flat tables name their columns."""
    return tuple(
        (
            field,
            (*paths, *((mark.join((first, *more)), ()) for first, more in paths if more for mark in "_.")),
        )
        for field, paths in fields
    )


Written = Mapping[str, tuple[tuple[str, ...], ...]]
"""For each own field the paths, from some object of a record on, at which the record has it."""


def written(*tables: Table, **more: str) -> Written:
    """Return the paths of tables, and more of them as `table` takes them."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for field, paths in (row for one in (*tables, table(**more)) for row in one):
        found.setdefault(field, []).extend((first, *rest) for first, rest in paths)
    return {field: tuple(dict.fromkeys(paths)) for field, paths in found.items()}


def at(value: Any, *path: str) -> Any:
    """Return what a record has at a path; None where a part of it is missing or no object."""
    for name in path:
        if type(value) is not dict:
            return None
        value = value.get(name)
    return value


def mapping(value: Any) -> dict[str, Any]:
    """Return an object, or an empty one for anything else."""
    return value if type(value) is dict else {}


def objects(value: Any) -> list[dict[str, Any]]:
    """Return a list's objects, in their places; one that stands alone is a list of one."""
    if type(value) is dict:
        return [value] if value else []
    # What is no object has no product either; it keeps its place, so that it is rejected and counted.
    return [one if type(one) is dict else {} for one in value] if type(value) is list else []


def is_given(value: Any) -> bool:
    """Return whether a value is something."""
    return value is not None and value != "" and value != NOT_SET


def picked(record: dict[str, Any], fields: Table) -> dict[str, Any]:
    """Return the fields of a table that a record has."""
    found = {}
    for field, paths in fields:
        for first, more in paths:
            value = record.get(first)
            for name in more:
                value = value.get(name) if type(value) is dict else None
            if value is not None and value != "" and value != NOT_SET:
                found[field] = value
                break
    return found


def names(*fields: Table) -> frozenset[str]:
    """Return the names that tables begin their paths with."""
    return frozenset(first for one in fields for _, paths in one for first, _ in paths)


def rest(record: dict[str, Any], read: frozenset[str]) -> dict[str, Any]:
    """Return what a record has besides what was read of it."""
    return {name: value for name, value in record.items() if name not in read}


def without_empty(given: dict[str, Any]) -> dict[str, Any]:
    """Return an object without what is empty in it, at any depth: null, "", [], {} and "(not set)"."""
    kept = {}
    for name, value in given.items():
        kind = type(value)
        if kind is dict:
            value = without_empty(value)
        elif kind is list:
            value = _without_empty(value)
        # Neither 0 nor false is empty.
        if (value or value == 0) and value != NOT_SET:
            kept[name] = value
    return kept


def _without_empty(given: list[Any]) -> list[Any]:
    """Return a list, whose elements keep their places, with what is in them; an empty one where all are empty."""
    kept = []
    has_some = False
    for value in given:
        kind = type(value)
        if kind is dict:
            value = without_empty(value)
        elif kind is list:
            value = _without_empty(value)
        has_some = has_some or bool((value or value == 0) and value != NOT_SET)
        kept.append(value)
    return kept if has_some else []


# A day and the time on it, without an offset or a zone.
_ZONELESS = re.compile(r"\s*\d{4}-?\d\d-?\d\d[T ][\d:.,]+\s*", re.IGNORECASE)


def in_utc(time: Any) -> Any:
    """Return a time with its zone, where the sender's clock is UTC's wherever the shop is; a number as it is."""
    # Most end in it.
    if type(time) is str and time[-1:] != "Z" and _ZONELESS.fullmatch(time):
        return f"{time.strip()}Z"
    return time


def spread(shared: dict[str, Any], products: Iterable[tuple[dict[str, Any], dict[str, Any]]]) -> list[Item]:
    """Make one item for each product of a record, or one of the record where it has none or is not about products.

    Args:
        shared: own fields of the record, with `properties`, of which what is empty is left out.
        products: own fields and properties of each product, the latter likewise.
    """
    event_type = shared.get("event_type")
    given = shared["properties"] = without_empty(shared["properties"])
    if event_type in PER_PRODUCT:
        items = [
            ({**shared, **fields, "properties": given | without_empty(more) if more else given}, f"-{place}")
            for place, (fields, more) in enumerate(products, start=1)
        ]
        if items:
            return items
    if event_type == "impression" and "product_id" not in shared:
        # A list without its products is a page.
        shared["event_type"] = "page_view"
    return [(shared, "")]


@lru_cache(maxsize=65_536)
def name_key(name: str) -> str:
    """Return an event's name in the one spelling that the dialects look it up by: `order completed`."""
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def type_of(name: Any, types: Mapping[str, str]) -> str | None:
    """Return the event type that a sender's name stands for; None for one of their own."""
    return types.get(name_key(name)) if type(name) is str else None


def in_query(address: Any, *keys: str) -> str | None:
    """Return the first of some keys that an address, or the query of one, has a value for."""
    if type(address) is not str or "=" not in address:
        return None
    query = address.lstrip("?") if "?" not in address.lstrip("?") else _query_of(address)
    values = _values(query)
    return next((values[key][0] for key in keys if key in values), None)


def _query_of(address: str) -> str:
    try:
        return urlsplit(address).query
    except ValueError:
        # Such as half of an IPv6 address.
        return ""


@lru_cache(maxsize=4096)
def _values(query: str) -> Mapping[str, list[str]]:
    try:
        return {name.lower(): values for name, values in parse_qs(query).items()}
    except ValueError:
        # More fields than anybody's address has.
        return {}


# What shops name the purpose of knowing what a visitor does.
_PROFILING = ("analytics", "statistics", "performance", "c0002")


def consent_of(categories: Any) -> bool | None:
    """Return the consent that a shop's categories come to: that of analytics, or else of all of them."""
    answers = {
        name.lower(): str(answer).lower() == "true"
        for name, answer in mapping(categories).items()
        if answer is not None
    }
    for name in _PROFILING:
        if name in answers:
            return answers[name]
    return all(answers.values()) if answers else None
