"""Reports of `clickstream stream` to Dagster: that its assets were materialized, and how they are doing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from clickstream_assets.engine.spark_private import innermost
from clickstream_assets.settings import Settings
from clickstream_assets.streaming.process import Report

_log = logging.getLogger(__name__)


def reporter(settings: Settings) -> Report:
    """Return a function that reports to the instance that DAGSTER_HOME names, if it does.

    A failed report does not stop the streams.
    """
    # Imported at the first report: the streams run without Dagster where there is none.
    home = settings.dagster_home
    if home is None:
        _log.info("DAGSTER_HOME is not set, so the streams do not report to Dagster")
        return lambda *_: None

    @cache
    def instance() -> Any:
        from dagster import DagsterInstance

        return DagsterInstance.from_config(str(home))

    def report(assets: Iterable[str], values: Mapping[str, Any]) -> None:
        from dagster import AssetMaterialization, DagsterError
        from dagster_postgres.utils import DagsterPostgresException

        try:
            for asset in assets:
                instance().report_runless_asset_event(AssetMaterialization(asset, metadata=dict(values)))
        except (DagsterError, DagsterPostgresException, SQLAlchemyError, OSError) as error:
            _log.warning(
                "DAGSTER_HOME=%s: %s not reported to Dagster: %s",
                home,
                ", ".join(assets),
                innermost(str(error)),
            )

    return report
