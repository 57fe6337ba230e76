"""The settings, as a Dagster resource."""

import dagster as dg
from pydantic import PrivateAttr

from clickstream_assets.settings import Settings, load_settings


class SettingsResource(dg.ConfigurableResource):
    """Gives assets the settings as they are when the run starts."""

    _settings: Settings | None = PrivateAttr(None)

    def get(self) -> Settings:
        """Return the settings, read and validated at the first call."""
        if self._settings is None:
            self._settings = load_settings()
        return self._settings
