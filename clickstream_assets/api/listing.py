"""Routes that list rows: all are filtered and paged in the same way, and answer JSON or CSV.

`listing` makes the route of a served table, by what the catalogue says that it can be filtered and sorted by. A list
that is more than the rows of one table is made by a function of its own, which `list_route` makes a route.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, LiteralString
from urllib.parse import urlencode

import pyarrow as pa
from apiflask import APIBlueprint, Schema, fields
from flask import Response, request
from psycopg import Connection, sql
from psycopg.rows import DictRow

from clickstream_assets.api.database import database
from clickstream_assets.api.fields import schema_of
from clickstream_assets.api.formats import CSV, chosen_format, csv_of
from clickstream_assets.api.parameters import Choice, QueryParameters, Text, WholeNumber, parameter_of
from clickstream_assets.api.problems import REQUEST_TOO_LONG, documented
from clickstream_assets.api.product_details import with_details
from clickstream_assets.api.pseudonyms import kept_id, kept_person
from clickstream_assets.api.queries import (
    Asked,
    Condition,
    Page,
    newest,
    page_of,
    person_of_visitor,
)
from clickstream_assets.api.scopes import needs
from clickstream_assets.catalogue import Table, who
from clickstream_assets.keys import Scope

FORMATS = {"json": "application/json", "csv": "text/csv"}
MAX_LIMIT = 1000
"""Rows of a page at most."""

LISTED: dict[str, str] = {}
"""The addresses of the lists that `listing` has made, by their table's name."""

SHOWN_OF_PRODUCT = {
    name: fields.String(
        required=True,
        allow_none=True,
        metadata={"description": f"The product's {what}, as it is now; null where it is not known"},
    )
    for name, what in (("name", "name"), ("image", "picture's address"))
}
"""Fields of what rows show of their product."""

View = Callable[..., dict[str, Any]]

_DOCUMENTED: dict[int, dict[str, Any]] = {
    200: {
        "content": {
            "text/csv": {
                "schema": {
                    "type": "string",
                    "description": "The listed rows (RFC 4180, UTF-8, with a header row). Money has all its "
                    "decimals, null is empty, a list is JSON. A text that a spreadsheet would compute, "
                    "since it starts with =, +, -, @, a tab or a line's end, has a ' before it; JSON has it as it is.",
                }
            }
        },
        "headers": {
            "Link": {
                "description": 'The next page, if there is more: <?…&offset=…>; rel="next"',
                "schema": {"type": "string"},
            },
        },
    }
}


@dataclass(frozen=True)
class Filter:
    """A query parameter that is a condition on a column.

    Attributes:
        column: The column's name.
        field: The parameter's field.
        comparison: How the column's value compares with the parameter's.
        meanings: The column's value for each of the parameter's, where they differ; None for any value.
    """

    column: str
    field: fields.Field
    comparison: LiteralString = "="
    meanings: Mapping[Any, object] | None = None

    def condition(self, asked: object) -> Condition | None:
        """Return the condition for the parameter's value; none where every row meets it."""
        value = asked if self.meanings is None else self.meanings[asked]
        return None if value is None else Condition(self.column, self.comparison, value)


@dataclass(frozen=True)
class VisitorFilter(Filter):
    """A parameter that is an anonymous id, and a condition on the person that it is now."""

    def condition(self, asked: object) -> Condition | None:
        """Return the condition for an anonymous id."""
        person = person_of_visitor(kept_id("anonymous", str(asked)))
        return Condition(self.column, self.comparison, person)


@dataclass(frozen=True)
class IdFilter(Filter):
    """A parameter that names a person or a visitor, and a condition on the column that has them."""

    def condition(self, asked: object) -> Condition | None:
        """Return the condition for a person, or for an anonymous id."""
        kept = kept_person(str(asked)) if self.column == "user_id" else kept_id("anonymous", str(asked))
        return Condition(self.column, self.comparison, kept)


@dataclass(frozen=True)
class AnyFilter(Filter):
    """A parameter that may be given several times, and a condition that a column has one of its values."""

    def condition(self, asked: object) -> Condition | None:
        """Return the condition for the parameter's values; none without any."""
        if not asked:
            return None
        return Condition(self.column, "= ANY", sql.SQL("({})").format(sql.Literal(asked)))


