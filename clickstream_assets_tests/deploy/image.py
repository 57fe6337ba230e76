"""`make image`: builds the image, and runs the Compose file's services of ours from it, with Podman.

There need be no Docker engine and no registry. What the Dockerfile is built on is made here from Debian's packages, and
stands for `python:…-slim-bookworm`: the same release with Debian's Python. Everything is in a folder of its own and in
namespaces of its own (processes, mounts and, while the containers run, network), so that all of it ends with this
process, whatever ends that. Needs root, or it says so.

What the build machine is set up with, pip's and apt's options and its certificates, is there while the image is built,
and not in it.
"""

from __future__ import annotations

import ast
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn

from clickstream_assets_tests.deploy.files import OURS, ROOT, SERVICES, dockerfile_instructions
from clickstream_assets_tests.deploy.podman import CONTROL_GROUP, SERVERS_ADDRESS, podman_says

IMAGE = SERVICES[OURS[0]]["image"]

# Measured: the store, the two stages of the build and what the containers write.
_NEEDED_BYTES = 12_000_000_000
_END_SECONDS = 30
_KEPT_THERE = [Path(path) for path in ("/run/containers", "/run/crun", "/run/netns", "/var/lib/containers")]
# What is there of this machine while the image is built.
# Empty in Debian, so that nothing of the mounts stays in the image.
_THERE = Path("/mnt")
_JAVAS_AUTHORITIES = Path("/etc/ssl/certs/java/cacerts")
_PIPS_OPTIONS = (
    *("cert", "client-cert", "extra-index-url", "find-links", "index-url", "no-index", "proxy", "retries"),
    *("default-timeout", "timeout", "trusted-host"),
)
# What the base image holds of Debian's packages, besides the smallest system.
_PACKAGES = ("ca-certificates", "netbase", "python3", "python3-venv", "tzdata")
_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
_STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{folder}/store"
runroot = "{folder}/run"
"""
_ENGINE = """\
[containers]
# This process's own, which not every root may raise.
default_ulimits = ["nofile={files}", "nproc={processes}"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "{folder}/tmp"
volume_path = "{folder}/volumes"
runtime = "crun"
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
"""


class ImageError(Exception):
    """The image cannot be built or run here; the message says why."""


def main() -> int:
    """Build and run it; return the exit code."""
    if sys.argv[1:]:
        return _inside(Path(sys.argv[1]))
    try:
        _check_machine()
    except ImageError as error:
        print(f"make image: {error}", file=sys.stderr)
        return 1
    with _folder() as folder:
        return _in_namespaces(
            [sys.executable, "-m", __spec__.name, str(folder)], "--mount", "--pid", "--fork"
        )


def _check_machine() -> None:
    if os.geteuid():
        raise ImageError("it has to be run as root: containers with users, limits and a network need that")
    own = [
        "unshare",
        "--mount",
        "--pid",
        "--net",
        "--fork",
        "--mount-proc",
        "mount",
        "-t",
        "tmpfs",
        "none",
        "/mnt",
    ]
    tried = subprocess.run(own, capture_output=True, text=True, check=False)
    if tried.returncode:
        raise ImageError(
            f"namespaces and mounts of one's own are not allowed here ({tried.stderr.strip()}): run it on a machine, "
            "or in a container with --privileged"
        )
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < _NEEDED_BYTES:
        raise ImageError(
            f"TMPDIR={tempfile.gettempdir()} has {free // 10**9} GB free and {_NEEDED_BYTES // 10**9} are needed"
        )


@contextmanager
def _folder() -> Iterator[Path]:
    """Give a folder for everything; at the end remove it, and the control groups that are called like it."""
    with tempfile.TemporaryDirectory(prefix="clickstream-image-") as name:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _stop)
        try:
            yield Path(name)
        finally:
            for group in Path("/sys/fs/cgroup").glob(f"**/{Path(name).name}"):
                for path, *_ in os.walk(group, topdown=False):
                    _remove_group(Path(path))


def _remove_group(path: Path) -> None:
    """Remove a control group as soon as the last of its processes, which are killed, is gone."""
    deadline = time.monotonic() + _END_SECONDS
    while True:
        try:
            path.rmdir()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _stop(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _in_namespaces(command: list[str], *options: str) -> int:
    """Run a command in namespaces of its own, which end with all that is in them when this process does."""
    # The first is for when this process is killed, the second for when unshare is.
    prefix = ["setpriv", "--pdeathsig=KILL", "unshare", "--kill-child", *options, "--mount-proc"]
    with subprocess.Popen([*prefix, *command], cwd=ROOT) as process:
        try:
            return process.wait()
        finally:
            process.kill()


def _inside(folder: Path) -> int:
    """Build it and run it, in namespaces of one's own."""
    # crun does not take version 2 of control groups beside version 1.
    subprocess.run(["umount", "/sys/fs/cgroup/unified"], stderr=subprocess.DEVNULL, check=False)
    # What they keep of containers and networks there, whatever the configuration says, ends with these mounts.
    for path in _KEPT_THERE:
        path.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path], check=True)
    files, processes = (
        ":".join(map(str, resource.getrlimit(kind)))
        for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)
    )
    for variable, content in {"CONTAINERS_STORAGE_CONF": _STORAGE, "CONTAINERS_CONF": _ENGINE}.items():
        file = folder / variable
        file.write_text(content.format(folder=folder, files=files, processes=processes))
        os.environ[variable] = str(file)
    os.environ["TMPDIR"] = str(folder)
    try:
        machine = _Machine.here(folder)
        base = _base()
        _say(f"Making {base} from Debian's packages")
        _make_base(base, folder / "base", machine)
        _say(f"Building {IMAGE}")
        _build(machine, f"/{folder.name}")
    except (ImageError, subprocess.CalledProcessError) as error:
        print(f"make image: {error}", file=sys.stderr)
        return 1
    sizes = [int(podman_says("image", "inspect", name, "--format", "{{.Size}}")) for name in (IMAGE, base)]
    _say(f"{IMAGE} has {sizes[0] / 1e9:.2f} GB, of which {sizes[1] / 1e9:.2f} are {base}")
    _say("Running it")
    tests = [sys.executable, "-m", "pytest", "-m", "long", "-p", "no:cacheprovider"]
    own_network = [
        "sh",
        "-c",
        f'ip link set lo up && ip address add {SERVERS_ADDRESS}/32 dev lo && exec "$@"',
        "sh",
    ]
    done = subprocess.run(
        [
            "unshare",
            "--net",
            *own_network,
            *tests,
            "--verbose",
            str(Path(__file__).with_name("test_image.py")),
        ],
        env=os.environ | {CONTROL_GROUP: f"/{folder.name}"},
        check=False,
    )
    return done.returncode


