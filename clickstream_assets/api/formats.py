"""The forms of an answer: the choice by what a client asks for, and CSV."""

import csv
import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from http import HTTPStatus
from io import StringIO
from typing import Any

from flask import request
from werkzeug.datastructures import MIMEAccept

from clickstream_assets.api.fields import iso_utc
from clickstream_assets.api.problems import ApiError

CSV = "text/csv; charset=utf-8; header=present"
# In the wide forms of East Asian keyboards too.
_BEGINS_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


def chosen_format(offered: Mapping[str, str], asked: str | None) -> str:
    """Return the name of the form that the client asks for by name, or else prefers by its `Accept` header.

    Args:
        offered: media types by name; of those that the client likes equally, the first is taken.
        asked: the name that the client gave, if any.

    Raises:
        ApiError: 406; the client takes none of them.
    """
    if asked is not None:
        return asked
    if not request.accept_mimetypes:
        return next(iter(offered))
    # By type alone: `text/csv; charset=utf-8` asks for text/csv too.
    accepted = MIMEAccept((value.partition(";")[0].strip(), q) for value, q in request.accept_mimetypes)
    best = max(offered, key=lambda name: accepted.quality(offered[name]))
    if not accepted.quality(offered[best]):
        raise ApiError(
            HTTPStatus.NOT_ACCEPTABLE,
            "not_acceptable",
            f"Accept: {request.headers['Accept']} takes none of what is offered: {', '.join(offered.values())}.",
        )
    return best


def csv_of(columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as CSV (RFC 4180) with a header row.

    Null is empty, money has all its decimals, times are as in JSON, and what has parts is JSON. A text that a
    spreadsheet would take for a formula has a `'` before it, as https://owasp.org/www-community/attacks/CSV_Injection
    advises: shoppers' trackers choose most texts. A program that needs them as they are reads JSON.
    """
    names = list(columns)
    text = StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(names)
    writer.writerows([_cell(row[name]) for name in names] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        # Plain digits; str() writes small ones with an exponent.
        return f"{value:f}"
    if isinstance(value, datetime):
        return iso_utc(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value.startswith(_BEGINS_FORMULA):
        return f"'{value}"
    return value
