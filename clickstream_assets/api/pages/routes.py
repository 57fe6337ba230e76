"""The addresses of pages, and of the files that they load."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

from apiflask import APIBlueprint
from flask import Response, request, send_from_directory
from werkzeug.routing import BaseConverter, ValidationError
from werkzeug.wrappers import Response as AnyResponse

from clickstream_assets.api.access import LOGIN
from clickstream_assets.api.pages.customers import show_customers
from clickstream_assets.api.pages.data import show_data
from clickstream_assets.api.pages.funnel import show_funnel
from clickstream_assets.api.pages.login import LOGOUT, log_in, log_out, show_login
from clickstream_assets.api.pages.products import show_product, show_products
from clickstream_assets.api.pages.reader import Reader
from clickstream_assets.api.pages.recommendations import show_recommendations
from clickstream_assets.api.pages.rendering import STATIC, page
from clickstream_assets.api.pages.reports import show_report, show_reports
from clickstream_assets.api.pages.source import Source
from clickstream_assets.api.pages.today import show_today
from clickstream_assets.api.pages.trends import show_trends
from clickstream_assets.api.scopes import needs
from clickstream_assets.keys import Scope

# They are for people: the OpenAPI document has what they show.
blueprint = APIBlueprint("pages", __name__, enable_openapi=False)


class DayConverter(BaseConverter):
    """A day of an address, as ISO 8601 has it."""

    regex = r"\d{4}-\d\d-\d\d"

    def to_python(self, value: str) -> date:
        """Read it."""
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise ValidationError from None


_FILES = Path(__file__).parent / "static"
_KEPT_SECONDS = 365 * 86_400

_PAGES: dict[str, Callable[..., AnyResponse]] = {
    "/": show_today,
    "/trends": show_trends,
    "/funnel": show_funnel,
    "/products": show_products,
    "/products/<any_text:product_id>": show_product,
    "/customers": show_customers,
    "/recommendations": show_recommendations,
    "/reports": show_reports,
    "/reports/<day:day>": show_report,
    "/data": show_data,
}
for rule, view in _PAGES.items():
    # What is about one person is shown to whom the API says it.
    blueprint.add_url_rule(rule, view_func=needs(Scope.READ)(view))
blueprint.add_url_rule(LOGIN, view_func=needs(None)(show_login))
blueprint.add_url_rule(LOGIN, view_func=needs(None)(log_in), methods=["POST"])
blueprint.add_url_rule(LOGOUT, view_func=needs(None)(log_out), methods=["POST"])


@blueprint.get("/docs")
@needs(Scope.READ)
def show_docs() -> Response:
    """Show the OpenAPI document, to be tried."""
    # No figure is on it, so it needs no server but this one.
    return page("docs.html.j2", Source(), Reader.of(request.accept_languages, "UTC", None), title="API")


@blueprint.get(f"{STATIC}/<path:name>")
@needs(None)
def file(name: str) -> Response:
    """Send one of the pages' own files; its address changes with what is in it."""
    response = send_from_directory(_FILES, name, max_age=_KEPT_SECONDS)
    response.cache_control.immutable = True
    return response
