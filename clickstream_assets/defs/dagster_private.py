"""Dagster's private names that this package relies on, as version 1.13.27 has them; no other module uses any.

At an upgrade, `clickstream_assets_tests/defs/test_dagster_private.py` says which of them changed.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from importlib import import_module
from multiprocessing import forkserver, get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.definitions.freshness import (
    FreshnessState,
    FreshnessStateRecord,
    TimeWindowFreshnessPolicy,
)
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.scheduler.instigation import InstigatorTick, TickStatus
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.dagster_run import FINISHED_STATUSES, NOT_FINISHED_STATUSES
from dagster._core.storage.event_log import SqlEventLogStorage, SqlEventLogStorageTable
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._core.storage.runs import SqlRunStorage
from dagster._core.storage.runs.schema import RunsTable
from dagster._grpc.types import GetCurrentRunsResult
from dagster._serdes import ConfigurableClassData, deserialize_value
from dagster._utils.error import SerializableErrorInfo as ErrorInfo

if TYPE_CHECKING:
    from dagster_postgres import DagsterPostgresStorage
    from sqlalchemy import Connection, Engine

__all__ = [
    "ASSET_JOB",
    "FINISHED",
    "FIRST_PARTITION_TAG",
    "LAST_PARTITION_TAG",
    "OVERDUE",
    "PARTITION_TAG",
    "PRIORITY_TAG",
    "READ_FROM",
    "UNFINISHED",
    "WILL_RETRY_TAG",
    "CheckRunHealthResult",
    "ConfigurableClassData",
    "ErrorInfo",
    "ListedDays",
    "WorkerStatus",
    "delete_checks",
    "delete_run",
    "fork_runs",
    "freshness_seconds",
    "freshness_states",
    "is_run_by_its_server",
    "keep_text",
    "kept_text",
    "last_evaluation",
    "last_evaluations",
    "last_materializations",
    "last_successes",
    "newest_ticks",
    "planned_or_evaluated",
    "remember_columns",
    "runs_of_events",
    "sensor_cursors",
    "use_engine",
    "write_in_batches",
]

READ_FROM = "1.13.27"

# Written out, as they are stored with every run: another spelling would not find the runs of before.
PARTITION_TAG = "dagster/partition"
FIRST_PARTITION_TAG = "dagster/asset_partition_range_start"
LAST_PARTITION_TAG = "dagster/asset_partition_range_end"
PRIORITY_TAG = "dagster/priority"
WILL_RETRY_TAG = "dagster/will_retry"
ASSET_JOB = "__ASSET_JOB"
"""The job of runs of assets that a person chose, and of backfills."""

FINISHED, UNFINISHED = list(FINISHED_STATUSES), list(NOT_FINISHED_STATUSES)

# Parameters of a statement at most, of which SQLite and PostgreSQL take more.
_IDS_PER_QUERY = 10_000
_ROWS_PER_STATEMENT = 10_000

_PASSED = {AssetCheckExecutionRecordStatus.SUCCEEDED}
_EVALUATED = _PASSED | {AssetCheckExecutionRecordStatus.FAILED}


_LIBRARIES = [
    *("dagster", "dagster._grpc.impl", "dagster_postgres", "dagster_pyspark", "alembic.command"),
    *("duckdb", "sqlframe.duckdb", "sqlglot.optimizer", "numpy", "pyarrow.dataset", "deltalake"),
    *("psycopg", "pydantic_settings", "sqlalchemy.dialects.postgresql", "msgspec", "tenacity"),
    *("scipy.sparse.linalg", "jinja2", "requests", "crawlerdetect", "standardwebhooks", "tomlkit"),
]


def fork_runs(preloaded: str | None = None, environment: Mapping[str, str] | None = None) -> None:
    """Have this process, if it is a code server, fork its runs from a process that has all imported.

    Dagster starts a new Python for each run, which then imports for 3 of the 4 s of a processor before its first step.
    Where a module of `preloaded`'s package has changed since, it does so again: what a developer changes is in the next
    run.

    Args:
        preloaded: a module that is imported there beside the libraries, and must not leave threads behind.
        environment: variables that it needs.
    """
    server = sys.modules.get("dagster._grpc.server")
    if server is None:
        return
    forked, anew = get_context("forkserver"), get_context("spawn")
    forked.set_forkserver_preload([*_LIBRARIES, *([preloaded] if preloaded else [])])
    with _environment(environment or {}):
        forkserver.ensure_running()
    folder = Path(str(import_module(preloaded.partition(".")[0]).__file__)).parent if preloaded else None
    loaded = _changed_at(folder)
    # The server that loads us has its own context already, as an attribute of the instance.
    server.DagsterApiServer._mp_ctx = property(
        lambda _: forked if _changed_at(folder) == loaded else anew, lambda *_: None
    )


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _changed_at(folder: Path | None) -> dict[Path, int]:
    """Return when each Python file of a folder was last changed."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.py")} if folder else {}