def filters_of(table: Table, *, newest_day: bool = False) -> dict[str, Filter]:
    """Return the filters of a table by their parameters, as the catalogue has them.

    Args:
        table: the table.
        newest_day: whether only the newest day is listed if no day is asked for.
    """
    filters = {}
    for column in table.columns:
        if column.parameter:
            default = "; the newest day by default" if newest_day and column.name == table.day else ""
            about = f"Only rows with this {column.name}{default}. {column.description}"
            kind = IdFilter if column.name in who.ID_KINDS else Filter
            filters[column.parameter] = kind(column.name, parameter_of(column, about))
        if column.parameter == "user_id" and "anonymous_id" not in table.by_name:
            visitor = Text(metadata={"description": "Only rows of the person that this anonymous id is now"})
            filters["anonymous_id"] = VisitorFilter(column.name, visitor)
    return filters | range_of(table)


def range_of(table: Table) -> dict[str, Filter]:
    """Return the filters `since` and `until` of the table's column that has them.

    A range of days includes its last day, a range of times ends before its last time.
    """
    bounds = {}
    for column in (column for column in table.columns if column.range):
        days = pa.types.is_date(column.type)
        since = f"Only rows whose {column.name} is this {'day' if days else 'time'} or later"
        until = f"Only rows whose {column.name} is {'this day or earlier' if days else 'before this time'}"
        bounds["since"] = Filter(column.name, parameter_of(column, since), ">=")
        bounds["until"] = Filter(column.name, parameter_of(column, until), "<=" if days else "<")
    return bounds


class PageInfo(Schema):
    """The part of a list that an answer has."""

    limit = fields.Integer(required=True, metadata={"description": "How many rows were asked for"})
    offset = fields.Integer(required=True, metadata={"description": "How many were passed over"})
    more = fields.Boolean(required=True, metadata={"description": "Whether there are rows after these"})


def list_route(
    blueprint: APIBlueprint,
    rule: str,
    answer: type[Schema],
    *,
    filters: Mapping[str, Filter] | None = None,
    parameters: Mapping[str, fields.Field] | None = None,
    limit: int = 10,
    path: type[Schema] | None = None,
    problems: Iterable[int] = (),
) -> Callable[[View], View]:
    """Make a function a `GET` route that answers a list.

    The function takes an `Asked`, the values of the path and those of `parameters` that were given. It returns the
    fields of the answer, with a `Page` for the list; `page` is filled in. As CSV the list comes alone. `needs` says on
    it which scope it needs.

    Args:
        blueprint: the blueprint that the route belongs to.
        rule: its address.
        answer: its JSON but for `page`, which is added; lists are fields of nested rows.
        filters: parameters that are conditions on columns.
        parameters: further parameters, or other fields for those of every list.
        limit: rows of a page by default.
        path: the variable parts of its address.
        problems: statuses of problems that the function raises, besides those of every list.
    """
    filters = filters or {}
    query = QueryParameters.from_dict(
        {
            "limit": WholeNumber(1, MAX_LIMIT, load_default=limit, metadata={"description": "How many rows"}),
            "offset": WholeNumber(
                0, 2**31 - 1, load_default=0, metadata={"description": "How many rows to pass over"}
            ),
            "format": Choice(
                *FORMATS, metadata={"description": "The form of the answer, whatever `Accept` says"}
            ),
            **{name: asked_for.field for name, asked_for in filters.items()},
            **(parameters or {}),
        }
    )
    page_info = fields.Nested(
        PageInfo, required=True, metadata={"description": "The part of the list that this is"}
    )
    paged = answer.from_dict({"page": page_info}, name=answer.__name__)
    columns = {
        name: list(field.inner.schema.fields)
        for name, field in answer().fields.items()
        if isinstance(field, fields.List)
    }

    def decorate(view: View) -> View:
        @wraps(view)
        def answered(query_data: dict[str, Any], **_: object) -> Any:
            form = chosen_format(FORMATS, query_data.pop("format", None))
            conditions = [
                asked_for.condition(query_data.pop(name))
                for name, asked_for in filters.items()
                if name in query_data
            ]
            asked = Asked(tuple(filter(None, conditions)), query_data.pop("limit"), query_data.pop("offset"))
            found = view(asked, **(request.view_args or {}), **query_data)
            [(name, page)] = [(name, part) for name, part in found.items() if isinstance(part, Page)]
            headers = {"Vary": "Accept", **_link(page)}
            if form == "csv":
                return Response(csv_of(columns[name], page.rows), headers=headers, content_type=CSV)
            info = {"limit": page.limit, "offset": page.offset, "more": page.more}
            return {**found, name: page.rows, "page": info}, headers

        route = blueprint.output(paged)(answered)
        route = blueprint.doc(
            responses={**_DOCUMENTED, **REQUEST_TOO_LONG, **documented(406, 422, 503, *problems)}
        )(route)
        route = blueprint.input(query, location="query", unknown="raise")(route)
        if path:
            route = blueprint.input(path, location="path")(route)
        return blueprint.get(rule)(route)

    return decorate


