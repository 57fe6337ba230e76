"""The lake, as a Dagster resource."""

import dagster as dg

from clickstream_assets.lake import Lake
from clickstream_assets.resources.compute import ComputeResource
from clickstream_assets.resources.settings import SettingsResource


class LakeResource(dg.ConfigurableResource):
    """Gives assets the Delta tables, with the engine to compute on them."""

    settings: SettingsResource
    compute: ComputeResource

    def get(self) -> Lake:
        """Return the lake that the settings name."""
        return Lake(self.settings.get().lake, self.compute.engine())