def last_evaluation(
    instance: dg.DagsterInstance, check: dg.AssetCheckKey, passed_only: bool = False
) -> dg.AssetCheckEvaluation | None:
    """Return what a check found when it was last carried out, or last passed."""
    records = instance.event_log_storage.get_asset_check_execution_history(
        check, limit=1, status=_PASSED if passed_only else _EVALUATED
    )
    return records[0].evaluation if records else None


def planned_or_evaluated(
    instance: dg.DagsterInstance, checks: Sequence[dg.AssetCheckKey]
) -> Mapping[dg.AssetCheckKey, tuple[str, dg.AssetCheckEvaluation | None]]:
    """Return the last run that carries each check out, by one query, and what it found; None if it has not yet."""
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(checks)
    return {
        check: (record.run_id, record.evaluation if record.status in _EVALUATED else None)
        for check, record in records.items()
    }


def last_materializations(instance: dg.DagsterInstance) -> set[int]:
    """Return the storage ids of the last materialization of each asset, and of each of its partitions."""
    storage = instance.event_log_storage
    assets = storage.all_asset_keys()
    newest = storage.get_latest_materialization_storage_ids(assets)
    found = {number for number in newest.values() if number is not None}
    for asset in assets:
        made = dg.DagsterEventType.ASSET_MATERIALIZATION
        found.update(storage.get_latest_storage_id_by_partition(asset, made).values())
    return found


def runs_of_events(instance: dg.DagsterInstance, storage_ids: Iterable[int]) -> set[str]:
    """Return the ids of the runs that events with these storage ids are of."""
    events, numbers = SqlEventLogStorageTable.c, sorted(storage_ids)
    found: set[str] = set()
    with _sql(instance).index_connection() as connection:
        for first in range(0, len(numbers), _IDS_PER_QUERY):
            some = numbers[first : first + _IDS_PER_QUERY]
            rows = connection.execute(sa.select(events.run_id).distinct().where(events.id.in_(some)))
            found.update(row[0] for row in rows)
    return found


def last_successes(instance: dg.DagsterInstance) -> set[str]:
    """Return the ids of the last run that has succeeded of each job."""
    runs = RunsTable.c
    last = sa.select(sa.func.max(runs.id)).where(runs.status == dg.DagsterRunStatus.SUCCESS.value)
    query = sa.select(runs.run_id).where(runs.id.in_(last.group_by(runs.pipeline_name)))
    storage = instance.run_storage
    part = getattr(storage, "run_storage", storage)
    assert isinstance(part, SqlRunStorage)
    with part.connect() as connection:
        return {row[0] for row in connection.execute(query)}


