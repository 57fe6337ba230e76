"""A demo: from nothing to a served recommendation, through everything that is real.

Starts the servers, Dagster and the API, feeds events into Kafka, and waits: the sensors do the rest.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from datetime import date
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from dotenv import load_dotenv

from clickstream_assets import catalogue
from clickstream_assets.engine import DuckDBEngine, functions_of
from clickstream_assets.errors import LocalStackError
from clickstream_assets.files import writing
from clickstream_assets.holders import holder
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.ingest.files import EventFile
from clickstream_assets.ingest.product_feed import FeedFile, take_in
from clickstream_assets.ingest.replay import run_replay
from clickstream_assets.keys import Scope, new_key
from clickstream_assets.local.children import Child, running
from clickstream_assets.local.identity import make_home
from clickstream_assets.local.keeper import Keeper
from clickstream_assets.local.ports import LOOPBACK, Listener, PortsTakenError, free_port, is_others
from clickstream_assets.local.postgres import Postgres
from clickstream_assets.local.server import Server
from clickstream_assets.local.shop_site import shop_site
from clickstream_assets.local.sights import Addresses, Sight, further, sights
from clickstream_assets.local.stack import Stack
from clickstream_assets.settings import Settings, load_settings, secret_names
from clickstream_assets.simulator.catalogue import CURRENCY, write_rates
from clickstream_assets.simulator.habits import USUAL, Habits
from clickstream_assets.simulator.run import SimulationOptions, latest_start, run_simulation
from clickstream_assets.simulator.stream import Faults
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets.stores.prepare import prepare_servers
from clickstream_assets.stores.start_date import start_date
from clickstream_assets.streaming.owner import Presence
from clickstream_assets.streaming.progress import progress_of

PROJECT = Path(__file__).parents[2]
# The simulated shop has one a day.
FLASH_SALE_HOURS = 24
# Of the orders, and of the visits, of the simulated shop.
FOREIGN_CURRENCY = 0.03
LOCAL_TIMES = 0.2
# The last of what it waits for.
_PRODUCTS = "the products of the shop's feed"
# So long it says nothing, at most, while it waits.
QUIET_SECONDS = 10
# A demo's few events come before Java's better compiler would pay, which has a core to itself for half a minute.
QUICK_JAVA = "-Dlog4j2.level=warn -Xss8m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


def say(line: str, started: float) -> None:
    """Print on stderr what is going on, and how many seconds after the start."""
    # With its end in one write: the servers start in threads, and each says so.
    sys.stderr.write(f"[{time.monotonic() - started:5.1f} s] {line}\n")
    sys.stderr.flush()


@contextmanager
def demo_home(once: bool) -> Iterator[Path]:
    """Yield the folder of the demo's data: a temporary one that is removed, or that of the settings."""
    if not once:
        home = load_settings().clickstream_home.absolute()
        with _only_one_in(home):
            yield home
        return
    home = Path(tempfile.mkdtemp(prefix="clickstream-demo-"))
    try:
        yield home
    finally:
        shutil.rmtree(home)


