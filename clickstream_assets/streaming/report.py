"""What `clickstream stream` tells Dagster: that its assets were materialized, and how they are doing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from clickstream_assets.settings import Settings
from clickstream_assets.streaming.errors import innermost

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from clickstream_assets.streaming.status import Status

_log = logging.getLogger(__name__)


def metadata(
    status: Status, latency_seconds: float | None = None, open_alerts: int | None = None
) -> dict[str, Any]:
    """Return what a materialization says about its query, from a run of Dagster's and from outside alike."""
    values: dict[str, Any] = {
        "batch": status.batch_id,
        "rows": status.rows,
        "dropped_late": status.dropped_late,
        "lag": sum(status.lag.values()),
        "offsets_behind": {str(partition): count for partition, count in sorted(status.lag.items())},
    }
    if status.watermark:
        values["watermark"] = status.watermark.isoformat()
        values["freshness_seconds"] = round((datetime.now(UTC) - status.watermark).total_seconds(), 1)
    if latency_seconds is not None:
        values["latency_seconds"] = round(latency_seconds, 1)
    if open_alerts is not None:
        values["open_alerts"] = open_alerts
    return values


class Reporter:
    """Reports materializations to the instance that DAGSTER_HOME names, if it does."""

    def __init__(self, settings: Settings) -> None:
        self._home = settings.dagster_home
        if self._home is None:
            _log.info("DAGSTER_HOME is not set, so Dagster is told nothing of what the streams do")

    @cached_property
    def _instance(self) -> DagsterInstance:
        from dagster import DagsterInstance

        return DagsterInstance.from_config(str(self._home))

    def report(self, assets: Iterable[str], values: Mapping[str, Any]) -> None:
        """Report that assets were materialized. That Dagster's storage is away does not stop the streams."""
        if self._home is None:
            return
        from dagster import AssetMaterialization, DagsterError

        try:
            for asset in assets:
                self._instance.report_runless_asset_event(AssetMaterialization(asset, metadata=dict(values)))
        except (DagsterError, SQLAlchemyError, OSError) as error:
            _log.warning(
                "DAGSTER_HOME=%s: Dagster was not told of %s: %s",
                self._home,
                ", ".join(assets),
                innermost(str(error)),
            )