def _say(text: str) -> None:
    print(f"--- {time.strftime('%H:%M:%S')} {text}", flush=True)


class _Machine(NamedTuple):
    """Set-up of this machine for fetching packages, which a build on it needs and an image must not hold."""

    mirror: str
    """Address of Debian's packages."""
    variables: dict[str, str]
    """Variables of the build, with paths as they are there."""
    mounts: dict[Path, Path]
    """Files and folders here, and where they are there."""

    @classmethod
    def here(cls, folder: Path) -> _Machine:
        """Find out how this machine fetches packages; what has to be written goes into a folder.

        Raises:
            ImageError: apt names no mirror of Debian.
        """
        files = folder / "machine"
        files.mkdir()
        mounts = {files: _THERE}

        def there(here: Path) -> str:
            """Have a file or folder be there; return its path there."""
            if here not in mounts:
                place = files / str(len(mounts))
                if here.is_dir():
                    place.mkdir()
                else:
                    place.touch()
                mounts[here] = _THERE / place.name
            return str(mounts[here])

        variables = {}
        for option, value in _pip_options():
            is_here = Path(value).is_absolute() and Path(value).exists()
            variables[f"PIP_{option.upper().replace('-', '_')}"] = there(Path(value)) if is_here else value
        # npm's, which fetches what pages load, is another.
        for variable in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"):
            if bundle := os.environ.get(variable):
                variables[variable] = there(Path(bundle))
        java = os.environ.get("JAVA_TOOL_OPTIONS", "").split()
        if _JAVAS_AUTHORITIES.exists():
            java.append(f"-Djavax.net.ssl.trustStore={there(_JAVAS_AUTHORITIES)}")
        variables["JAVA_TOOL_OPTIONS"] = " ".join(java)
        apt = folder / "apt.conf"
        options = re.findall(r"^Acquire::https?::.*$", _output("apt-config", "dump"), re.MULTILINE)
        apt.write_text("\n".join(options))
        variables["APT_CONFIG"] = there(apt)
        return cls(_mirror(), variables, mounts)


