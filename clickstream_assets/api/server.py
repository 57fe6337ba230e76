"""The API under gunicorn: its worker processes, and what they are told."""

import errno
import logging
import os
import resource
import shutil
import socket
import sys
import tempfile
from ipaddress import ip_address
from pathlib import Path
from secrets import token_bytes
from typing import Any

from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]

from clickstream_assets.api import access_log
from clickstream_assets.api.asgi import Application
from clickstream_assets.api.worker import Worker
from clickstream_assets.errors import ClickstreamError
from clickstream_assets.holders import holder
from clickstream_assets.ingest.experiments import declared_experiments
from clickstream_assets.keys import Scope
from clickstream_assets.settings import Settings

_log = logging.getLogger(__name__)

# Connections to PostgreSQL and Elasticsearch, files of metrics, logs.
_OTHER_FILES = 100


class ServerError(ClickstreamError):
    """The API cannot be served; the message names the setting and the fix."""


def serve(settings: Settings) -> None:
    """Serve the API until SIGTERM or SIGINT; requests under way are finished first.

    `API_PORT=0` takes a free port, which gunicorn's first log lines name.

    Raises:
        ServerError: the address cannot be listened on, or others reach it and need no key, or so many connections
            cannot be opened.
        InputError: the file of EXPERIMENTS cannot be used.
    """
    _check_open_files(settings)
    # Else each worker process would find it out, and gunicorn start them again.
    declared_experiments(settings)
    access_log.log.addHandler(logging.StreamHandler(sys.stdout))
    access_log.log.setLevel(logging.INFO)
    with _listen(settings) as listener:
        _refuse_strangers(settings, listener)
        folder = tempfile.mkdtemp(prefix="clickstream-api-")
        # For prometheus_client, which looks when it is first imported: in the workers, with the application.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        _Server(settings, listener, Path(folder)).run()


def _check_open_files(settings: Settings) -> None:
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and settings.api_connections > most - _OTHER_FILES:
        raise ServerError(
            f"API_CONNECTIONS={settings.api_connections} is more than a process may have here: of the {most} files "
            f"that it may open (`ulimit -n`) it needs {_OTHER_FILES} for others; raise that, or set API_CONNECTIONS to "
            f"{max(1, most - _OTHER_FILES)} or less"
        )


def _listen(settings: Settings) -> socket.socket:
    # Our own socket, because gunicorn answers a taken port with five retries and a traceback.
    address = (settings.api_host, settings.api_port)
    try:
        family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server(address, family=family, backlog=128)
    except OSError as error:
        reason = error.strerror
        if error.errno == errno.EADDRINUSE:
            reason = f"{os.strerror(error.errno)} by {holder(settings.api_port)}"
        raise ServerError(
            f"The API cannot listen on API_HOST={settings.api_host} API_PORT={settings.api_port}: "
            f"{reason}; stop what listens there, or set API_PORT to a free port"
        ) from None


def _refuse_strangers(settings: Settings, listener: socket.socket) -> None:
    """Serve nothing where strangers could read everything; log a warning where nobody can read anything."""
    is_asked = settings.known_keys or settings.api_behind_login
    if not is_asked and not ip_address(listener.getsockname()[0]).is_loopback:
        raise ServerError(
            f"API_HOST={settings.api_host} can be reached from other machines, and API_KEYS is not set, so whoever "
            "reaches it could read everything; make a key with `clickstream keys new --scope read NAME` and put its "
            "entry into API_KEYS, or set API_HOST to 127.0.0.1, or, where a proxy in front asks for a login, "
            "API_BEHIND_LOGIN to true"
        )
    if settings.known_keys and not any(key.may(Scope.READ) for key in settings.known_keys):
        _log.warning(
            "API_KEYS has no key that may read, so nobody can: make one with `clickstream keys new --scope read NAME`"
        )


class _Server(BaseApplication):
    def __init__(self, settings: Settings, listener: socket.socket, metrics_folder: Path) -> None:
        self.settings = settings
        self._listener = listener
        self._metrics_folder = metrics_folder
        # Made before the worker processes, which have the same one.
        self._session_secret = token_bytes(32)
        super().__init__()

    def load_config(self) -> None:
        options: dict[str, Any] = {
            "bind": f"fd://{self._listener.detach()}",
            "workers": self.settings.api_workers,
            "worker_class": Worker,
            "preload_app": False,
            "graceful_timeout": 10,
            "proc_name": "clickstream-api",
            # A management socket in the user's home, which we do not use.
            "control_socket_disable": True,
            # Only the first process calls it; a `with` would end in each worker too.
            "child_exit": lambda _, worker: self._forget_metrics(worker.pid),
            "on_exit": lambda _: shutil.rmtree(self._metrics_folder),
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def _forget_metrics(self, pid: int) -> None:
        """Forget what holds of a worker only while it lives: it would else be reported for ever."""
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(pid, str(self._metrics_folder))

    def load(self) -> Application:
        from clickstream_assets.api.app import create_api

        return create_api(self.settings, self._metrics_folder, self._session_secret)
