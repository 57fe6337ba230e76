"""Spark on this machine as a team has it on many: a standalone cluster, and a Connect server.

All in processes of their own on loopback, from the pyspark package.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from clickstream_assets.engine import spark_config
from clickstream_assets.engine.jars import pyspark_home, spark_jars
from clickstream_assets.engine.java import find_java
from clickstream_assets.engine.spark import authentication, write_properties
from clickstream_assets.errors import LocalStackError
from clickstream_assets.files import make_private
from clickstream_assets.local.children import Child, running
from clickstream_assets.local.ports import LOOPBACK, accepts_connections, free_port
from clickstream_assets.settings import Settings, environment_without_secrets

_START_SECONDS = 60
_SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"
# A master that is started again knows its applications. Without it these wait for ever: a driver registers once, and
# then only hears of a new master from that master itself (`StandaloneAppClient.onDisconnected`).
RECOVERY = {"spark.deploy.recoveryMode": "FILESYSTEM"}
_MASTERS_FOLDER = "master"


@dataclass(frozen=True)
class Cluster:
    """A running standalone cluster."""

    master: str
    """For SPARK_MASTER."""
    page: str
    """The master's page, with the applications and who works for them."""
    workers: tuple[Path, ...]
    """Each worker's folder: a folder per application in it, with the executors' logs."""
    processes: tuple[Child, ...]
    """The master's first, then the workers'."""

    def check(self) -> None:
        """Raise a LocalStackError if a process has ended."""
        for process in self.processes:
            process.check()


@contextmanager
def standalone_cluster(
    settings: Settings, folder: Path, workers: int = 2, cores: int = 2
) -> Iterator[Cluster]:
    """Run a master and workers until the block ends.

    Args:
        settings: name the Java, how much memory an executor gets, and what is to be known to run programs there.
        folder: for logs and the workers' files; it is made.
        workers: how many worker processes.
        cores: what each worker offers; it may be more than there are.

    Raises:
        LocalStackError: no Java, or a process did not start.
    """
    make_private(folder)
    port, page_port = free_port(), free_port()
    address, page = f"spark://{LOOPBACK}:{port}", f"http://{LOOPBACK}:{page_port}"
    env = _environment(settings)
    worker = [*_deployed("worker.Worker"), "--host", LOOPBACK, "--cores", str(cores)]
    # Room for an executor of each of: a run, the next one, and the streams.
    worker += ["--memory", "8g", "--webui-port", "0", *_trusting(settings, folder)]
    # What a cluster before this one was working on is gone with it.
    shutil.rmtree(folder / _MASTERS_FOLDER, ignore_errors=True)
    with ExitStack() as stack:
        work = tuple(folder / f"worker-{number}" for number in range(1, workers + 1))
        children = [stack.enter_context(standalone_master(settings, folder, port, page_port))]
        for number, own in enumerate(work, start=1):
            command = [*worker, "--work-dir", str(own), address]
            log = folder / f"{own.name}.log"
            children.append(
                stack.enter_context(running(f"Spark's worker {number}", command, log, env, folder))
            )
        cluster = Cluster(address, page, work, tuple(children))
        _wait(cluster.check, lambda: _alive_workers(page) == workers, "Spark's workers did not register")
        yield cluster


@contextmanager
def standalone_master(settings: Settings, folder: Path, port: int, page_port: int) -> Iterator[Child]:
    """Run a cluster's master until the block ends; started again in the same folder, it goes on where it was."""
    recovery = RECOVERY | {"spark.deploy.recoveryDirectory": str(folder / _MASTERS_FOLDER)}
    options = {"SPARK_MASTER_OPTS": " ".join(f"-D{name}={value}" for name, value in recovery.items())}
    command = [*_deployed("master.Master"), "--host", LOOPBACK, "--port", str(port)]
    command += ["--webui-port", str(page_port), *_trusting(settings, folder)]
    env = {**_environment(settings), **options}
    with running("Spark's master", command, folder / "master.log", env, folder) as child:
        yield child


def _trusting(settings: Settings, folder: Path) -> list[str]:
    """Return the arguments by which a master or a worker has SPARK_SECRET, if there is one."""
    if settings.spark_secret is None:
        return []
    file = folder / "spark.conf"
    write_properties(file, authentication(settings.spark_secret.get_secret_value()))
    return ["--properties-file", str(file)]


def _deployed(server: str) -> list[str]:
    return [str(pyspark_home() / "bin" / "spark-class"), f"org.apache.spark.deploy.{server}"]


@contextmanager
def connect_server(settings: Settings, folder: Path, port: int | None = None) -> Iterator[tuple[str, Child]]:
    """Run a Spark Connect server on SPARK_MASTER (default: this machine's cores) until the block ends.

    Yields:
        What SPARK_REMOTE is to be, and the process.

    Raises:
        LocalStackError: no Java, no jars, or the server did not start.
    """
    make_private(folder)
    port = port or free_port()
    configuration = spark_config(settings, [str(jar) for jar in spark_jars(settings.jars_path)]) | {
        # It would listen on every interface, and asks nobody for a password.
        "spark.connect.grpc.binding.address": LOOPBACK,
        "spark.connect.grpc.binding.port": str(port),
    }
    # Not in the command, which everybody on the machine can read.
    file = folder / "connect.conf"
    write_properties(file, configuration)
    command = [
        str(pyspark_home() / "bin" / "spark-submit"),
        "--class",
        _SERVER,
        "--properties-file",
        str(file),
    ]
    log = folder / "connect.log"
    with running("Spark Connect", [*command, "spark-internal"], log, _environment(settings), folder) as child:
        _wait(child.check, lambda: accepts_connections(port), "Spark Connect did not start")
        yield f"sc://{LOOPBACK}:{port}", child


def _environment(settings: Settings) -> Mapping[str, str]:
    own = {
        "JAVA_HOME": str(find_java(settings.java_home).parents[1]),
        "SPARK_HOME": str(pyspark_home()),
        # Workers would take the first python3 on PATH, which need not be the one with our packages.
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": LOOPBACK,
    }
    # PySpark in a server's own processes would take these for a wish to be a client of yet another one.
    given = environment_without_secrets()
    passed = {name: value for name, value in given.items() if name not in ("SPARK_REMOTE", "SPARK_MASTER")}
    return passed | own


def _alive_workers(page: str) -> int:
    try:
        with urlopen(f"{page}/json/", timeout=5) as answer:  # noqa: S310 - always http, on this machine
            return json.load(answer)["aliveworkers"]
    except OSError:
        return 0


def _wait(check: Callable[[], None], is_ready: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not is_ready():
        check()
        if time.monotonic() > deadline:
            raise LocalStackError(f"{problem} within {_START_SECONDS} s")
        time.sleep(0.1)
