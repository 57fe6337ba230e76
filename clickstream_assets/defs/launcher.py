"""The launcher of runs: Dagster's own, which notices a run whose process is gone."""

from __future__ import annotations

import time

import dagster as dg

from clickstream_assets.defs.dagster_private import CheckRunHealthResult, WorkerStatus, is_run_by_its_server

SILENCE_SECONDS = 40
"""So long may a code server refuse connections, as while it starts, before its runs are taken for gone."""


class WatchingRunLauncher(dg.DefaultRunLauncher):
    """Launches runs on the code server, and tells Dagster's run monitoring whether that still runs them.

    A code server reports a run whose process ends. When both go away at once, as with their machine, nobody does: the
    run would be under way for ever, and the sensors would wait for it.
    """

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self._refused_since: dict[str, float] = {}

    @property
    def supports_check_run_worker_health(self) -> bool:
        """See the base class."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """See the base class."""
        is_running = is_run_by_its_server(self, run.run_id)
        if is_running is None:
            since = self._refused_since.setdefault(run.run_id, time.monotonic())
            is_running = time.monotonic() - since < SILENCE_SECONDS
        else:
            self._refused_since.pop(run.run_id, None)
        if is_running:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(
            WorkerStatus.FAILED, "its code server is gone or was started again, and the run with it"
        )