def listing(
    blueprint: APIBlueprint,
    rule: str,
    table: Table,
    row: str,
    description: str,
    *,
    scope: Scope,
    order: Sequence[str] = (),
    limit: int = 10,
    newest_day: bool = False,
    filters: Mapping[str, Filter] | None = None,
    with_more: bool = False,
    with_names: bool = False,
) -> type[Schema]:
    """Make `GET rule` the list of a served table's rows, under the name that ends the rule.

    The catalogue says which columns it can be filtered and sorted by. Equals are ordered by the key, the newest days
    and times first, so that pages do not overlap.

    Args:
        blueprint: the blueprint that the route belongs to.
        rule: its address.
        table: the table.
        row: name of a row in the OpenAPI document.
        description: the operation in the OpenAPI document; its first line is the summary.
        scope: what a key needs for it: `personal` where rows are persons', or about them.
        order: columns to sort by, with ` DESC` after those that fall; none for the key alone. If the table has
            columns to sort by, a client can sort by one of them instead of the first.
        limit: rows of a page by default.
        newest_day: whether only the newest day is listed if no day is asked for.
        filters: filters by their parameters, instead of those that the columns' types give.
        with_more: whether a row has the columns that only PostgreSQL has, after the others.
        with_names: whether a row has the `name` and `image` of its product, as they are now, after the others.

    Returns:
        The schema of a row.
    """
    name = rule.rpartition("/")[2]
    LISTED[table.name] = f"{blueprint.url_prefix or ''}{rule}"
    more = table.served.more if table.served and with_more else ()
    schema = schema_of(row, (*table.columns, *more), **(SHOWN_OF_PRODUCT if with_names else {}))
    columns = [column.name for column in (*table.columns, *more)]
    answer = {name: fields.List(fields.Nested(schema), required=True)}
    default_sort, _, falling = _with_key(table, order)[0].partition(" ")
    default_order = "desc" if falling else "asc"
    sortable = [column.name for column in table.columns if column.sort]
    sort_parameters = {
        "sort": Choice(
            *dict.fromkeys([default_sort, *sortable]),
            load_default=default_sort,
            metadata={"description": "Sort by"},
        ),
        "order": Choice("asc", "desc", load_default=default_order, metadata={"description": "Sort order"}),
    }
    others = order[1:]
    day = table.day if newest_day else None

    def view(asked: Asked, sort: str = default_sort, order: str = default_order) -> dict[str, Any]:
        falling = " DESC NULLS LAST" if table.by_name[sort].nullable else " DESC"
        terms = _with_key(table, [f"{sort}{falling if order == 'desc' else ''}", *others])
        if day and all(condition.column != day for condition in asked.conditions):
            asked = asked.where(Condition(day, "=", newest(table.served_name, day)))
        with database().snapshot() as connection:
            page = page_of(connection, table.served_name, columns, terms, asked)
            return {name: named(connection, page) if with_names else page}

    needs(scope)(view)
    view.__name__, view.__doc__ = f"list_{rule.strip('/').replace('/', '_')}", description
    list_route(
        blueprint,
        rule,
        Schema.from_dict(answer, name=name.capitalize()),
        filters={**filters_of(table, newest_day=newest_day), **(filters or {})},
        parameters=sort_parameters if sortable else None,
        limit=limit,
    )(view)
    return schema


def named(connection: Connection[DictRow], page: Page) -> Page:
    """Return the page, its rows with the `name` and `image` of their products."""
    return replace(page, rows=with_details(connection, page.rows, list(SHOWN_OF_PRODUCT)))


def _with_key(table: Table, order: Iterable[str]) -> list[str]:
    """Return an order of rows followed by the columns of the key that it lacks."""
    key = (f"{name} DESC" if table.by_name[name].range else name for name in table.key)
    terms: dict[str, str] = {}
    for term in (*order, *key):
        terms.setdefault(term.partition(" ")[0], term)
    return list(terms.values())


def _link(page: Page) -> dict[str, str]:
    """Return the header (RFC 8288) that names the next page; relative, because a proxy may have changed the path."""
    if not page.more:
        return {}
    sent = [(name, value) for name, value in request.args.items(multi=True) if name != "offset"]
    return {"Link": f'<?{urlencode([*sent, ("offset", page.offset + page.limit)])}>; rel="next"'}
