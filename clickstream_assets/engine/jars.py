"""Fetches what `ivy.xml` pins, once per machine: Kafka, Elasticsearch and the jars that Spark needs.

A folder `JARS_PATH/<hash of ivy.xml>/<configuration>/` is complete or is not there, so several homes and clones can
share it.
"""

import errno
import hashlib
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

from clickstream_assets.engine.java import find_java
from clickstream_assets.errors import LocalStackError
from clickstream_assets.files import Progress, exclusive
from clickstream_assets.settings import environment_without_secrets

IVY_FILE = Path(__file__).with_name("ivy.xml")
# Measured: 480 MB while fetching, since Ivy's cache holds every file a second time, and 195 MB afterwards.
NEEDED_BYTES = 600_000_000

_WATCH_SECONDS = 0.5
_LINE_SECONDS = 5.0

_NOT_FOUND = re.compile(r"::\s+([^\s:]+#[^\s:]+;[^\s:]+): (?:not found|.*failed)")
_FAILED = re.compile(r"\[FAILED\s*\]\s+(\S+?)!")
_NO_ANSWER = re.compile(r"((?:java\.net|javax\.net|java\.io)\.\w*(?:Exception|Error)[^\n)]*)")


class Configuration(StrEnum):
    """A part that can be fetched on its own; the names are those of the configurations in `ivy.xml`."""

    KAFKA = "kafka"
    ELASTICSEARCH = "elasticsearch"
    SPARK = "spark"

    @property
    def size(self) -> int:
        """About how many bytes are fetched for it."""
        return _SIZES[self]


_SIZES = {
    Configuration.KAFKA: 46_000_000,
    Configuration.ELASTICSEARCH: 107_000_000,
    Configuration.SPARK: 27_000_000,
}

Watch = Callable[[Mapping[Configuration, int]], None]
"""Called twice a second, and at the end, with the bytes that were fetched so far of each configuration."""


def fetch_jars(
    jars_path: Path,
    progress: Progress,
    java_home: Path | None = None,
    configurations: Sequence[Configuration] = tuple(Configuration),
    watch: Watch | None = None,
) -> Path:
    """Fetch what `ivy.xml` pins, unless it is there, and return the folder of the configurations' folders.

    Args:
        jars_path: JARS_PATH.
        progress: Gets a line on each thing that is going on.
        java_home: Home of the Java to fetch with; None looks for one.
        configurations: What to fetch.
        watch: Learns how far it is; without it, `progress` gets a line every five seconds.

    Raises:
        LocalStackError: no Java, no network, no such artifact or no disk space.
    """
    folder = _folder(jars_path)
    if not _missing(folder, configurations):
        return folder
    try:
        jars_path.mkdir(parents=True, exist_ok=True)
        with exclusive(jars_path / "fetch.lock", progress):
            if missing := _missing(folder, configurations):
                _fetch(
                    jars_path, folder, missing, find_java(java_home), progress, watch or _in_lines(progress)
                )
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _disk_full(jars_path) from error
        if isinstance(error, PermissionError):
            raise LocalStackError(
                f"JARS_PATH={jars_path} cannot be written ({error}); name a folder of yours."
            ) from error
        raise
    return folder


def kafka_classpath(jars_path: Path) -> str:
    """Java class path of the Kafka broker and its tools.

    Raises:
        LocalStackError: when the jars have not been fetched.
    """
    return str(_fetched(jars_path, Configuration.KAFKA) / "*")


def spark_jars(jars_path: Path) -> list[Path]:
    """The connectors to Kafka and S3, Delta Lake and what they need beyond pyspark's own jars: `spark.jars`.

    Raises:
        LocalStackError: when the jars have not been fetched.
    """
    return sorted(_fetched(jars_path, Configuration.SPARK).glob("*.jar"))


def elasticsearch_home(jars_path: Path) -> Path:
    """The unpacked Elasticsearch server; nothing writes there.

    Raises:
        LocalStackError: when the jars have not been fetched.
    """
    return next(_fetched(jars_path, Configuration.ELASTICSEARCH).iterdir())


def pyspark_home() -> Path:
    """Folder of the pyspark package, which carries Spark and Ivy.

    Raises:
        LocalStackError: when the package is missing.
    """
    # Looked up, not imported: importing pyspark takes a second.
    spec = find_spec("pyspark")
    if not spec or not spec.submodule_search_locations:
        raise LocalStackError("pyspark is missing; install it again (pip install pyspark).")
    return Path(spec.submodule_search_locations[0])


def _folder(jars_path: Path) -> Path:
    return jars_path / hashlib.sha256(IVY_FILE.read_bytes()).hexdigest()[:12]


def _missing(folder: Path, configurations: Sequence[Configuration]) -> list[Configuration]:
    return [configuration for configuration in configurations if not (folder / configuration).exists()]


def _fetched(jars_path: Path, configuration: Configuration) -> Path:
    folder = _folder(jars_path) / configuration
    if not folder.exists():
        raise LocalStackError(
            f"The jars of {configuration} have not been fetched into JARS_PATH={jars_path}: run "
            "`clickstream fetch-jars`."
        )
    return folder


