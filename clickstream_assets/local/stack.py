"""Starts, stops and watches the three servers of one home."""

import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

import psutil

from clickstream_assets.engine.jars import elasticsearch_home, fetch_jars, kafka_classpath
from clickstream_assets.engine.java import find_java
from clickstream_assets.errors import LocalStackError
from clickstream_assets.files import NO_SPACE, Progress, exclusive, full_disk, make_private, silent, writing
from clickstream_assets.holders import STATE_FILE, holder
from clickstream_assets.local import processes
from clickstream_assets.local.elasticsearch import Elasticsearch
from clickstream_assets.local.env_file import update_env_file
from clickstream_assets.local.identity import make_home, server_identity
from clickstream_assets.local.kafka import Kafka
from clickstream_assets.local.ports import LOOPBACK, Listener, free_port, is_others, require_free
from clickstream_assets.local.postgres import OWNER, Postgres, installed_programs
from clickstream_assets.local.server import Server, Tools, last_lines
from clickstream_assets.local.state import ServerState, StateFile
from clickstream_assets.settings import Settings

START_TIMEOUT_SECONDS = 120
POLL_SECONDS = 0.1
# How long the children of a server that was killed may take to notice.
ORPHANS_TIMEOUT_SECONDS = 2
_LAST_BYTES = 20_000
SERVERS: tuple[type[Server], ...] = (Kafka, Postgres, Elasticsearch)
DAGSTER_DB = "dagster"


