"""`GET /api/models`: which versions of models were published, how they were judged, and which are served."""

from typing import Any

from apiflask import APIBlueprint, Schema, fields

from clickstream_assets.api import queries
from clickstream_assets.api.database import database
from clickstream_assets.api.fields import UtcTime
from clickstream_assets.api.parameters import QueryParameters, WholeNumber
from clickstream_assets.api.problems import REQUEST_TOO_LONG, documented
from clickstream_assets.api.scopes import needs
from clickstream_assets.catalogue import SERVED_MODELS
from clickstream_assets.keys import Scope

blueprint = APIBlueprint("models", __name__, url_prefix="/api", tag="Models")


def _text(description: str, *, nullable: bool = False) -> fields.String:
    return fields.String(required=True, allow_none=nullable, metadata={"description": description})


def _time(description: str, *, nullable: bool = False) -> UtcTime:
    return UtcTime(required=True, allow_none=nullable, metadata={"description": description})


class JudgedMetrics(Schema):
    """The figures of an algorithm for one target, on what it had not seen."""

    target = _text(
        "What was to be found or foretold: next, new or purchases (known shoppers' new products, unknown shoppers' "
        "products, purchases); of the next product next, next_of_new_visitors or next_other (another than the newest); "
        "or a purchase"
    )
    algorithm = _text("The algorithm")
    judged = fields.Integer(
        required=True, metadata={"description": "Users, or next products, that were judged"}
    )
    values = fields.Dict(
        keys=fields.String(),
        values=fields.Float(),
        required=True,
        metadata={
            "description": "By their names, such as ndcg@10 with ndcg_low and ndcg_high, or hit_rate@20"
        },
    )


class ModelVersion(Schema):
    """One version of a model."""

    model_version = _text("The version")
    answers = fields.String(
        required=True,
        metadata={
            "description": "recommendations: published lists, what is popular or trending, what is related to a "
            "product and what is bought again; next_product: what comes next, in the moment; predictions: who buys",
            "enum": [*(SERVED_MODELS.by_name["answers"].values or ()), "predictions"],
        },
    )
    algorithm = _text("The algorithm of the lists")
    parameters = fields.Dict(required=True, metadata={"description": "Its parameters, by their names"})
    reason = _text("Why this algorithm was chosen", nullable=True)
    trained_at = _time("When the data of its training were read; null where that is not kept", nullable=True)
    trained_on = _text("The last ingest batch of events that it was trained on")
    first_day = fields.Date(
        required=True, allow_none=True, metadata={"description": "First of the days that it was trained on"}
    )
    last_day = fields.Date(required=True, allow_none=True, metadata={"description": "Last of them"})
    published_at = _time(
        "When it was published, or its record changed, last; null where that is not kept", nullable=True
    )
    is_served = fields.Boolean(required=True, metadata={"description": "Whether it gives its answers now"})
    served_since = _time("Since when, where that is kept", nullable=True)
    put_back_at = _time("When a person published it again; null where a training did", nullable=True)
    metrics = fields.List(
        fields.Nested(JudgedMetrics),
        required=True,
        metadata={"description": "Of the algorithms that were compared, for each target"},
    )


class ModelVersions(Schema):
    """The answer: versions of models."""

    models = fields.List(
        fields.Nested(ModelVersion), required=True, metadata={"description": "Trained last first"}
    )


class _Query(QueryParameters):
    n = WholeNumber(
        1,
        1000,
        load_default=20,
        metadata={"description": "How many: those that are served, and then those that were trained last"},
    )


@blueprint.get("/models")
@needs(Scope.READ)
@blueprint.input(_Query, location="query", unknown="raise")
@blueprint.output(ModelVersions)
@blueprint.doc(responses=REQUEST_TOO_LONG | documented(422, 503))
def models(query_data: dict[str, Any], **_: object) -> dict[str, Any]:
    """List published versions of models: what for, how they were trained and judged, and which are served.

    `clickstream models publish` serves an older one again.
    """
    with database().snapshot() as connection:
        found = queries.model_versions(connection, query_data["n"])
    return {"models": [{**row, "metrics": row["metrics"] or []} for row in found]}