@contextmanager
def _only_one_in(home: Path) -> Iterator[None]:
    """Keep a second demo out, which would stop the servers of the first.

    Raises:
        LocalStackError: another demo runs in the home, or it cannot be written.
    """
    with writing(home):
        make_home(home)
        lock = (home / "demo.lock").open("a+")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise LocalStackError(
                f"CLICKSTREAM_HOME={home} has a demo already, process {lock.read()}. Stop that with Ctrl-C; or, for a "
                "second one beside it, set CLICKSTREAM_HOME to another folder and DAGSTER_PORT and API_PORT to 0."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def absolute_paths(settings: Settings) -> dict[str, str]:
    """Return the paths that are set, by their variables, for processes that are started in another folder."""
    given = {name: value for name, value in settings if name in settings.model_fields_set}
    paths = {name: str(value.absolute()) for name, value in given.items() if isinstance(value, Path)}
    if settings.lake_path:
        paths["lake_path"] = settings.lake
    if settings.checkpoint_path:
        paths["checkpoint_path"] = settings.checkpoints
    return {name.upper(): path for name, path in paths.items()}


def secret_files() -> dict[str, str]:
    """Return the paths of secrets that the environment names, by their variables, for the same processes."""
    variables = (f"{name.upper()}_FILE" for name in secret_names(Settings))
    given = {variable: os.environ.get(variable) for variable in variables}
    return {variable: str(Path(path).expanduser().absolute()) for variable, path in given.items() if path}


class Demo:
    """A running pipeline until the exit stack closes: the servers and Dagster, then the streams and the API."""

    def __init__(
        self,
        home: Path,
        once: bool,
        stack: ExitStack,
        started: float,
        events: EventFile | None = None,
        first: date | None = None,
    ) -> None:

        self._started = self._said = started
        self._stack = stack
        self._children: list[Child] = []
        # Those that were seen to be what answers on their ports.
        self._ours: set[Child] = set()
        self._home, self._logs = home, home / "logs"
        load_dotenv(".env")
        given = load_settings()
        os.environ.update(absolute_paths(given) | secret_files())
        spark = {"spark.driver.extraJavaOptions": QUICK_JAVA} | given.spark_config
        os.environ["SPARK_CONFIG"] = json.dumps(spark)
        dagster_port, api_port = (0, 0) if once else (given.dagster_port, given.api_port)
        self.dagster_port = dagster_port or free_port(besides={api_port})
        self.api_port = api_port or free_port(besides={self.dagster_port})
        own = {"API_HOST": LOOPBACK, "API_PORT": str(self.api_port)}
        # What it shows of the API it asks for with a key of its own.
        self._api_headers: dict[str, str] = {}
        if given.known_keys:
            secret, key = new_key("demo", [Scope.READ])
            own["API_KEYS"] = ",".join(each.entry for each in (*given.known_keys, key))
            self._api_headers["Authorization"] = f"Bearer {secret}"
        # Whoever sends events to a demo is shown what becomes of them, however few they are.
        own["TRAIN_AFTER_SHARE"] = "0"
        if "dagster_url" not in given.model_fields_set:
            own["DAGSTER_URL"] = f"http://{LOOPBACK}:{self.dagster_port}"
        if once:
            # The lake and the files of a temporary home are in it, whatever the user's own settings say.
            own |= {"LAKE_PATH": str(home / "lake"), "RAW_LOGS_PATH": str(home / "raw_logs")}
        if events and first:
            own |= self._start_date(events.path.name, first, own.get("LAKE_PATH"))
        self._rates = home / "exchange_rates.csv"
        if not (events or given.shop_currency or given.exchange_rates):
            own |= {"SHOP_CURRENCY": CURRENCY, "EXCHANGE_RATES": str(self._rates)}
            write_rates(self._rates)
        dagster = [str(_program("dagster")), "dev", "-w", str(PROJECT / "workspace.yaml"), "-h", LOOPBACK]
        dagster += ["-p", str(self.dagster_port)]

        servers = Stack.of(given, home, self._say)

        def start_dagster(server: type[Server]) -> None:
            # It takes as long to start as the other servers, and PostgreSQL is all that it needs for that.
            if server is Postgres:
                for variable, value in (servers.env() | own).items():
                    os.environ[variable] = value
                    # It takes the place of what a file had.
                    os.environ.pop(f"{variable}_FILE", None)
                self._dagster = self._run("Dagster", dagster, "dagster.log")

        self._keeper = Keeper(servers, self._say)
        stack.callback(servers.down)
        try:
            servers.up(
                env_file=None if once else Path(".env"),
                dagster_yaml=PROJECT / "dagster.yaml",
                on_healthy=start_dagster,
                others=(
                    Listener("Dagster", self.dagster_port, "set DAGSTER_PORT, 0 for any"),
                    Listener("the API", self.api_port, "set API_PORT, 0 for any"),
                ),
            )
        except PortsTakenError:
            # Nothing was started, so what was there before stays.
            stack.pop_all()
            raise
        # The simulated shop has pages of its own, with pictures; a file of events is of another shop.
        self._site: str | None = None
        if not events:
            self._site = stack.enter_context(shop_site(besides={self.dagster_port, self.api_port}))
            if "picture_hosts" not in given.model_fields_set:
                os.environ["PICTURE_HOSTS"] = f"{self._site}/"
        self._feed = home / "products.jsonl"
        # Of the feed, once it is taken in.
        self._products: int | None = None
        self.settings: Settings = load_settings()
        prepare_servers(self.settings, self._say)
        # Dagster is up before the streams are, and would run them itself, and they wait for that.
        to_come = Presence(self.settings, "demo")
        stack.callback(to_come.close)
        to_come.show()

    def start_readers(self) -> None:
        """Start the streams and the API.

        Once events are in Kafka: they would take the processors from whoever sends them, and Dagster's first look at
        the topic would find a part of them, so that everything is made twice.
        """
        clickstream = str(_program("clickstream"))
        self._run("The streams", [clickstream, "stream"], "stream.log")
        self._api = self._run("The API", [clickstream, "api"], "api.log")
        # All at once, with Dagster: each takes some seconds to end.
        self._stack.callback(self._ask_to_stop)

    def _start_date(self, name: str, first: date, lake: str | None) -> dict[str, str]:
        """Return the EVENTS_START_DATE that a file of old events needs; the first ingest keeps it with the lake."""
        settings = load_settings()
        if settings.events_start_date or first >= start_date(
            settings.model_copy(update={"lake_path": lake or settings.lake_path})
        ):
            return {}
        self._say(f"{name} begins on {first}: EVENTS_START_DATE={first}")
        return {"EVENTS_START_DATE": first.isoformat()}

    def _run(self, name: str, command: list[str], log: str) -> Child:

        # In a folder without a .env, which Dagster puts above the environment: it may name the servers of another home.
        child = self._stack.enter_context(running(name, command, self._logs / log, os.environ, self._home))
        self._children.append(child)
        return child

    def _ask_to_stop(self) -> None:
        for child in self._children:
            child.ask_to_stop()

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        say(line, self._started)

    def feed(
        self, file: EventFile | None, count: int, faults: float, seed: int
    ) -> tuple[int, dict[str, Any] | None]:
        """Send events; return how many records were sent, and of simulated ones what they are."""

        if file:
            # Who starts a demo has seen what its first records are.
            replayed = run_replay(self.settings, file, anyway=True)
            skipped = sum(replayed.skipped.values())
            self._say(
                f"sent {replayed.sent:,} records of {file.path.name}, left out {skipped:,} {replayed.skipped or ''}"
            )
            return replayed.sent, None
        options = SimulationOptions(
            events=count,
            seed=seed,
            flash_sale_hours=FLASH_SALE_HOURS,
            habits=self._habits(),
            faults=Faults(late=faults, duplicate=faults, conflicting=faults, malformed=faults),
            feed=self._feed,
            site=self._site,
        )
        # Recent ones, so that the live views have something to show.
        options = replace(options, start=latest_start(self.settings, options))
        made = run_simulation(self.settings, options)
        self._say(f"sent {made.sent:,} simulated records")
        return made.sent, asdict(made)

    def _take_in_feed(self) -> None:
        """Take in the simulated shop's feed, as `clickstream catalogue` does."""
        products = list(FeedFile(self._feed, ValidationRules.of(self.settings)))
        take_in(self._lake(), products)
        self._products = len(products)
        self._say(f"took in the shop's feed of {len(products):,} products")

    def _habits(self) -> Habits:
        """Return a usual shop's, with a second currency where the demo's own settings say what it is worth."""
        is_rated = self.settings.exchange_rates == self._rates
        return replace(USUAL, foreign_currency=FOREIGN_CURRENCY if is_rated else 0, local_times=LOCAL_TIMES)

    def wait(self, sent: int, timeout: float) -> None:
        """Wait until all that was sent is in the served tables, the streams' too, and the API is ready.

        Raises:
            LocalStackError: a process ended, a run failed, or it took too long.
        """

        deadline = time.monotonic() + timeout
        reported: set[tuple[str, str]] = set()
        # Those that publish the last sessions, and have tables to make after that.
        publishing: set[str] | None = None
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
            if not self._are_days_published():
                publishing = None
            elif publishing is None:
                # The tables that nobody waits for come last in a run. Runs of days without events may follow.
                publishing = waiting
            missing = self._missing(sent)
            if self._site and self._products is None:
                is_refreshing = any(run["jobName"] == "refresh" and run["runId"] in waiting for run in runs)
                # Not before, as a run would be started for it that the first refresh has to wait for. That serves it.
                if is_refreshing or missing == _PRODUCTS:
                    self._take_in_feed()
            if not missing and publishing is not None and not publishing & waiting:
                self._say(f"all {sent:,} records are in every table")
                return
            if time.monotonic() - self._said > QUIET_SECONDS:
                self._say(self._steps_done(runs) or f"waiting for {missing}")
            if time.monotonic() > deadline:
                logs = "\n".join(f"The end of {child.log.name}:\n{child.tail()}" for child in self._children)
                raise LocalStackError(f"not everything was served after {timeout:.0f} s. {logs}")
            time.sleep(0.5)

    def _is_ingested(self, sent: int) -> bool:
        """Return whether all that was sent is in the lake, and classified."""

        lake = self._lake()
        raw, events = lake.snapshot(catalogue.RAW_EVENTS), lake.snapshot(catalogue.EVENTS)
        return raw.rows >= sent and events.batch >= raw.batch

    def are_tables_new(self, sent: int) -> bool:
        """Return whether the served tables of days hold all that was sent."""

        return self._is_ingested(sent) and self._are_days_published()

    def are_recommendations_new(self, sent: int) -> bool:
        """Return whether the published recommendations were trained on all that was sent."""

        if not self._is_ingested(sent):
            return False
        lake = self._lake()
        events = lake.snapshot(catalogue.EVENTS)
        with connect(self.settings) as connection:
            model = connection.execute(
                "SELECT trained_on, first_day, last_day, interactions "
                "FROM published_models JOIN served_models USING (model_version)"
            ).fetchone()
        if not model:
            return False
        trained_on, first, last, interactions = model
        # Late events are refreshed, and so trained on, apart from the newest of their batch.
        there = lake.snapshot(catalogue.INTERACTION_DAYS).rows_by("event_date")
        known = sum(rows for day, rows in there.items() if first and day >= first)
        is_known = max((day for day, rows in there.items() if rows), default=None) == last
        return trained_on == f"events batch {events.batch}" and is_known and known == interactions

    def _missing(self, sent: int) -> str | None:
        """Return the first of the things that are still to be served; None when all are."""
        parts = {
            "recommendations of all events": lambda: self.are_recommendations_new(sent),
            "sessions of all events": self._are_days_published,
            "the streams": self._is_streamed,
            "the API": lambda: self._ask_api("/health/ready") is not None,
            _PRODUCTS: self._are_products_served,
        }
        return next((part for part, is_there in parts.items() if not is_there()), None)

    def _are_days_published(self) -> bool:
        """Return whether the last table that a refresh publishes has all events."""

        with connect(self.settings) as connection:
            in_sessions = connection.execute("SELECT sum(total_events) FROM clickstream_sessions").fetchone()
        return in_sessions == (self._lake().snapshot(catalogue.EVENTS).rows,)

    def _are_products_served(self) -> bool:
        """Return whether all products of the simulated shop's feed are served, with the pages of this demo."""

        if not self._site:
            return True
        with connect(self.settings) as connection:
            query = "SELECT count(*) FROM products WHERE starts_with(link, %s)"
            (count,) = connection.execute(query, [f"{self._site}/"]).fetchone() or (0,)
        return self._products is not None and count >= self._products

    def _is_streamed(self) -> bool:
        """Return whether windows and alerts hold the topics up to their ends."""

        progress = progress_of(self.settings)
        ends = {partition: offsets.high for partition, offsets in Topics(self.settings).offsets().items()}
        return progress is not None and progress.has_begun and progress.offsets == ends

    def result(self, sent: int, made: dict[str, Any] | None) -> dict[str, Any]:
        """Count what came out, and look one recommendation up."""

        lake = self._lake()
        # Persons, bots too: each event is in some session.
        sessions = lake.read(catalogue.SESSIONS)
        F, _ = functions_of(sessions)
        users = lake.engine.to_arrow(sessions.agg(F.countDistinct("user_id").cast("long").alias("users")))
        # Also those who refuse to be profiled, whom PostgreSQL has in no segment.
        bought = lake.read(catalogue.USER_SEGMENTS).where(F.col("segment") == "buyer")
        buyers = lake.engine.to_arrow(bought.agg(F.countDistinct("user_id").cast("long").alias("buyers")))
        # Elasticsearch's rejections have batch 0, and are of records that are events.
        not_events = lake.read(catalogue.REJECTED_EVENTS).where(F.col("batch") > 0)
        rejected = lake.engine.to_arrow(not_events.agg(F.count(F.lit(1)).cast("long").alias("rejected")))
        with connect(self.settings) as connection:
            (windows, alerts) = connection.execute(
                "SELECT (SELECT count(*) FROM product_windows), (SELECT count(*) FROM flash_sale_alerts)"
            ).fetchone() or (0, 0)
            (revenue, refunds) = connection.execute(
                "SELECT sum(revenue), sum(refunds) FROM daily_summary"
            ).fetchone() or (None, None)
            carts = connection.execute(
                "SELECT state, count(*) FROM carts GROUP BY state ORDER BY state"
            ).fetchall()
            funnel = connection.execute(
                "SELECT step, sum(users)::bigint FROM funnel WHERE dimension = 'overall' GROUP BY step, step_number "
                "ORDER BY step_number"
            ).fetchall()
            user_ids = connection.execute(
                "SELECT DISTINCT user_id FROM product_recommendations ORDER BY user_id"
            ).fetchall()
            persons = connection.execute(
                "SELECT user_id FROM identities GROUP BY user_id ORDER BY count(*) DESC, user_id LIMIT 1"
            ).fetchall()
        if not user_ids:
            raise LocalStackError("there is nobody to recommend anything to: no event has a product")
        # A user, if there is one, before a visitor without a name.
        user_id = min((user_id for (user_id,) in user_ids), key=lambda one: (":" in one, one))
        path = f"/api/recommend/{quote(user_id, safe='')}?n=5"
        answer = self._answer(path)
        if not answer["items"]:
            raise LocalStackError(f"GET {path} gave no recommendation")
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
        rejections = rejected["rejected"][0].as_py()
        result = {
            "sent": sent,
            **rows,
            "rejected": rejections,
            "items": rows["events"] + rows["duplicates"] + rows["conflicts"] + rejections,
            "users": users["users"][0].as_py(),
            "buyers": buyers["buyers"][0].as_py(),
            "revenue": float(revenue or 0),
            "refunds": float(refunds or 0),
            "carts": dict(carts),
            "funnel": dict(funnel),
            "windows": windows,
            "alerts": alerts,
            "users_with_recommendations": len(user_ids),
            "sample": {"user_id": user_id, "path": path, "items": answer["items"]},
            "person": persons[0][0] if persons else None,
            "seconds": round(time.monotonic() - self._started, 1),
        }
        return result | ({"made": made} if made else {})

    def sights(self, result: dict[str, Any]) -> tuple[list[Sight], list[Sight]]:
        """Return what there is to see of the result, and what can be done next."""
        dagster, api = (f"http://{LOOPBACK}:{port}" for port in (self.dagster_port, self.api_port))
        at = Addresses(dagster, api, _as_typed(_program("clickstream")))
        return list(sights(result, self._answer, at, self.settings)), list(further(at))

    def stay_up(self) -> None:
        """Wait for Ctrl-C.

        Raises:
            LocalStackError: a process ended.
        """
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

    def _steps_done(self, runs: list[dict[str, str]]) -> str | None:
        """Say how far the run that is under way has come; None where there is none."""
        run_id = next((run["runId"] for run in runs if run["status"] == "STARTED"), None)
        if not run_id:
            return None
        parts = "jobName executionPlan { steps { key } } stats { ... on RunStatsSnapshot { stepsSucceeded } }"
        data = self._graphql(f'{{ runOrError(runId: "{run_id}") {{ ... on Run {{ {parts} }} }} }}')
        if not data:
            return None
        run = data["runOrError"]
        done, steps = run["stats"]["stepsSucceeded"], len(run["executionPlan"]["steps"])
        return f"run {run_id[:8]} of {run['jobName']}: {done} of {steps} steps are done"

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
        answer = self._get_json(self._dagster, self.dagster_port, "/graphql", {"query": query})
        return answer["data"] if answer else None

    def _ask_api(self, path: str) -> dict[str, Any] | None:
        return self._get_json(self._api, self.api_port, path)

    def _answer(self, path: str) -> dict[str, Any]:
        """Return the API's answer, which is up by now."""
        answer = self._ask_api(path)
        if answer is None:
            raise LocalStackError(f"GET {path} gave no answer. The end of its log:\n{self._api.tail()}")
        return answer

    def _get_json(
        self, child: Child, port: int, path: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Return what a server of ours answers; None while it does not.

        Raises:
            LocalStackError: it is another program that answers.
        """

        data = json.dumps(body).encode() if body else None
        headers = {"Content-Type": "application/json"} | (self._api_headers if port == self.api_port else {})
        request = Request(f"http://{LOOPBACK}:{port}{path}", data, headers)
        try:
            with urlopen(request, timeout=10) as answer:  # noqa: S310 - always http, on this machine
                content = json.load(answer)
        except (URLError, HTTPException, ConnectionError, TimeoutError, ValueError):
            content = None
        # Also without an answer that we understand: another program may not know the path.
        if child not in self._ours and is_others(port, child.pid):
            setting = "DAGSTER_PORT" if child is self._dagster else "API_PORT"
            raise LocalStackError(
                f"Port {port} was taken by {holder(port)} while {child.name} started. End that, or choose another "
                f"port: set {setting}, 0 for any."
            )
        if content is not None:
            self._ours.add(child)
        return content


def _program(name: str) -> Path:
    """Return a program of this installation."""
    return Path(sys.executable).with_name(name)


def _as_typed(program: Path) -> str:
    """Return how a program is typed in the current folder."""
    folder = Path.cwd()
    return shlex.quote(str(program.relative_to(folder) if program.is_relative_to(folder) else program))
