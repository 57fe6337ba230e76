"""What pages show: answers of the public API, which this process asks itself for.

So whatever is on a page can be had by anybody at the address that the page names, as JSON or as CSV.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from flask import current_app, request
from werkzeug.test import EnvironBuilder, run_wsgi_app

from clickstream_assets.api.access import CALLER, Caller
from clickstream_assets.keys import Scope

WITHIN_A_PAGE = "clickstream.within_a_page"
"""Key of a request's environment where a page makes it: it is neither logged nor counted, as the page's own is."""
_PAGE_ROWS = 1000
_MOST_ROWS = 20_000


@dataclass(frozen=True)
class Answer:
    """An answer of the API.

    Attributes:
        address: Where anybody gets it.
        content: What it says; empty if it is a problem.
        problem: What is wrong, for people; None for nothing.
        is_missing: Whether there is nothing of what was asked for, which is no fault.
        is_outage: Whether it cannot be read now.
        is_refused: Whether the key of whoever asks for the page lacks the scope for it, which `problem` says.
    """

    address: str
    content: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None
    is_missing: bool = False
    is_outage: bool = False
    is_refused: bool = False

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return a list that it has; none if it is a problem."""
        return list(self.content.get(name, ()))

    def instead(self, empty: str) -> str:
        """Return what a list says that has no rows: that it is refused, or else this."""
        return (self.problem or "") if self.is_refused else empty


class Source:
    """The public API, and what a page has asked it."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []

    def get(self, path: str, **parameters: Any) -> Answer:
        """Ask for an answer, with the parameters that are not None; one that is a list is given several times."""
        given = {
            name: [_text(each) for each in value] if isinstance(value, list) else _text(value)
            for name, value in parameters.items()
            if value is not None
        }
        # It may see what whoever asked for the page may see.
        within = {WITHIN_A_PAGE: True, CALLER: request.environ.get(CALLER)}
        query = urlencode(given, doseq=True)
        builder = EnvironBuilder(path=quote(path), query_string=query, environ_overrides=within)
        try:
            parts, status, _ = run_wsgi_app(current_app.wsgi_app, builder.get_environ())
        finally:
            builder.close()
        body = msgspec.json.decode(b"".join(parts))
        address = quote(path) + (f"?{query}" if query else "")
        code = int(status[:3])
        if code < HTTPStatus.BAD_REQUEST:
            answer = Answer(address, body)
        else:
            answer = Answer(
                address,
                problem=body.get("detail") or status,
                is_missing=code == HTTPStatus.NOT_FOUND,
                is_outage=code >= HTTPStatus.INTERNAL_SERVER_ERROR,
                is_refused=code == HTTPStatus.FORBIDDEN,
            )
        self.answers.append(answer)
        return answer

    @property
    def given(self) -> list[Answer]:
        """The answers but those that were refused."""
        return [answer for answer in self.answers if not answer.is_refused]

    @property
    def shows_persons(self) -> bool:
        """True if whoever asks for the page may see what is about one person."""
        caller: Caller | None = request.environ.get(CALLER)
        return caller is None or caller.key.may(Scope.PERSONAL)

    @cached_property
    def shop(self) -> Mapping[str, Any]:
        """What all figures have in common: the answer of `/api/shop`; empty if it is a problem."""
        return self.get("/api/shop").content

    @property
    def last_day(self) -> date | None:
        """The newest day with figures; None without any."""
        return self._day("last_day")

    @property
    def today(self) -> date | None:
        """The day that it is now by the shop's clock; None if that cannot be said."""
        return self._day("today")

    def _day(self, name: str) -> date | None:
        text = self.shop.get(name)
        return date.fromisoformat(text) if text else None

    def all_rows(self, path: str, name: str, **parameters: Any) -> list[dict[str, Any]]:
        """Ask for a list page by page, up to `_MOST_ROWS` rows."""
        rows: list[dict[str, Any]] = []
        while True:
            some = self.get(path, limit=_PAGE_ROWS, offset=len(rows) or None, **parameters).rows(name)
            rows += some
            if len(some) < _PAGE_ROWS or len(rows) >= _MOST_ROWS:
                return rows

    @property
    def problems(self) -> list[str]:
        """What was wrong with the answers, each once."""
        wrong = (answer.problem for answer in self.given if not answer.is_missing)
        return list(dict.fromkeys(filter(None, wrong)))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
