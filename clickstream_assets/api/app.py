"""The application factory."""

from importlib.metadata import version
from pathlib import Path

from apiflask import APIFlask

from clickstream_assets.api import (
    carts,
    events,
    funnel,
    health,
    metrics,
    products,
    recommendations,
    reports,
    segments,
    sessions,
    windows,
)
from clickstream_assets.api.access_log import register_access_log
from clickstream_assets.api.database import attach_database
from clickstream_assets.api.problems import register_problems
from clickstream_assets.settings import Settings


def create_app(settings: Settings, metrics_folder: Path | None = None) -> APIFlask:
    """Make the WSGI application; it connects to a server when the first request needs it.

    Args:
        settings: where the servers are.
        metrics_folder: what worker processes share their counts of requests in (default: there is one process).
    """
    app = APIFlask(
        __name__,
        title="Clickstream API",
        version=version("clickstream-assets"),
        # The documentation pages that APIFlask offers load their scripts from other people's servers.
        docs_path=None,
        static_folder=None,
    )
    app.config.update({"AUTO_OPERATION_ID": True, "AUTO_SERVERS": False, metrics.FOLDER: metrics_folder})
    app.json.sort_keys = False
    # A user id may hold slashes, two in a row too.
    app.url_map.merge_slashes = False
    app.url_map.converters["any_text"] = recommendations.AnyTextConverter
    attach_database(app.extensions, settings)
    events.attach_live_events(app.extensions, settings)
    register_problems(app)
    register_access_log(app)
    metrics.register_request_metrics(app)
    shop = (recommendations, sessions, carts, segments, funnel, products, reports)
    for module in (*shop, events, windows, metrics, health):
        app.register_blueprint(module.blueprint)
    return app
