"""Which resources the assets get."""

import dagster as dg

from clickstream_assets.resources.compute import ComputeResource
from clickstream_assets.resources.kafka import KafkaResource
from clickstream_assets.resources.lake import LakeResource
from clickstream_assets.resources.postgres import PostgresResource
from clickstream_assets.resources.settings import SettingsResource


@dg.definitions
def resources() -> dg.Definitions:
    """Bind the resources; all of them follow the settings."""
    settings = SettingsResource()
    compute = ComputeResource(settings=settings)
    return dg.Definitions(
        resources={
            "settings": settings,
            "compute": compute,
            "lake": LakeResource(settings=settings, compute=compute),
            "kafka": KafkaResource(settings=settings),
            "postgres": PostgresResource(),
        }
    )
