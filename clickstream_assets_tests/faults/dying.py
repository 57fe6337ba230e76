"""A run of a job, in a process of its own, that dies at one of its writes.

`python -m clickstream_assets_tests.faults.dying REQUEST WRITE` carries out a run of the pipeline that the environment
names, in Dagster's instance of DAGSTER_HOME. It kills itself right before the WRITE-th write, counted from 1, which is
right after the one before. Each write is said on stdout when it is reached: a commit to a table of the lake, or of a
transaction of PostgreSQL's that has changed something. With 0 the run goes to its end.

REQUEST is what a sensor asked for, as JSON: `job`, `tags` and `assets`, which is null for all of the job's.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import PurePosixPath
from typing import Any

import dagster as dg
from deltalake import DeltaTable
from deltalake.table import TableMerger

from clickstream_assets.definitions import defs
from clickstream_assets.stores import lake
from clickstream_assets.stores.postgres.connection import Connection


class Writes:
    """The writes of this process so far.

    Args:
        last: the one that it does not live to see.
    """

    def __init__(self, last: int) -> None:
        self._last = last
        self._reached = 0

    def reach(self, name: str) -> None:
        """Say that a write is next, and die if it is the one."""
        self._reached += 1
        print(name, flush=True)
        if self._reached == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Have all writes from now on counted."""
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
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
                if cursor.fetchone() == (True,):
                    self.reach("PostgreSQL")
            commit(connection)

        Connection.commit = counted_commit

    def _counted(self, write: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(write)
        def counted(to: Any, *arguments: Any, **options: Any) -> Any:
            uri = to._table.table_uri() if isinstance(to, TableMerger) else to.table_uri
            self.reach(PurePosixPath(uri.rstrip("/")).name)
            return write(to, *arguments, **options)

        return counted


def main() -> None:
    """Carry the run out."""
    request, last = json.loads(sys.argv[1]), int(sys.argv[2])
    job = defs().resolve_job_def(request["job"])
    with dg.DagsterInstance.from_config(os.environ["DAGSTER_HOME"]) as instance:
        Writes(last).watch()
        job.execute_in_process(
            instance=instance,
            tags=request["tags"],
            asset_selection=request["assets"]
            and [dg.AssetKey.from_user_string(asset) for asset in request["assets"]],
        )


if __name__ == "__main__":
    main()
