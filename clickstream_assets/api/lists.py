"""Routes that list rows: all of them are paged in the same way, and answer JSON or CSV."""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any
from urllib.parse import urlencode

from apiflask import APIBlueprint, Schema, fields
from flask import Response, request
from marshmallow import post_load

from clickstream_assets.api.daily_queries import Days
from clickstream_assets.api.formats import CSV, chosen_format, csv_of
from clickstream_assets.api.parameters import Choice, Day, QueryParameters, WholeNumber
from clickstream_assets.api.problems import REQUEST_TOO_LONG, documented
from clickstream_assets.api.queries import Page

FORMATS = {"json": "application/json", "csv": "text/csv"}
MOST = 1000
"""Rows of a page at most."""

View = Callable[..., dict[str, Any]]

_DOCUMENTED: dict[int, dict[str, Any]] = {
    200: {
        "content": {
            "text/csv": {
                "schema": {
                    "type": "string",
                    "description": "The listed rows (RFC 4180, UTF-8, with a header row). Money has all its "
                    "decimals, null is empty, a list is JSON. Texts are as they were sent, also those that start "
                    "like a formula: import them into a spreadsheet as text.",
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


def row_limit(default: int) -> WholeNumber:
    """The parameter `limit`."""
    return WholeNumber(1, MOST, load_default=default, metadata={"description": "How many rows"})


class ListParameters(QueryParameters):
    """What every list takes."""

    limit = row_limit(10)
    offset = WholeNumber(0, 2**31 - 1, load_default=0, metadata={"description": "How many rows to pass over"})
    format = Choice(*FORMATS, metadata={"description": "The form of the answer, whatever `Accept` says"})


class RangeParameters(ListParameters):
    """What every list of one thing's days takes."""

    since = Day(metadata={"description": "Only UTC days from this one on"})
    until = Day(metadata={"description": "Only UTC days up to this one, which is included"})


class DaysParameters(RangeParameters):
    """What every list of days' rows takes; without any of the dates it is about the newest day that there is."""

    date = Day(metadata={"description": "Only this UTC day; the newest one if no day is asked for"})

    @post_load
    def _gather_days(self, data: dict[str, Any], **_: object) -> dict[str, Any]:
        days = Days(*(data.pop(name, None) for name in ("date", "since", "until")))
        return {**data, "days": days}


class PageInfo(Schema):
    """Which part of a list this is."""

    limit = fields.Integer(required=True, metadata={"description": "How many rows were asked for"})
    offset = fields.Integer(required=True, metadata={"description": "How many were passed over"})
    more = fields.Boolean(required=True, metadata={"description": "Whether there are rows after these"})


def list_route(
    blueprint: APIBlueprint,
    rule: str,
    parameters: type[ListParameters],
    answer: type[Schema],
    *,
    path: type[Schema] | None = None,
    problems: Iterable[int] = (),
) -> Callable[[View], View]:
    """Make a function a `GET` route that answers a list.

    The function takes the values of the path, and `query_data` with those of the query string but for `format`. It
    returns the fields of the answer, with a `Page` for the list; `page` is filled in. As CSV the list comes alone.

    Args:
        blueprint: where the route belongs.
        rule: its address.
        parameters: its query string.
        answer: its JSON but for `page`, which is added; lists are fields of nested rows.
        path: the variable parts of its address.
        problems: statuses of problems that the function raises, besides those of every list.
    """
    page_info = fields.Nested(
        PageInfo, required=True, metadata={"description": "Which part of the list this is"}
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
            found = view(query_data=query_data, **(request.view_args or {}))
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
        route = blueprint.input(parameters, location="query", unknown="raise")(route)
        if path:
            route = blueprint.input(path, location="path")(route)
        return blueprint.get(rule)(route)

    return decorate


def _link(page: Page) -> dict[str, str]:
    """The header (RFC 8288) that names the next page; relative, because a proxy may have changed the path."""
    if not page.more:
        return {}
    sent = [(name, value) for name, value in request.args.items(multi=True) if name != "offset"]
    return {"Link": f'<?{urlencode([*sent, ("offset", page.offset + page.limit)])}>; rel="next"'}
