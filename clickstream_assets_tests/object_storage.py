"""A server with the interface of S3 on loopback, over a folder: versitygw, which the Makefile builds."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clickstream_assets.local.children import Child

_KEY, _SECRET, _REGION = "shop", "of-nobody", "eu-central-1"
_PATIENCE_SECONDS = 60
BUCKET = "shop"


class ObjectStorage:
    """A server with one bucket, to stop and start.

    Args:
        folder: has the objects, and the server's log.
    """

    def __init__(self, folder: Path) -> None:
        places = (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))
        program = shutil.which("versitygw", path=os.pathsep.join(places))
        if not program:
            pytest.skip("versitygw is missing, so no lake on S3 is tried; `make object-storage` says why")
        self._program = program
        self._log = folder / "versitygw.log"
        self.folder = folder / "objects"
        """Its buckets are folders in here."""
        (self.folder / BUCKET).mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._child: Child | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which delta-rs and pyarrow find it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_REGION": _REGION,
            "AWS_ALLOW_HTTP": "true",
        }

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [
                    *(self._program, "--port", f"127.0.0.1:{self._port}", "--region", _REGION),
                    *("posix", str(self.folder)),
                ],
                env=os.environ | {"ROOT_ACCESS_KEY": _KEY, "ROOT_SECRET_KEY": _SECRET},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._child = Child("versitygw", process, self._log)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            self._child.check()
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.05)
        raise TimeoutError(self._child.tail())

    def stop(self) -> None:
        """End it."""
        if self._child:
            self._child.stop()
            self._child = None

    @property
    def pid(self) -> int:
        """Its process, while it runs."""
        assert self._child
        return self._child.pid

    def requests(self) -> list[str]:
        """Return the log's line of each request so far."""
        return [line for line in self._log.read_text(errors="replace").splitlines() if "| vgw |" in line]


@contextmanager
def object_storage(folder: Path) -> Iterator[ObjectStorage]:
    """Run a server, with the environment set to it."""
    storage = ObjectStorage(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in storage.environment.items():
            patch.setenv(name, value)
        storage.start()
        try:
            yield storage
        finally:
            storage.stop()