def _pip_options() -> Iterator[tuple[str, str]]:
    """Yield the options by which pip finds packages; of one that is there twice, the one that counts comes last."""
    lines = _output(sys.executable, "-m", "pip", "config", "list").splitlines()
    for line in sorted(lines, key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in ("global", "install", ":env:") and option in _PIPS_OPTIONS:
            yield option, ast.literal_eval(value)


def _mirror() -> str:
    wanted = "$(ORIGIN) $(LABEL) $(REPO_URI)"
    lines = _output("apt-get", "indextargets", "--format", wanted, "Created-By: Packages").splitlines()
    mirrors = [line.removeprefix("Debian Debian ") for line in lines if line.startswith("Debian Debian ")]
    if not mirrors:
        raise ImageError(
            "apt's sources name no mirror of Debian, from whose packages the base of the image is made"
        )
    return mirrors[0]


def _output(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def _base() -> str:
    """The name of the image that the Dockerfile begins with."""
    return next(words.split()[0] for name, words in dockerfile_instructions() if name == "FROM")


def _make_base(name: str, folder: Path, machine: _Machine) -> None:
    """Make the base image."""
    release = name.partition("@")[0].rpartition("-")[2]
    log = folder.with_suffix(".log")
    with log.open("w") as output:
        made = subprocess.run(
            [
                "debootstrap",
                "--variant=minbase",
                f"--include={','.join(_PACKAGES)}",
                release,
                folder,
                machine.mirror,
            ],
            stdout=output,
            stderr=output,
            check=False,
        )
    if made.returncode:
        raise ImageError(f"debootstrap failed:\n{log.read_text()[-2000:]}")
    (folder / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    for path in folder.glob("var/cache/apt/archives/*.deb"):
        path.unlink()
    variables = {"PATH": _PATH} | machine.variables
    changes = [f"--change=ENV {variable}={json.dumps(value)}" for variable, value in variables.items()]
    with subprocess.Popen(["tar", "--create", f"--directory={folder}", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(["podman", "import", "--quiet", *changes, "-", name], stdin=tar.stdout, check=True)
    shutil.rmtree(folder)


def _build(machine: _Machine, control_group: str) -> None:
    """Build the image from the Dockerfile, as `docker build .` does, and take the machine's variables out of it."""
    build = ["podman", "build", "--pull=never", "--network=host", f"--cgroup-parent={control_group}"]
    mounts = [f"--volume={here}:{there}:ro" for here, there in machine.mounts.items()]
    built = f"{IMAGE}-with-variables"
    subprocess.run([*build, *mounts, f"--tag={built}", "."], cwd=ROOT, check=True)
    # In the build itself, each of its stages would begin without them. A Dockerfile of FROM alone makes no new image.
    without = [f"--unsetenv={name}" for name in machine.variables]
    (user,) = (words for name, words in dockerfile_instructions() if name == "USER")
    subprocess.run(
        [*build, *without, f"--tag={IMAGE}", "--file=-", "."],
        input=f"FROM {built}\nUSER {user}\n",
        text=True,
        cwd=ROOT,
        check=True,
    )


if __name__ == "__main__":
    sys.exit(main())
