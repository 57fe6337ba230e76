"""Finds the Java that runs Kafka, Elasticsearch and Spark."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from clickstream_assets.errors import LocalStackError

OLDEST_JAVA = 17  # Kafka 4, Elasticsearch 8.19 and Spark 4 all need it.
# Java 24 took away what Spark 4.0's Hadoop calls (https://openjdk.org/jeps/486). The servers run on 25 too.
NEWEST_JAVA_OF_SPARK = 23
MACOS_JAVA_HOME = Path("/usr/libexec/java_home")
USUAL_FOLDERS = (
    Path("/usr/lib/jvm"),
    Path("/opt/homebrew/opt"),
    Path("/usr/local/opt"),
    Path("/opt/java"),
)
_PROPERTY = re.compile(r"^\s*(java\.home|java\.specification\.version) = (.+)$", re.MULTILINE)


def find_java(java_home: Path | None = None, usual_folders: tuple[Path, ...] = USUAL_FOLDERS) -> Path:
    """The `java` program of a Java 17 or newer; `<its home>/bin/java`, however it was found.

    Looks at `java_home`, then PATH, then what macOS names, then the usual folders. Each candidate is run:
    neither its name nor its folder says reliably what it is. One that Spark cannot use is the last resort.

    Raises:
        LocalStackError: when there is none, naming what was found instead and what to install.
    """
    too_old: list[str] = []
    too_new: list[Path] = []
    for candidate in dict.fromkeys(_candidates(java_home, usual_folders)):
        properties = _properties(candidate)
        if properties is None:
            continue
        home, version = properties
        if version < OLDEST_JAVA:
            too_old.append(f"Java {version} at {candidate}")
        elif version > NEWEST_JAVA_OF_SPARK:
            too_new.append(home / "bin" / "java")
        else:
            return home / "bin" / "java"
    if too_new:
        return too_new[0]
    found = f"found only {', '.join(too_old)}" if too_old else "found none"
    raise LocalStackError(
        f"Java {OLDEST_JAVA} or newer is needed, {found}. Install it (Debian and Ubuntu: apt-get install "
        f"openjdk-{OLDEST_JAVA}-jre-headless; macOS: brew install openjdk@{OLDEST_JAVA}) or set JAVA_HOME."
    )


def _candidates(java_home: Path | None, usual_folders: tuple[Path, ...]) -> Iterator[Path]:
    if java_home:
        yield java_home / "bin" / "java"
    if on_path := shutil.which("java"):
        yield Path(on_path)
    if sys.platform == "darwin" and MACOS_JAVA_HOME.exists():
        answer = subprocess.run(  # noqa: S603 - no shell, and nobody else's command
            [MACOS_JAVA_HOME, "-v", f"{OLDEST_JAVA}+"], capture_output=True, text=True, check=False
        )
        if answer.returncode == 0:
            yield Path(answer.stdout.strip()) / "bin" / "java"
    for folder in usual_folders:
        yield from sorted(folder.glob("*/bin/java"))


def _properties(java: Path) -> tuple[Path, int] | None:
    """Home and feature version of a Java, as it says itself; None if it cannot be run.

    The home is not taken from the path: /usr/bin/java on macOS and version managers' shims are not in one.
    """
    try:
        answer = subprocess.run(  # noqa: S603 - no shell, and nobody else's command
            [java, "-XshowSettings:properties", "-version"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    properties = dict(_PROPERTY.findall(answer.stderr + answer.stdout))
    if answer.returncode != 0 or len(properties) < 2:
        return None
    # Java 8 calls itself 1.8.
    version = properties["java.specification.version"].removeprefix("1.").split(".")[0]
    return Path(properties["java.home"]), int(version)