def _fetch(
    jars_path: Path,
    folder: Path,
    configurations: list[Configuration],
    java: Path,
    progress: Progress,
    watch: Watch,
) -> None:
    if shutil.disk_usage(jars_path).free < NEEDED_BYTES:
        raise _disk_full(jars_path)
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    size = sum(configuration.size for configuration in configurations)
    progress(
        f"Fetching the jars of {', '.join(configurations)} into {folder}: {_megabytes(size)} MB, once; "
        "about a minute on a usual line"
    )
    # Ivy fetches one file at a time, so one run per configuration makes it parallel (35 s instead of 54).
    with ThreadPoolExecutor(len(configurations)) as pool:
        runs = [pool.submit(_retrieve, name, jars_path, partial, java, progress) for name in configurations]
        is_done = False
        while not is_done:
            is_done = not wait(runs, timeout=_WATCH_SECONDS).not_done
            watch({name: _fetched_bytes(_ivy_folder(jars_path) / name) for name in configurations})
    for run in runs:
        run.result()
    for archive in list(partial.glob(f"{Configuration.ELASTICSEARCH}/*.zip")):
        _unpack(archive)
        archive.unlink()
    folder.mkdir(exist_ok=True)
    for configuration in configurations:
        (partial / configuration).rename(folder / configuration)
    partial.rmdir()
    shutil.rmtree(_ivy_folder(jars_path), ignore_errors=True)


def _in_lines(progress: Progress) -> Watch:
    said = monotonic()

    def watch(fetched: Mapping[Configuration, int]) -> None:
        nonlocal said
        if monotonic() - said >= _LINE_SECONDS:
            said = monotonic()
            each = (
                f"{name} {_megabytes(count)} of {_megabytes(name.size)} MB" for name, count in fetched.items()
            )
            progress(f"Fetched {', '.join(each)}")

    return watch


def _megabytes(count: int) -> int:
    return round(count / 1e6)


def _fetched_bytes(folder: Path) -> int:
    """Return the bytes of the jars and archives in Ivy's folder, those that have not come whole too."""
    count = 0
    for path in folder.rglob("*"):
        # Ivy renames and deletes files meanwhile.
        with suppress(FileNotFoundError):
            if path.name.partition(".part")[0].endswith((".jar", ".zip")):
                count += path.stat().st_size
    return count


def _ivy_folder(jars_path: Path) -> Path:
    """Ivy's own files. They outlive a failed run, so the next one goes on where it ended."""
    return jars_path / "ivy"


def _retrieve(
    configuration: Configuration, jars_path: Path, target: Path, java: Path, progress: Progress
) -> None:
    # A cache of its own for each run: Ivy does not lock one between processes.
    ivy = _ivy_folder(jars_path) / configuration
    ivy.mkdir(parents=True, exist_ok=True)
    command = [
        str(java),
        # Otherwise Ivy reads and writes ~/.ivy2.
        f"-Divy.default.ivy.user.dir={ivy}",
        *("-jar", str(_ivy_jar())),
        *("-ivy", str(IVY_FILE)),
        *("-confs", configuration),
        *("-retrieve", f"{target}/{configuration}/[artifact]-[revision].[ext]"),
    ]
    log = jars_path / f"ivy-{configuration}.log"
    with log.open("w") as output:
        code = subprocess.run(  # noqa: S603 - no shell, and nobody else's command
            command,
            env=environment_without_secrets(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    if code != 0 or not (target / configuration).exists():
        raise _ivy_error(log, jars_path)
    progress(f"Fetched {configuration}")


def _ivy_jar() -> Path:
    jars = list((pyspark_home() / "jars").glob("ivy-*.jar"))
    if not jars:
        raise LocalStackError(
            "pyspark's jars/ivy-*.jar is missing; install pyspark again (pip install pyspark)."
        )
    return jars[0]


def _ivy_error(log: Path, jars_path: Path) -> LocalStackError:
    text = log.read_text(errors="replace")
    if os.strerror(errno.ENOSPC) in text:
        return _disk_full(jars_path)
    artifacts = ", ".join(dict.fromkeys(_NOT_FOUND.findall(text) + _FAILED.findall(text))) or "the jars"
    if no_answer := _NO_ANSWER.search(text):
        return LocalStackError(
            f"Could not fetch {artifacts}: the Maven repository did not answer ({no_answer[1].strip()}). "
            "Check the network (behind a proxy, set JAVA_TOOL_OPTIONS='-Dhttps.proxyHost=… "
            f"-Dhttps.proxyPort=…') and repeat; Ivy's log: {log}"
        )
    return LocalStackError(f"Could not fetch {artifacts}: no Maven repository has it; Ivy's log: {log}")


def _disk_full(jars_path: Path) -> LocalStackError:
    free = shutil.disk_usage(jars_path).free
    return LocalStackError(
        f"JARS_PATH={jars_path} has {free // 10**6} MB free and {NEEDED_BYTES // 10**6} MB are needed; "
        "make room or name another folder."
    )


def _unpack(archive: Path) -> None:
    """Unpack into the archive's folder. zipfile drops the executable bits, without which no script would start."""
    with zipfile.ZipFile(archive) as contents:
        for member in contents.infolist():
            path = Path(contents.extract(member, archive.parent))
            if mode := member.external_attr >> 16 & 0o777:
                path.chmod(mode)
