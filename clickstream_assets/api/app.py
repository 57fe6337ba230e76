"""The application factories."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from apiflask import APIFlask

from clickstream_assets.api import (
    access,
    buy_again,
    collector_document,
    data,
    database,
    events,
    experiments,
    health,
    metrics,
    models,
    moment,
    persons,
    predictions,
    problems,
    product_lists,
    products,
    recommendations,
    reports,
    scopes,
    segments,
    shop,
    tables,
)
from clickstream_assets.api.access_log import register_access_log
from clickstream_assets.api.collector import Collector
from clickstream_assets.api.encoding import Json
from clickstream_assets.api.pages import routes as pages
from clickstream_assets.api.pages.rendering import PICTURE_HOSTS
from clickstream_assets.api.threads import Threads
from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.keys import Scope
from clickstream_assets.settings import Settings


def create_api(
    settings: Settings, metrics_folder: Path | None = None, session_secret: bytes | None = None
) -> Collector:
    """Make the ASGI application: the collector, and Flask's in threads for all else; arguments as of `create_app`."""
    app = create_app(settings, metrics_folder, session_secret)
    return Collector(
        Threads(app),
        settings,
        metrics_folder,
        app.extensions[moment.EXTENSION],
        app.extensions[experiments.EXTENSION],
        app.extensions[access.EXTENSION],
    )


def create_app(
    settings: Settings, metrics_folder: Path | None = None, session_secret: bytes | None = None
) -> APIFlask:
    """Make Flask's application; it connects to a server when the first request needs it.

    Args:
        settings: where the servers are.
        metrics_folder: folder in which worker processes share their counts, of requests and events; none for one of
            them.
        session_secret: what logins are signed with where SESSION_SECRET is not set, the same in all processes; by
            default a new one.

    Raises:
        InputError: the file of EXPERIMENTS cannot be used.
    """
    app = APIFlask(
        __name__,
        title="Clickstream API",
        version=version("clickstream-assets"),
        # The documentation pages that APIFlask offers load their scripts from other servers.
        docs_path=None,
        static_folder=None,
    )
    app.config.update({"AUTO_OPERATION_ID": True, "AUTO_SERVERS": False, metrics.FOLDER: metrics_folder})
    app.config[PICTURE_HOSTS] = tuple(filter(None, settings.picture_hosts.split(",")))
    app.json = Json(app)
    # A user id may hold slashes, two in a row too.
    app.url_map.merge_slashes = False
    app.url_map.converters["any_text"] = recommendations.AnyTextConverter
    app.url_map.converters["day"] = pages.DayConverter
    # None is connected yet.
    served = database.Database(settings)
    app.extensions[database.EXTENSION] = served
    app.extensions[moment.EXTENSION] = moment.Moment(settings, served)
    app.extensions[experiments.EXTENSION] = experiments.Experiments(settings)
    app.extensions[events.EXTENSION] = events.ReadEvents(settings)
    app.extensions[data.EXTENSION] = settings.dagster_url
    app.extensions[shop.EXTENSION] = ShopClock(settings.shop_time_zone)
    problems.register_problems(app)
    register_access_log(app)
    metrics.register_request_metrics(app)
    access.register_access(app, settings, metrics_folder, session_secret)
    for blueprint in (
        recommendations.blueprint,
        product_lists.blueprint,
        buy_again.blueprint,
        models.blueprint,
        tables.sessions,
        tables.carts,
        segments.blueprint,
        persons.blueprint,
        predictions.blueprint,
        experiments.blueprint,
        shop.blueprint,
        tables.days,
        tables.funnel,
        products.blueprint,
        reports.blueprint,
        events.blueprint,
        tables.windows,
        tables.rejected,
        data.blueprint,
        metrics.blueprint,
        health.blueprint,
        pages.blueprint,
    ):
        app.register_blueprint(blueprint)
    # The document itself is the framework's.
    scopes.needs(Scope.READ)(app.view_functions["openapi.spec"])
    scopes.refuse_unstated(app.view_functions.items())

    @app.spec_processor
    def describe(spec: dict[str, Any]) -> dict[str, Any]:
        problems.describe(spec)
        access.describe(app, spec)
        collector_document.describe(spec)
        return spec

    return app
