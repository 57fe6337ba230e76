"""`GET /api/reports` and `GET /api/reports/{date}`: the daily reports that were published."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from http import HTTPStatus
from typing import Any

from apiflask import APIBlueprint, Schema, fields
from flask import Response

from clickstream_assets.api import queries
from clickstream_assets.api.database import database
from clickstream_assets.api.fields import schema_of
from clickstream_assets.api.formats import chosen_format
from clickstream_assets.api.listing import list_route, range_of
from clickstream_assets.api.parameters import Choice, Day, QueryParameters
from clickstream_assets.api.problems import REQUEST_TOO_LONG, ApiError, documented
from clickstream_assets.api.scopes import needs
from clickstream_assets.catalogue import DAILY_REPORT, DAILY_SUMMARY
from clickstream_assets.keys import Scope
from clickstream_assets.reports.document import COMPARED, COMPARISONS
from clickstream_assets.reports.text import render_text

blueprint = APIBlueprint("reports", __name__, url_prefix="/api", tag="Reports")

FORMATS = {"json": "application/json", "text": "text/plain"}

_FIGURES = [
    # A day without events has a report, and no summary.
    replace(column, nullable=True)
    for column in DAILY_SUMMARY.columns
    if column.name in queries.SUMMARY_FIGURES
]
_DAY = [column for column in DAILY_REPORT.columns if column.name in ("report_date", "generated_at")]


class Reports(Schema):
    """The answer: days with a report."""

    reports = fields.List(fields.Nested(schema_of("ReportedDay", [*_DAY, *_FIGURES])), required=True)


@list_route(blueprint, "/reports", Reports, filters=range_of(DAILY_REPORT))
@needs(Scope.READ)
def list_reports(asked: queries.Asked) -> dict[str, Any]:
    """List the days that have a report with their headline figures, the newest first.

    The figures are null on a day without events.
    """
    with database().snapshot() as connection:
        return {"reports": queries.reports(connection, asked)}


def _object(description: str, **properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "description": description,
        "required": list(properties),
        "properties": properties,
    }


def _list(
    description: str, optional: Mapping[str, dict[str, Any]] | None = None, /, **properties: dict[str, Any]
) -> dict[str, Any]:
    one = _object("One of them", **properties)
    one["properties"] |= optional or {}
    return {"type": "array", "description": description, "items": one}


def _or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {**schema, "type": [schema["type"], "null"]}


_COUNT: dict[str, Any] = {"type": "integer"}
_NUMBER = {"type": "number"}
_TEXT = {"type": "string"}
_NAME = {"name": {**_TEXT, "description": "The product's name, as it is now; left out where it is not known"}}
_USERS: dict[str, Any] = {
    "count": _COUNT,
    "user_ids": {"type": "array", "items": _TEXT, "description": "The first of them"},
}
_COUNTS = {"type": "object", "additionalProperties": _COUNT}
_CHANGE = _or_null(
    _object(
        "How a figure changed; null where there is nothing to compare",
        before=_NUMBER,
        change=_NUMBER,
        change_percent=_or_null(_NUMBER),
    )
)
# OpenAPI's own form rather than a marshmallow schema: the report is stored as JSON and answered as it is.
REPORT_SCHEMA = _object(
    "A day's report. Rates are per cent, money is in the shop's currency.",
    date={"type": "string", "format": "date"},
    total_events=_COUNT,
    window_shoppers=_object("Users who were there and did not purchase", **_USERS),
    buyers=_object("Users who purchased that day, whatever they did before", **_USERS),
    top_5_viewed_products=_list("Most viewed first", _NAME, product_id=_TEXT, views=_COUNT),
    conversion_rates_by_category={
        "type": "object",
        "description": "By category, those that convert best first",
        "additionalProperties": _object(
            "A category", views=_COUNT, purchases=_COUNT, conversion_rate=_NUMBER
        ),
    },
    generated_at={"type": "string", "format": "date-time"},
    users=_COUNT,
    sessions=_COUNT,
    orders=_COUNT,
    revenue=_NUMBER,
    refunds=_NUMBER,
    net_revenue=_NUMBER,
    average_order_value=_or_null(_NUMBER),
    bounce_rate=_NUMBER,
    conversion_rate=_NUMBER,
    views=_COUNT,
    add_to_carts=_COUNT,
    purchases=_COUNT,
    buyer_rate=_NUMBER,
    currency=_or_null(_TEXT),
    currencies={"type": "array", "items": _TEXT, "description": "What the purchases were paid in"},
    unconverted={
        **_COUNT,
        "description": "Purchases and refunds in a currency without an exchange rate: they are in no amount",
    },
    complete={"type": "boolean", "description": "Whether the day was over when the report was made"},
    bots=_object("What was left out as bots'", events=_COUNT, sessions=_COUNT),
    funnel=_list(
        "Users who viewed that day, by the step that they came to from there in order and in time; at the last step "
        "not all buyers, of whom some came another way",
        step=_TEXT,
        users=_COUNT,
        conversion_from_previous=_or_null(_NUMBER),
        conversion_from_first=_NUMBER,
    ),
    carts=_or_null(
        {
            **_COUNTS,
            "description": "Carts, of which a user can have several, by what happened to them that day",
        }
    ),
    customer_segments=_or_null({**_COUNTS, "description": "Customers by segment"}),
    campaigns=_or_null(
        _list("Orders by the campaign that was met last", campaign=_TEXT, orders=_NUMBER, revenue=_NUMBER)
    ),
    comparison=_object(
        "The same figures before",
        **{
            name: _object(
                name.replace("_", " ").capitalize(),
                date={"type": "string", "format": "date"},
                **dict.fromkeys(COMPARED, _CHANGE),
            )
            for name in COMPARISONS
        },
    ),
)


class _Path(Schema):
    date = Day(required=True, metadata={"description": "The shop's day"})


class _ReportQuery(QueryParameters):
    format = Choice(*FORMATS, metadata={"description": "The form of the answer, whatever `Accept` says"})


@blueprint.get("/reports/<date>")
@needs(Scope.READ)
@blueprint.input(_Path, location="path")
@blueprint.input(_ReportQuery, location="query", unknown="raise")
@blueprint.doc(
    responses={
        200: {
            "description": "The day's report",
            "content": {
                FORMATS["json"]: {"schema": REPORT_SCHEMA},
                FORMATS["text"]: {"schema": _TEXT},
            },
        }
    }
    | REQUEST_TOO_LONG
    | documented(404, 406, 422, 503)
)
def show_report(path_data: dict[str, date], query_data: dict[str, str], **_: object) -> Response:
    """Show a day's report: as JSON, or as the text of a mail."""
    day = path_data["date"]
    form = chosen_format(FORMATS, query_data.get("format"))
    with database().snapshot() as connection:
        report = queries.report(connection, day)
        if report is None:
            raise _no_report(day, queries.report_days(connection))
    headers = {"Vary": "Accept"}
    if form == "json":
        return Response(json.dumps(report, ensure_ascii=False), headers=headers, mimetype=FORMATS[form])
    return Response(render_text(report), headers=headers, mimetype=FORMATS[form])


def _no_report(day: date, days: Mapping[str, Any]) -> ApiError:
    there = f"there are {days['count']}, from {days['first']} to {days['last']}"
    which = there if days["count"] else "there is none of any day yet"
    return ApiError(HTTPStatus.NOT_FOUND, "no_report", f"There is no report of {day}: {which}.")
