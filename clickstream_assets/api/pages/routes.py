"""The addresses of pages, and of the files that they load."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from apiflask import APIBlueprint
from flask import Response, request, send_from_directory
from werkzeug.routing import BaseConverter, ValidationError

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

blueprint.add_url_rule("/", view_func=show_today)
blueprint.add_url_rule("/trends", view_func=show_trends)
blueprint.add_url_rule("/funnel", view_func=show_funnel)
blueprint.add_url_rule("/products", view_func=show_products)
blueprint.add_url_rule("/products/<any_text:product_id>", view_func=show_product)
blueprint.add_url_rule("/customers", view_func=show_customers)
blueprint.add_url_rule("/recommendations", view_func=show_recommendations)
blueprint.add_url_rule("/reports", view_func=show_reports)
blueprint.add_url_rule("/reports/<day:day>", view_func=show_report)
blueprint.add_url_rule(LOGIN, view_func=show_login)
blueprint.add_url_rule(LOGIN, view_func=log_in, methods=["POST"])
blueprint.add_url_rule(LOGOUT, view_func=log_out, methods=["POST"])
blueprint.add_url_rule("/data", view_func=show_data)


@blueprint.get("/docs")
def show_docs() -> Response:
    """Show the OpenAPI document, to be tried."""
    # No figure is on it, so it needs no server but this one.
    return page("docs.html.j2", Source(), Reader.of(request.accept_languages, "UTC", None), title="API")


@blueprint.get(f"{STATIC}/<path:name>")
def file(name: str) -> Response:
    """Send one of the pages' own files; its address changes with what is in it."""
    response = send_from_directory(_FILES, name, max_age=_KEPT_SECONDS)
    response.cache_control.immutable = True
    return response
