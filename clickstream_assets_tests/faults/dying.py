"""A run of a job, in a process of its own, that dies at one of its writes.

Writes are commits to tables of the lake, and of transactions of PostgreSQL's that have changed something. Whoever calls
`run` is not to have other things to do: it is for a process that a fork server has made.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path, PurePosixPath
from typing import Any, Self

import dagster as dg
from deltalake import DeltaTable
from deltalake.table import TableMerger

from clickstream_assets.definitions import defs
from clickstream_assets.stores import lake
from clickstream_assets.stores.postgres.connection import Connection

POSTGRES = "PostgreSQL"


@dataclass(frozen=True)
class Request:
    """A run that a sensor has asked for; `assets` is None for all of the job's."""

    job: str
    tags: dict[str, str]
    assets: list[str] | None

    @classmethod
    def of(cls, job: str, asked: dg.RunRequest) -> Self:
        """Return what the sensor asked for."""
        assets = [key.to_user_string() for key in asked.asset_selection] if asked.asset_selection else None
        return cls(job, dict(asked.tags), assets)


class Writes:
    """The writes of this process so far.

    Args:
        last: number of the one that it does not live to see, from 1; 0 for none.
        log: gets the name of each when it is reached, a line each.
    """

    def __init__(self, last: int, log: Path) -> None:
        self._last = last
        self._log = log
        self._reached = 0

    def reach(self, name: str) -> None:
        """Note that a write is next, and die if it is the one."""
        self._reached += 1
        with self._log.open("a") as log:
            log.write(f"{name}\n")
        if self._reached == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Count all writes from now on."""
        for kind, name in (
            (lake, "write_deltalake"),
            (TableMerger, "execute"),
            (DeltaTable, "delete"),
            (DeltaTable, "update"),
            (DeltaTable, "create_write_transaction"),
        ):
            setattr(kind, name, self._counted(getattr(kind, name)))
        commit = Connection.commit

        def counted_commit(connection: Connection[Any]) -> None:
            changed = connection.execute(
                "SELECT pg_current_xact_id_if_assigned() IS NOT NULL AS changed"
            ).fetchone()
            if changed in ((True,), {"changed": True}):
                self.reach(POSTGRES)
            commit(connection)

        setattr(Connection, commit.__name__, counted_commit)

    def _counted(self, write: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(write)
        def counted(to: Any, *arguments: Any, **options: Any) -> Any:
            uri = to._table.table_uri() if isinstance(to, TableMerger) else to.table_uri
            self.reach(PurePosixPath(uri.rstrip("/")).name)
            return write(to, *arguments, **options)

        return counted


def run(request: Request, last: int, log: Path, environment: Mapping[str, str], folder: Path) -> None:
    """Carry a run out in Dagster's instance of DAGSTER_HOME, up to a write."""
    os.chdir(folder)
    os.environ.update(environment)
    job = defs().resolve_job_def(request.job)
    chosen = [dg.AssetKey.from_user_string(asset) for asset in request.assets] if request.assets else None
    with dg.DagsterInstance.from_config(os.environ["DAGSTER_HOME"]) as instance:
        Writes(last, log).watch()
        job.execute_in_process(instance=instance, tags=request.tags, asset_selection=chosen)
