"""Dagster's private names that this package relies on, as version 1.13.27 has them; no other module uses any.

At an upgrade, `clickstream_assets_tests/defs/test_dagster_private.py` says which of them changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._grpc.types import GetCurrentRunsResult
from dagster._serdes import ConfigurableClassData, deserialize_value

if TYPE_CHECKING:
    from dagster_postgres import DagsterPostgresStorage
    from sqlalchemy import Engine

__all__ = [
    "FIRST_PARTITION_TAG",
    "LAST_PARTITION_TAG",
    "PARTITION_TAG",
    "PRIORITY_TAG",
    "READ_FROM",
    "UNFINISHED",
    "CheckRunHealthResult",
    "ConfigurableClassData",
    "ListedDays",
    "WorkerStatus",
    "is_run_by_its_server",
    "last_evaluation",
    "use_engine",
]

READ_FROM = "1.13.27"

# Written out, as they are stored with every run: another spelling would not find the runs of before.
PARTITION_TAG = "dagster/partition"
FIRST_PARTITION_TAG = "dagster/asset_partition_range_start"
LAST_PARTITION_TAG = "dagster/asset_partition_range_end"
PRIORITY_TAG = "dagster/priority"

UNFINISHED = list(NOT_FINISHED_STATUSES)

_PASSED = {AssetCheckExecutionRecordStatus.SUCCEEDED}
_EVALUATED = _PASSED | {AssetCheckExecutionRecordStatus.FAILED}


def last_evaluation(
    instance: dg.DagsterInstance, check: dg.AssetCheckKey, passed_only: bool = False
) -> dg.AssetCheckEvaluation | None:
    """Return what a check found when it was last carried out, or last passed."""
    records = instance.event_log_storage.get_asset_check_execution_history(
        check, limit=1, status=_PASSED if passed_only else _EVALUATED
    )
    return records[0].evaluation if records else None


class ListedDays(dg.DailyPartitionsDefinition):
    """UTC days, listed quickly: after each check over a range of days, Dagster lists all there ever were."""

    def get_partition_keys(
        self, current_time: datetime | None = None, dynamic_partitions_store: Any = None
    ) -> Sequence[str]:
        """See the base class."""
        first, last = self.get_first_partition_key(), self.get_last_partition_key()
        if current_time or first is None or last is None:
            return super().get_partition_keys(current_time, dynamic_partitions_store)
        return _days_from(first, last)


@lru_cache(maxsize=1)
def _days_from(first: str, last: str) -> tuple[str, ...]:
    start = date.fromisoformat(first)
    return tuple(str(start + timedelta(days=n)) for n in range((date.fromisoformat(last) - start).days + 1))


def is_run_by_its_server(launcher: dg.DefaultRunLauncher, run_id: str) -> bool | None:
    """Return whether the code server that a run was launched on says that it runs it.

    None if that server refuses the connection: it is gone, or has not started yet.
    """
    client = launcher._get_grpc_client_for_termination(run_id)
    if client is None:
        # Ended meanwhile, or not launched yet.
        return True
    try:
        running: GetCurrentRunsResult = deserialize_value(client.get_current_runs(), GetCurrentRunsResult)
    except DagsterUserCodeUnreachableError as error:
        # One that is busy does not answer in time; it is there.
        return None if "UNAVAILABLE" in str(error) else True
    return run_id in running.current_runs


def use_engine(storage: DagsterPostgresStorage, engine: Engine) -> None:
    """Have all parts of a PostgreSQL storage connect through an engine."""
    for part in (storage._run_storage, storage._event_log_storage, storage._schedule_storage):
        # There is no setting for it; for its webserver Dagster does the same.
        part._engine = engine