class Condition(StrEnum):
    """The condition of a server."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    CRASHED = "crashed"
    DISK_FULL = "disk full"
    STOPPED = "stopped"


@dataclass(frozen=True)
class ServerStatus:
    """One server as it is now; `problem` says why it cannot be used, where that is known."""

    title: str
    pid: int | None
    port: int | None
    condition: Condition
    problem: str | None = None


class Stack:
    """The servers of one home folder, which outlive the command that starts them.

    Args:
        home: folder of the data, the logs and `stack.json`.
        jars_path: where `fetch_jars` keeps the servers; several homes share it.
        java_home: home of the Java to use; None looks for one.
        postgres_db: database of the served tables; Dagster's storage has one of its own.
        progress: gets a line on each thing that is going on.
    """

    def __init__(
        self,
        home: Path,
        jars_path: Path,
        java_home: Path | None = None,
        postgres_db: str = "clickstream",
        progress: Progress = silent,
    ) -> None:
        # Resolved, since it is compared with the working folders of processes.
        self.home = home.expanduser().resolve()
        self._jars_path = jars_path
        self._java_home = java_home
        self._postgres_db = postgres_db
        self._progress = progress

    @classmethod
    def of(cls, settings: Settings, home: Path | None, progress: Progress) -> Self:
        """Return the stack of a home (None: that of the settings), with everything else as the settings say."""
        return cls(
            home or settings.clickstream_home,
            settings.jars_path,
            settings.java_home,
            settings.postgres_db,
            progress,
        )

    def up(
        self,
        env_file: Path | None = None,
        dagster_yaml: Path | None = None,
        ports: Mapping[str, int] | None = None,
        on_healthy: Callable[[type[Server]], None] | None = None,
        only: Collection[type[Server]] = SERVERS,
        others: Collection[Listener] = (),
    ) -> None:
        """Start the servers that do not run, all at once, and return when all are healthy.

        Changes nothing where they are. A second call for the same home waits for the first.

        Args:
            env_file: gets the servers' addresses; its other lines stay as they are.
            dagster_yaml: is linked into DAGSTER_HOME, unless that has one of its own.
            ports: fixed ports by name (`kafka`, `postgres`, `elasticsearch`); the others are chosen at the
                first start, and all are kept.
            on_healthy: is called with each server as soon as that one is healthy, from a thread of its own.
            only: the servers to start; `env` names none that was never started.
            others: what is to listen beside the servers; these ports, too, are looked at before any server starts.

        Raises:
            PortsTakenError: before anything is started.
            LocalStackError: a server died or was not healthy within 120 s, something that they
                need is missing, or the home cannot be written.
        """
        with writing(self.home):
            make_home(self.home)
            make_private(self.home / "logs")
            self._lock_path.touch()
        with self._locked():
            file = StateFile(self._state_path)
            stopped = [kind for kind in only if _process(file, kind) is None]
            self._end_orphans(stopped)
            _assign_ports(file, stopped, ports or {}, others)
            file.save()
            self._prepare_dagster(dagster_yaml)
            self._start(file, only, stopped, on_healthy)
            if env_file:
                update_env_file(env_file, self._env(file))

    def bring_back(self) -> None:
        """Start those servers again that were started and not stopped, and wait until all of them are healthy.

        Raises:
            LocalStackError: as `up`.
        """
        self.up(only=self.started)

    @property
    def started(self) -> list[type[Server]]:
        """The servers that were started and not stopped, whether they run or not.

        Raises:
            LocalStackError: when the home is another user's or `stack.json` is damaged.
        """
        servers = StateFile(self._state_path).state.servers
        return [kind for kind in SERVERS if kind.name in servers and servers[kind.name].pid]

    def down(self) -> None:
        """Stop the servers cleanly; does nothing where none runs.

        Raises:
            LocalStackError: when they are another user's.
        """
        if not self._state_path.exists():
            return
        with self._locked():
            file = StateFile(self._state_path)
            with ThreadPoolExecutor(len(SERVERS)) as pool:
                list(pool.map(lambda kind: self._stop(file, kind), SERVERS))

    def status(self) -> list[ServerStatus]:
        """Return the condition of each server.

        Raises:
            LocalStackError: when the home is another user's or `stack.json` is damaged.
        """
        file = StateFile(self._state_path)
        return [self._status(file, kind) for kind in SERVERS]

    def env(self) -> dict[str, str]:
        """Return the environment variables with which everything else finds these servers.

        Raises:
            LocalStackError: when the stack was never up.
        """
        file = StateFile(self._state_path)
        if not file.state.servers:
            raise LocalStackError(f"No stack was ever started in {self.home}: run `clickstream stack up`.")
        return self._env(file)

    @property
    def _state_path(self) -> Path:
        return self.home / STATE_FILE

    @property
    def _dagster_home(self) -> Path:
        return self.home / "dagster"

    @property
    def _lock_path(self) -> Path:
        return self.home / "stack.lock"

    def _locked(self) -> AbstractContextManager[None]:
        return exclusive(self._lock_path, self._progress)

    def _server(self, file: StateFile, kind: type[Server]) -> Server:
        port = file.state.servers[kind.name].port
        if kind is not Postgres:
            return kind(self.home, port)
        passwords = file.state.postgres_password, file.state.postgres_admin_password
        return Postgres(self.home, port, *passwords, databases=(self._postgres_db, DAGSTER_DB))

    def _end_orphans(self, stopped: list[type[Server]]) -> None:
        """End servers that work on this home's data and that `stack.json` does not know, or knows as dead.

        A server's children outlive it for a moment, and `up` may be killed before it has noted a server.
        """
        for kind in stopped:
            orphans = processes.working_in(self.home / kind.name)
            processes.end(processes.remaining(orphans, ORPHANS_TIMEOUT_SECONDS), kind.stop_signal)

    def _start(
        self,
        file: StateFile,
        kinds: Collection[type[Server]],
        stopped: list[type[Server]],
        on_healthy: Callable[[type[Server]], None] | None,
    ) -> None:
        tools = self._tools() if stopped else None
        cancelled = threading.Event()

        def bring_up(kind: type[Server]) -> None:
            self._bring_up(file, kind, tools if kind in stopped else None, cancelled)
            if on_healthy:
                on_healthy(kind)

        with ThreadPoolExecutor(len(SERVERS)) as pool:
            runs = [pool.submit(bring_up, kind) for kind in kinds]
            try:
                errors = [run.exception() for run in runs]
            except (KeyboardInterrupt, SystemExit):
                cancelled.set()
                raise
        problems = [error for error in errors if error]
        for error in problems:
            if not isinstance(error, LocalStackError):
                raise error
        if problems:
            raise LocalStackError("\n".join(str(error) for error in problems))

    def _tools(self) -> Tools:
        fetch_jars(self._jars_path, self._progress, self._java_home)
        java = find_java(self._java_home)
        elasticsearch = elasticsearch_home(self._jars_path)
        postgres = installed_programs()
        needed = [java, elasticsearch / "bin" / "elasticsearch", postgres / "initdb", self.home]
        classpath = kafka_classpath(self._jars_path)
        return Tools(server_identity(needed), java, classpath, elasticsearch, postgres)

    def _bring_up(
        self, file: StateFile, kind: type[Server], tools: Tools | None, cancelled: threading.Event
    ) -> None:
        """Wait until a server is healthy; start it before, if tools are given."""
        began = time.monotonic()
        server = self._server(file, kind)
        log_start = server.log.stat().st_size if server.log.exists() else 0
        if tools:
            # Once more: jars may have been fetched since the ports were looked at.
            require_free([_listener(kind, server.port)])
            self._progress(f"{kind.title}: starting")
            server.make_folder("", tools.identity)
            server.prepare(tools)
            process = processes.start(
                [*tools.identity.prefix, *server.command(tools)], server.folder, server.log
            )
            if process:
                file.started(kind.name, process)
        else:
            process = _process(file, kind)
        _wait_until_healthy(server, process, log_start, cancelled)
        server.configure()
        if tools:
            self._progress(f"{kind.title}: up on {LOOPBACK}:{server.port} ({time.monotonic() - began:.1f} s)")

    def _stop(self, file: StateFile, kind: type[Server]) -> None:
        known = _process(file, kind)
        if known:
            self._progress(f"{kind.title}: stopping")
            processes.end([known], kind.stop_signal)
        processes.end(processes.working_in(self.home / kind.name), kind.stop_signal)
        if kind.name in file.state.servers:
            file.stopped(kind.name)

    def _status(self, file: StateFile, kind: type[Server]) -> ServerStatus:
        recorded = file.state.servers.get(kind.name)
        if recorded is None:
            return ServerStatus(kind.title, None, None, Condition.STOPPED)
        process = recorded.process
        if process is None and not recorded.pid:
            return ServerStatus(kind.title, None, recorded.port, Condition.STOPPED)
        pid = process.pid if process else None
        if full := full_disk(self.home / kind.name):
            # Whether it has noticed by now or not: it can be read at best.
            return ServerStatus(kind.title, pid, recorded.port, Condition.DISK_FULL, full)
        server = self._server(file, kind)
        if process is None:
            return ServerStatus(kind.title, None, recorded.port, Condition.CRASHED, _last_words(server))
        problem = server.problem()
        condition = Condition.UNHEALTHY if problem else Condition.HEALTHY
        return ServerStatus(kind.title, pid, recorded.port, condition, problem)

    def _prepare_dagster(self, dagster_yaml: Path | None) -> None:
        # With what runs have printed.
        make_private(self._dagster_home)
        link = self._dagster_home / "dagster.yaml"
        if dagster_yaml is None or (link.exists() and not link.is_symlink()):
            return
        target = dagster_yaml.absolute()
        if not link.is_symlink() or link.readlink() != target:
            link.unlink(missing_ok=True)
            link.symlink_to(target)

    def _env(self, file: StateFile) -> dict[str, str]:
        ports = {name: server.port for name, server in file.state.servers.items()}
        env = {"CLICKSTREAM_HOME": str(self.home)}
        if Kafka.name in ports:
            env["KAFKA_BOOTSTRAP_SERVERS"] = f"{LOOPBACK}:{ports[Kafka.name]}"
            env["KAFKA_SECURITY_PROTOCOL"] = "PLAINTEXT"
        if Postgres.name in ports:
            env["POSTGRES_HOST"] = LOOPBACK
            env["POSTGRES_PORT"] = str(ports[Postgres.name])
            env["POSTGRES_USER"] = OWNER
            env["POSTGRES_PASSWORD"] = file.state.postgres_password
            env["POSTGRES_DB"] = self._postgres_db
        if Elasticsearch.name in ports:
            env["ELASTICSEARCH_URL"] = f"http://{LOOPBACK}:{ports[Elasticsearch.name]}"
        return env | {"DAGSTER_HOME": str(self._dagster_home), "DAGSTER_POSTGRES_DB": DAGSTER_DB}


def _process(file: StateFile, kind: type[Server]) -> psutil.Process | None:
    recorded = file.state.servers.get(kind.name)
    return recorded.process if recorded else None


def _last_words(server: Server) -> str:
    """Say of a server that died how it is started again, and why it died: of a disk that was full, or its log."""
    if NO_SPACE.search(_end_of(server, _LAST_BYTES)):
        return "there was no space left on its disk, and there is some now; `clickstream stack up` starts it again"
    return f"`clickstream stack up` starts it again; why it ended is in {server.log}"


def _end_of(server: Server, number: int) -> str:
    if not server.log.exists():
        return ""
    with server.log.open("rb") as log:
        log.seek(max(0, server.log.stat().st_size - number))
        return log.read().decode(errors="replace")


def _listener(kind: type[Server], port: int) -> Listener:
    return Listener(kind.title, port, f"`clickstream stack up --{kind.name}-port PORT`")


def _assign_ports(
    file: StateFile, stopped: list[type[Server]], fixed: Mapping[str, int], others: Collection[Listener]
) -> None:
    servers = file.state.servers
    listeners = list(others)
    for kind in SERVERS:
        recorded = servers.get(kind.name)
        wanted = fixed.get(kind.name)
        if kind not in stopped:
            if recorded and wanted and wanted != recorded.port:
                raise LocalStackError(
                    f"{kind.title} already runs, on port {recorded.port}; to have it on {wanted}, run "
                    "`clickstream stack down` first."
                )
            continue
        known = {*fixed.values(), *(listener.port for listener in listeners)}
        port = wanted or (recorded.port if recorded else free_port(besides=known))
        listeners.append(_listener(kind, port))
        servers[kind.name] = ServerState(port)
    require_free(listeners)


def _wait_until_healthy(
    server: Server, process: psutil.Process | None, log_start: int, cancelled: threading.Event
) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not cancelled.is_set():
        if process is None or not processes.is_alive(process):
            raise LocalStackError(f"{server.title} died while starting. {_log_end(server, log_start)}")
        problem = server.problem()
        if problem is None:
            if is_others(server.port, process.pid):
                raise LocalStackError(
                    f"Port {server.port} of {server.title} was taken by {holder(server.port)} while it started; "
                    "repeat this."
                )
            return
        if time.monotonic() > deadline:
            raise LocalStackError(
                f"{server.title} (process {process.pid}) was not healthy within {START_TIMEOUT_SECONDS} s: "
                f"{problem}. `clickstream stack down` ends it. {_log_end(server, log_start)}"
            )
        cancelled.wait(POLL_SECONDS)
    raise LocalStackError(f"{server.title} was not waited for; `clickstream stack status` says how it is.")


def _log_end(server: Server, log_start: int) -> str:
    with server.log.open("rb") as log:
        log.seek(log_start)
        text = log.read().decode(errors="replace")
    return f"The end of its log, {server.log}:\n{last_lines(text)}"