def delete_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete a run with its events and what its steps wrote to stdout and stderr; the run itself last.

    Dagster's own begins with the run: the events of one that is interrupted then would stay for ever.
    """
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    instance.event_log_storage.delete_events(run_id)
    instance.delete_run(run_id)


def delete_checks(instance: dg.DagsterInstance, before: datetime) -> int:
    """Delete what checks found before a time, which Dagster keeps when a run of theirs is deleted.

    What each of them found last stays, and when it last passed.

    Returns:
        How many rows were deleted.
    """
    rows = AssetCheckExecutionsTable.c
    last_of_each = sa.select(sa.func.max(rows.id)).group_by(rows.asset_key, rows.check_name, rows.partition)
    old = rows.create_timestamp < before.astimezone(UTC).replace(tzinfo=None)
    deleted, chunk = 0, _ROWS_PER_STATEMENT
    with _sql(instance).index_connection() as connection:
        needed: set[int] = set()
        for statuses in (None, _EVALUATED, _PASSED):
            values = [status.value for status in statuses or ()]
            query = last_of_each.where(rows.execution_status.in_(values)) if values else last_of_each
            needed.update(row[0] for row in connection.execute(query))
        while chunk == _ROWS_PER_STATEMENT:
            some = sa.select(rows.id).where(old, rows.id.not_in(needed)).limit(_ROWS_PER_STATEMENT)
            found = [row[0] for row in connection.execute(some)]
            connection.execute(sa.delete(AssetCheckExecutionsTable).where(rows.id.in_(found)))
            chunk = len(found)
            deleted += chunk
    return deleted


def sensor_cursors(instance: dg.DagsterInstance, name: str) -> list[str]:
    """Return the cursors of a sensor: one for each code location that has ever had it."""
    states = (state for state in instance.all_instigator_state() if state.name == name)
    cursors = (getattr(state.instigator_data, "cursor", None) for state in states)
    return [cursor for cursor in cursors if cursor]


def _sql(instance: dg.DagsterInstance) -> SqlEventLogStorage:
    """Return the storage of events, which is in an SQL database whatever the instance is."""
    storage = instance.event_log_storage
    part = getattr(storage, "event_log_storage", storage)
    assert isinstance(part, SqlEventLogStorage)
    return part


OVERDUE = FreshnessState.FAIL


def freshness_states(
    instance: dg.DagsterInstance, assets: Sequence[dg.AssetKey]
) -> Mapping[dg.AssetKey, FreshnessStateRecord]:
    """Return what Dagster's daemon last found of each asset's freshness, every 30 s."""
    return instance.get_freshness_state_records(assets)


def freshness_seconds(policy: dg.FreshnessPolicy) -> float:
    """Return how long a policy lets an asset be behind; 0 of one that names times of the day."""
    if not isinstance(policy, TimeWindowFreshnessPolicy):
        return 0.0
    return policy.fail_window.to_timedelta().total_seconds()


def newest_ticks(
    instance: dg.DagsterInstance, repository: str, names: Collection[str]
) -> Iterator[tuple[str, InstigatorTick, str]]:
    """Yield the newest evaluation that has ended of each sensor and schedule that is on, and its code location.

    A location that was renamed leaves states behind; the newest evaluation of a name counts.
    """
    newest: dict[str, tuple[InstigatorTick, str]] = {}
    for state in instance.all_instigator_state():
        selector = state.repository_selector
        if selector.repository_name != repository or state.name not in names or not state.is_running:
            continue
        ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=3)
        tick = next((tick for tick in ticks if tick.status != TickStatus.STARTED), None)
        if tick and (state.name not in newest or tick.timestamp > newest[state.name][0].timestamp):
            newest[state.name] = tick, selector.location_name
    for name, (tick, location) in newest.items():
        yield name, tick, location


def kept_text(instance: dg.DagsterInstance, key: str) -> str | None:
    """Return a text that `keep_text` has kept; None before the first time."""
    return instance.daemon_cursor_storage.get_cursor_values({key}).get(key)


def keep_text(instance: dg.DagsterInstance, key: str, text: str) -> None:
    """Keep a text in the instance's storage, where daemons keep how far they have come."""
    instance.daemon_cursor_storage.set_cursor_values({key: text})


