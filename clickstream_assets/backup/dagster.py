"""Dagster's database: where it is, and what its runs are when it has come back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from clickstream_assets.settings import DatabaseRole, Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

REVISION = "alembic_version"
"""Dagster's table with the revision of its tables."""
HISTORY = ("event_logs", "job_ticks", "runs")
"""Tables of Dagster's that have rows once anything was run."""


@contextmanager
def instance_of(settings: Settings) -> Iterator[DagsterInstance | None]:
    """Open the instance that DAGSTER_HOME names, and make its tables if they are missing; None where it names none.

    Raises:
        InputError: it cannot be opened.
    """
    from clickstream_assets.defs.instances import dagsters_instance

    if settings.dagster_home is None:
        yield None
        return
    with dagsters_instance(settings) as instance:
        yield instance


def database_of(instance: DagsterInstance, settings: Settings) -> Settings | None:
    """Return settings that name Dagster's database as POSTGRES_DB; None where its storage is not in PostgreSQL."""
    from dagster_postgres.run_storage import PostgresRunStorage
    from psycopg.conninfo import conninfo_to_dict

    storage = instance.run_storage
    if not isinstance(storage, PostgresRunStorage):
        return None
    named = conninfo_to_dict(storage.postgres_url)
    changes = {
        "postgres_host": named.get("host", settings.postgres_host),
        "postgres_port": named.get("port", settings.postgres_port),
        "postgres_user": named.get("user", settings.postgres_user),
        "postgres_password": named.get("password", ""),
        "postgres_db": named.get("dbname", settings.postgres_db),
        # There that login is the owner, and nobody else has rights.
        **{f"{role}_user": None for role in DatabaseRole if role is not DatabaseRole.OWNER},
    }
    return Settings(**{**settings.model_dump(), **changes})


def end_runs(instance: DagsterInstance, backup: str) -> int:
    """Report the runs that were under way as canceled, as nobody carries them out; return how many.

    The sensors ask again for what they were to do.
    """
    from dagster import RunsFilter

    from clickstream_assets.defs.dagster_private import UNFINISHED

    runs = instance.get_runs(RunsFilter(statuses=UNFINISHED))
    for run in runs:
        instance.report_run_canceled(
            run, f"It was under way when backup {backup} was made, which was put back."
        )
    return len(runs)
