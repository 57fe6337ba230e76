"""`GET /health/live` and `/health/ready`: whether the process is up, and whether it can answer.

A service without PostgreSQL is not ready. Without Elasticsearch it is degraded and still gets requests: only the live
events are missing. So it is while it cannot read what visitors do from Kafka, which recommendations count.
"""

from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

from apiflask import APIBlueprint, Schema, fields, validators

from clickstream_assets.api import queries
from clickstream_assets.api.database import Database, database
from clickstream_assets.api.events import live_events
from clickstream_assets.api.moment import moment
from clickstream_assets.api.problems import ApiError, documented
from clickstream_assets.api.scopes import needs
from clickstream_assets.stores.elasticsearch import ElasticsearchError, LiveEvents
from clickstream_assets.stores.postgres.connection import PostgresError

blueprint = APIBlueprint("health", __name__, url_prefix="/health", tag="Health")


class Live(Schema):
    """The answer of a process that is up."""

    status = fields.String(required=True, metadata={"description": "live"})


class Ready(Schema):
    """The answer of a process that can answer."""

    status = fields.String(
        required=True,
        validate=validators.OneOf(["ready", "degraded"]),
        metadata={
            "description": "ready; or degraded, where only real-time events cannot be read, or what visitors do"
        },
    )
    dependencies = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        required=True,
        metadata={"description": "What the service needs: ok, or what is wrong with it"},
    )


@blueprint.get("/live")
@needs(None)
@blueprint.output(Live)
def live() -> dict[str, str]:
    """Say that the process is up."""
    return {"status": "live"}


@blueprint.get("/ready")
@needs(None)
@blueprint.output(Ready)
@blueprint.doc(responses=documented(503))
def ready() -> dict[str, object]:
    """Say whether PostgreSQL answers and has the tables, Elasticsearch answers, and Kafka is read to its end."""
    # At once: each may take seconds to say that it does not answer.
    with ThreadPoolExecutor(1) as other:
        elasticsearch = other.submit(_elasticsearch, live_events())
        needed = _postgres(database())
    others = {"elasticsearch": elasticsearch.result()}
    if (now := moment()).is_open:
        others["recent_events"] = now.problem or "ok"
    dependencies = {**needed, **others}
    if set(needed.values()) == {"ok"}:
        status = "ready" if set(others.values()) == {"ok"} else "degraded"
        return {"status": status, "dependencies": dependencies}
    wrong = "; ".join(f"{name}: {state}" for name, state in dependencies.items() if state != "ok")
    raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", wrong, dependencies=dependencies)


def _elasticsearch(live: LiveEvents) -> str:
    try:
        live.check()
    except ElasticsearchError as error:
        return str(error.problem)
    return "ok"


def _postgres(served: Database) -> dict[str, str]:
    try:
        with served.snapshot() as connection:
            missing = queries.missing_tables(connection)
    except PostgresError as error:
        return {"postgres": str(error.problem), "tables": "unknown"}
    tables = f"missing: {', '.join(missing)}; run `clickstream prepare`" if missing else "ok"
    return {"postgres": "ok", "tables": tables}