def last_evaluations(
    instance: dg.DagsterInstance, checks: Iterable[dg.AssetCheckKey]
) -> Iterator[tuple[dg.AssetCheckEvaluation, float]]:
    """Return what checks found when they were last carried out, and when, in seconds since 1970."""
    storage = instance.event_log_storage
    for check, newest in storage.get_latest_asset_check_execution_by_key(list(checks)).items():
        # One that is to be carried out has found nothing yet; most are not, and one query has them all.
        is_evaluated = newest.status in _EVALUATED
        records = (
            [newest]
            if is_evaluated
            else storage.get_asset_check_execution_history(check, limit=1, status=_EVALUATED)
        )
        if records and records[0].evaluation and records[0].event:
            yield records[0].evaluation, records[0].event.timestamp


class ListedDays(dg.DailyPartitionsDefinition):
    """Days, listed quickly: after each check over a range of days, Dagster lists all there ever were."""

    def get_partition_keys(
        self, current_time: datetime | None = None, dynamic_partitions_store: Any = None
    ) -> Sequence[str]:
        """See the base class."""
        first, last = self.get_first_partition_key(), self.get_last_partition_key()
        if current_time or first is None or last is None:
            return super().get_partition_keys(current_time, dynamic_partitions_store)
        return _days_from(first, last)

    def get_partition_keys_in_range(self, partition_key_range: dg.PartitionKeyRange) -> Sequence[str]:
        """See the base class; Dagster asks for each day of a run that something is said of."""
        first, last = self.get_first_partition_key(), self.get_last_partition_key()
        start, end = partition_key_range.start, partition_key_range.end
        if first is None or last is None or not first <= start <= end <= last:
            return super().get_partition_keys_in_range(partition_key_range)
        return _days_from(start, end)


@lru_cache(maxsize=8)
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


def remember_columns(storage: DagsterPostgresStorage) -> None:
    """Have a PostgreSQL storage look once, and not with each event, which columns its table of assets has.

    Dagster asks because a database that was not migrated lacks some: a run of fifty steps did so two hundred times, in
    four queries of the server's catalogue each. A column that is there stays.
    """
    events = storage._event_log_storage
    look = events._has_asset_key_col_on_connection
    found: set[str] = set()

    def has_column(connection: Connection, name: str) -> bool:
        if name not in found and look(connection, name):
            found.add(name)
        return name in found

    events._has_asset_key_col_on_connection = has_column  # type: ignore[method-assign, assignment]


def write_in_batches(storage: DagsterPostgresStorage) -> None:
    """Have a PostgreSQL storage write batches of planned materializations together, as it does those that were made.

    Dagster's own writes each by itself, in three transactions: a run over two years has 5,000 of them, and a minute to
    start in.
    """
    events = storage._event_log_storage
    write = events.store_event_batch

    def store_event_batch(batch: Sequence[dg.EventLogEntry]) -> None:
        by_type: defaultdict[Any, list[dg.EventLogEntry]] = defaultdict(list)
        for entry in batch:
            by_type[entry.dagster_event_type].append(entry)
        planned = by_type.pop(dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, [])
        for others in by_type.values():
            write(others)
        if not planned:
            return
        with events._connect() as connection:
            inserted = connection.execute(
                events.prepare_insert_event_batch(planned).returning(SqlEventLogStorageTable.c.id)
            )
            ids = [row[0] for row in inserted]
        last = {
            entry.get_dagster_event().asset_key: (entry, id_) for entry, id_ in zip(planned, ids, strict=True)
        }
        with events.index_transaction() as connection:
            # Of each asset there is one row, of its last event.
            for entry, id_ in last.values():
                events._store_asset_event(connection, entry, id_)

    events.store_event_batch = store_event_batch  # type: ignore[method-assign, assignment]
