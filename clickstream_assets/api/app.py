"""The application factory."""

from importlib.metadata import version

from apiflask import APIFlask

from clickstream_assets.api import health, recommendations, sessions
from clickstream_assets.api.access_log import register_access_log
from clickstream_assets.api.database import attach_database
from clickstream_assets.api.problems import register_problems
from clickstream_assets.settings import Settings


def create_app(settings: Settings) -> APIFlask:
    """Make the WSGI application; it connects to PostgreSQL when the first request needs it."""
    app = APIFlask(
        __name__,
        title="Clickstream API",
        version=version("clickstream-assets"),
        # The documentation pages that APIFlask offers load their scripts from other people's servers.
        docs_path=None,
        static_folder=None,
    )
    app.config.update(AUTO_OPERATION_ID=True, AUTO_SERVERS=False)
    app.json.sort_keys = False
    # A user id may hold slashes, two in a row too.
    app.url_map.merge_slashes = False
    app.url_map.converters["any_text"] = recommendations.AnyTextConverter
    attach_database(app.extensions, settings)
    register_problems(app)
    register_access_log(app)
    for module in (recommendations, sessions, health):
        app.register_blueprint(module.blueprint)
    return app
