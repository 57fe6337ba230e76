"""A demo: from nothing to a served recommendation, through everything that is real.

Starts the servers, Dagster and the API, feeds events into Kafka, and waits: the sensors do the rest.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from clickstream_assets import catalogue
from clickstream_assets.engine import DuckDBEngine, functions_of
from clickstream_assets.errors import LocalStackError
from clickstream_assets.ingest.files import EventFile
from clickstream_assets.ingest.replay import first_day, run_replay
from clickstream_assets.local.children import Child, running
from clickstream_assets.local.keeper import Keeper
from clickstream_assets.local.ports import free_port
from clickstream_assets.local.postgres import Postgres
from clickstream_assets.local.server import Server
from clickstream_assets.local.stack import Stack
from clickstream_assets.settings import Settings, load_settings
from clickstream_assets.simulator.run import SimulationOptions, latest_start, run_simulation
from clickstream_assets.simulator.stream import Faults
from clickstream_assets.stores.kafka.topic import Topic
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets.stores.prepare import prepare_servers
from clickstream_assets.stores.start_date import start_date
from clickstream_assets.streaming.progress import progress_of

PROJECT = Path(__file__).parents[2]
DAGSTER_PORT = 3000
# A demo's few events come before Java's better compiler would pay, which has a core to itself for half a minute.
QUICK_JAVA = "-Dlog4j2.level=warn -Xss8m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


def say(line: str, started: float) -> None:
    """Print on stderr what is going on, and how many seconds after the start."""
    print(f"[{time.monotonic() - started:5.1f} s] {line}", file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def demo_home(once: bool) -> Iterator[Path]:
    """Yield the folder of the demo's data: a temporary one that is removed, or that of the settings."""
    if not once:
        yield load_settings().clickstream_home.absolute()
        return
    home = Path(tempfile.mkdtemp(prefix="clickstream-demo-"))
    try:
        yield home
    finally:
        shutil.rmtree(home)


