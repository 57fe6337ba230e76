"""`GET /api/funnel`, `/api/attribution` and `/api/cohorts`: what leads to purchases, and who comes back."""

from typing import Any

from apiflask import APIBlueprint, Schema, fields

from clickstream_assets.api import daily_queries
from clickstream_assets.api.database import database
from clickstream_assets.api.fields import schema_of
from clickstream_assets.api.lists import DaysParameters, ListParameters, list_route, row_limit
from clickstream_assets.api.parameters import Choice, Day, Text
from clickstream_assets.catalogue import CAMPAIGN_ATTRIBUTION, COHORT_RETENTION, FUNNEL

blueprint = APIBlueprint("funnel", __name__, url_prefix="/api", tag="Conversion")

# As `analytics.funnel` and `analytics.attribution` name them, which would bring the engines along.
DIMENSIONS = ("overall", "category", "segment", "rfm")
MODELS = ("last_touch", "first_touch", "linear")


class _FunnelQuery(DaysParameters):
    limit = row_limit(100)
    dimension = Choice(*DIMENSIONS, metadata={"description": "Only groups by this"})
    value = Text(metadata={"description": "Only this group: all, a category, a segment or not_a_customer"})


class Funnel(Schema):
    """The answer: steps of groups on days."""

    funnel = fields.List(fields.Nested(schema_of("FunnelStep", FUNNEL.columns)), required=True)


@list_route(blueprint, "/funnel", _FunnelQuery, Funnel)
def list_funnel(query_data: dict[str, Any]) -> dict[str, Any]:
    """List the steps from view to purchase, in order; the newest day first, then by dimension and value."""
    with database().snapshot() as connection:
        return {"funnel": daily_queries.funnel(connection, **query_data)}


class _AttributionQuery(DaysParameters):
    limit = row_limit(100)
    model = Choice(*MODELS, metadata={"description": "Only by this attribution model"})
    campaign = Text(metadata={"description": "Only this campaign"})


class Attribution(Schema):
    """The answer: campaigns on days."""

    attribution = fields.List(
        fields.Nested(schema_of("CampaignDay", CAMPAIGN_ATTRIBUTION.columns)), required=True
    )


@list_route(blueprint, "/attribution", _AttributionQuery, Attribution)
def list_attribution(query_data: dict[str, Any]) -> dict[str, Any]:
    """List campaigns' shares of orders and revenue; the newest day first, then by model, the highest revenue first."""
    with database().snapshot() as connection:
        return {"attribution": daily_queries.attribution(connection, **query_data)}


class _CohortsQuery(ListParameters):
    limit = row_limit(100)
    since = Day(metadata={"description": "Only cohorts whose own week begins on this day or later"})
    until = Day(metadata={"description": "Only cohorts whose own week begins on this day or earlier"})


class Cohorts(Schema):
    """The answer: weeks of cohorts."""

    cohorts = fields.List(fields.Nested(schema_of("CohortWeek", COHORT_RETENTION.columns)), required=True)


@list_route(blueprint, "/cohorts", _CohortsQuery, Cohorts)
def list_cohorts(query_data: dict[str, Any]) -> dict[str, Any]:
    """List how many of the users who were first seen in a week come back, week by week; the newest cohort first."""
    with database().snapshot() as connection:
        return {"cohorts": daily_queries.cohorts(connection, **query_data)}
