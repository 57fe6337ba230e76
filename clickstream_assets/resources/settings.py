"""The settings, as a Dagster resource."""

import dagster as dg

from clickstream_assets.settings import Settings, load_settings


class SettingsResource(dg.ConfigurableResource):
    """Gives assets the settings as they are when the run starts."""

    def get(self) -> Settings:
        """Read and validate the settings."""
        return load_settings()