class Demo:
    """A running pipeline: the servers, Dagster and the API, until the exit stack closes."""

    def __init__(
        self, home: Path, once: bool, stack: ExitStack, started: float, events: Path | None = None
    ) -> None:

        self._started = started
        self._stack = stack
        self._children: list[Child] = []
        self._logs = home / "logs"
        spark = {"spark.driver.extraJavaOptions": QUICK_JAVA} | load_settings().spark_config
        os.environ["SPARK_CONFIG"] = json.dumps(spark)
        # The lake and the files of a temporary home are in it, whatever the user's own settings say.
        own = {"LAKE_PATH": str(home / "lake"), "RAW_LOGS_PATH": str(home / "raw_logs")} if once else {}
        own |= self._start_date(events, own.get("LAKE_PATH"))
        self.dagster_port = free_port() if once else DAGSTER_PORT
        self.api_port = free_port() if once else load_settings().api_port
        programs = Path(sys.executable).parent
        clickstream = str(programs / "clickstream")
        dagster = [str(programs / "dagster"), "dev", "-w", "workspace.yaml", "-h", "127.0.0.1"]
        dagster += ["-p", str(self.dagster_port)]

        servers = Stack.of(load_settings(), home, self._say)

        def start_dagster(server: type[Server]) -> None:
            # It takes as long to start as the other servers, and PostgreSQL is all that it needs for that.
            if server is Postgres:
                os.environ.update(servers.env() | own | {"API_PORT": str(self.api_port)})
                self._run("Dagster", dagster, "dagster.log")

        self._keeper = Keeper(servers, self._say)
        stack.callback(servers.down)
        servers.up(
            env_file=None if once else Path(".env"),
            dagster_yaml=PROJECT / "dagster.yaml",
            on_healthy=start_dagster,
        )
        self.settings: Settings = load_settings()
        prepare_servers(self.settings)
        (self._dagster,) = self._children
        self._run("The streams", [clickstream, "stream"], "stream.log")
        self._run("The API", [clickstream, "api"], "api.log")
        # All at once: each takes some seconds to end.
        stack.callback(self._ask_to_stop)

    def _start_date(self, events: Path | None, lake: str | None) -> dict[str, str]:
        """Return the EVENTS_START_DATE that a file of old events needs; the first ingest keeps it with the lake."""
        settings = load_settings()
        if not events or settings.events_start_date:
            return {}
        first = first_day(settings, EventFile(events))
        if first is None or first >= start_date(
            settings.model_copy(update={"lake_path": lake or settings.lake_path})
        ):
            return {}
        self._say(f"{events.name} begins on {first}: EVENTS_START_DATE={first}")
        return {"EVENTS_START_DATE": first.isoformat()}

    def _run(self, name: str, command: list[str], log: str) -> None:

        child = running(name, command, self._logs / log, os.environ, PROJECT)
        self._children.append(self._stack.enter_context(child))

    def _ask_to_stop(self) -> None:
        for child in self._children:
            child.ask_to_stop()

    def _say(self, line: str) -> None:
        say(line, self._started)

    def feed(
        self, file: Path | None, count: int, faults: float, seed: int
    ) -> tuple[int, dict[str, Any] | None]:
        """Send events; return how many records were sent, and of simulated ones what they are."""

        if file:
            replayed = run_replay(self.settings, file)
            skipped = sum(replayed.skipped.values())
            self._say(
                f"sent {replayed.sent:,} records of {file.name}, left out {skipped:,} {replayed.skipped or ''}"
            )
            return replayed.sent, None
        options = SimulationOptions(
            events=count,
            seed=seed,
            faults=Faults(late=faults, duplicate=faults, conflicting=faults, malformed=faults),
        )
        # Recent ones, so that the live views have something to show.
        options = replace(options, start=latest_start(self.settings, options))
        made = run_simulation(self.settings, options)
        self._say(f"sent {made.sent:,} simulated records")
        return made.sent, asdict(made)

    def wait(self, sent: int, timeout: float) -> None:
        """Wait until all that was sent is in the served tables, the streams' too, and the API is ready.

        Raises:
            LocalStackError: a process ended, a run failed, or it took too long.
        """

        deadline = time.monotonic() + timeout
        reported: set[tuple[str, str]] = set()
        unfinished: set[str] | None = None
        while True:
            self._keeper.look()
            for child in self._children:
                child.check()
            runs = self._runs()
            for run in runs:
                state = (run["runId"], run["status"])
                if state not in reported:
                    reported.add(state)
                    self._say(f"run {run['runId'][:8]} of {run['jobName']}: {run['status'].lower()}")
                if run["status"] == "FAILURE":
                    raise LocalStackError(f"run {run['runId']} failed:\n{self._failure(run['runId'])}")
            waiting = {run["runId"] for run in runs if run["status"] != "SUCCESS"}
            if unfinished is None and self._is_served(sent):
                # The tables that nobody waits for come last in a run. Runs of days without events may follow.
                unfinished = waiting
            if unfinished is not None and not unfinished & waiting:
                self._say("served")
                return
            if time.monotonic() > deadline:
                logs = "\n".join(f"The end of {child.log.name}:\n{child.tail()}" for child in self._children)
                raise LocalStackError(f"not everything was served after {timeout:.0f} s. {logs}")
            time.sleep(0.5)

    def are_recommendations_new(self, sent: int) -> bool:
        """Return whether the published recommendations were trained on all that was sent."""

        lake = self._lake()
        raw, events = lake.snapshot(catalogue.RAW_EVENTS), lake.snapshot(catalogue.EVENTS)
        if raw.rows < sent or events.batch < raw.batch:
            return False
        with connect(self.settings) as connection:
            trained_on = connection.execute(
                "SELECT trained_on FROM published_models JOIN served_models USING (model_version)"
            ).fetchone()
        return trained_on == (f"events batch {events.batch}",)

    def _is_served(self, sent: int) -> bool:
        return (
            self.are_recommendations_new(sent)
            and self._are_days_published()
            and self._is_streamed()
            and self._get_json(f"http://127.0.0.1:{self.api_port}/health/ready") is not None
        )

    def _are_days_published(self) -> bool:
        """Return whether the last table that a refresh publishes has all events."""

        with connect(self.settings) as connection:
            in_sessions = connection.execute("SELECT sum(total_events) FROM clickstream_sessions").fetchone()
        return in_sessions == (self._lake().snapshot(catalogue.EVENTS).rows,)

    def _is_streamed(self) -> bool:
        """Return whether windows and alerts hold the topic up to its end."""

        progress = progress_of(self.settings)
        ends = {partition: offsets.high for partition, offsets in Topic(self.settings).offsets().items()}
        return progress is not None and progress.has_begun and progress.offsets == ends

    def result(self, sent: int, made: dict[str, Any] | None) -> dict[str, Any]:
        """Count what came out, and look one recommendation up."""

        lake = self._lake()
        events = lake.read(catalogue.EVENTS)
        F, _ = functions_of(events)
        users = lake.engine.to_arrow(events.agg(F.countDistinct("user_id").cast("long").alias("users")))
        # Elasticsearch's rejections have batch 0, and are of records that are events.
        not_events = lake.read(catalogue.REJECTED_EVENTS).where(F.col("batch") > 0)
        rejected = lake.engine.to_arrow(not_events.agg(F.count(F.lit(1)).cast("long").alias("rejected")))
        with connect(self.settings) as connection:
            (buyers,) = connection.execute(
                "SELECT count(DISTINCT user_id) FROM user_segments WHERE segment = 'buyer'"
            ).fetchone() or (0,)
            (windows, alerts) = connection.execute(
                "SELECT (SELECT count(*) FROM product_windows), (SELECT count(*) FROM flash_sale_alerts)"
            ).fetchone() or (0, 0)
            user_ids = connection.execute(
                "SELECT DISTINCT user_id FROM product_recommendations ORDER BY user_id"
            ).fetchall()
        if not user_ids:
            raise LocalStackError("there is nobody to recommend anything to: no event has a product")
        user_id = user_ids[0][0]
        url = f"http://127.0.0.1:{self.api_port}/api/recommend/{quote(user_id, safe='')}?n=5"
        answer = self._get_json(url)
        if not answer or not answer["items"]:
            raise LocalStackError(f"GET {url} gave no recommendation")
        rows = {
            name: lake.snapshot(table).rows
            for name, table in (
                ("raw", catalogue.RAW_EVENTS),
                ("events", catalogue.EVENTS),
                ("duplicates", catalogue.DUPLICATE_EVENTS),
                ("conflicts", catalogue.CONFLICTING_EVENTS),
                ("sessions", catalogue.SESSIONS),
            )
        }
        result = {
            "sent": sent,
            **rows,
            "rejected": rejected["rejected"][0].as_py(),
            "users": users["users"][0].as_py(),
            "buyers": buyers,
            "windows": windows,
            "alerts": alerts,
            "users_with_recommendations": len(user_ids),
            "sample": {"user_id": user_id, "items": answer["items"]},
            "seconds": round(time.monotonic() - self._started, 1),
        }
        return result | ({"made": made} if made else {})

    def stay_up(self, result: dict[str, Any]) -> None:
        """Say where to look, and wait for Ctrl-C."""
        user_id = result["sample"]["user_id"]
        self._say(json.dumps(result, default=str))
        self._say(f"Dagster   http://127.0.0.1:{self.dagster_port}/asset-groups")
        self._say(f"API       http://127.0.0.1:{self.api_port}/api/recommend/{user_id}?n=5")
        for path in ("sessions", "api/windows", "real-time-events"):
            self._say(f"          http://127.0.0.1:{self.api_port}/{path}")
        self._say("`clickstream simulate` sends more events. Ctrl-C stops everything.")
        while True:
            self._keeper.look()
            for child in self._children:
                child.check()
            time.sleep(1)

    def _lake(self) -> Lake:

        return Lake(self.settings.lake, DuckDBEngine(self.settings))

    def _runs(self) -> list[dict[str, str]]:
        data = self._graphql("{ runsOrError { ... on Runs { results { runId jobName status } } } }")
        return list(reversed(data["runsOrError"]["results"])) if data else []

    def _failure(self, run_id: str) -> str:
        events = "events { ... on ErrorEvent { error { message causes { message } } } }"
        data = self._graphql(
            f'{{ logsForRun(runId: "{run_id}") {{ ... on EventConnection {{ {events} }} }} }}'
        )
        if not data:
            return self._dagster.tail()
        errors = [event["error"] for event in data["logsForRun"]["events"] if event.get("error")]
        return "\n".join(e["message"] + "".join(c["message"] for c in e["causes"]) for e in errors)

    def _graphql(self, query: str) -> dict[str, Any] | None:
        answer = self._get_json(f"http://127.0.0.1:{self.dagster_port}/graphql", {"query": query})
        return answer["data"] if answer else None

    def _get_json(self, url: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """Return what a server of ours answers; None while it does not."""

        data = json.dumps(body).encode() if body else None
        try:
            with urlopen(Request(url, data, {"Content-Type": "application/json"}), timeout=10) as answer:
                return json.load(answer)
        except (URLError, ConnectionError, TimeoutError):
            return None
