"""Work that must keep no batch waiting, and so has a thread of its own."""

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from clickstream_assets.errors import ClickstreamError
from clickstream_assets.streaming import waits

STOP_SECONDS = 20.0
_log = logging.getLogger(__name__)


class Background:
    """Work in a thread of its own: done when it is woken, at intervals, and once more at the end.

    Work that fails is tried again, whatever the error: it ends neither the thread nor the streams.

    Args:
        name: what the work brings along, for the log.
        work: does it, and returns for how many seconds it is not to be done again.
        seconds: the interval at which it is done without being woken.
    """

    def __init__(self, name: str, work: Callable[[], float], seconds: float) -> None:
        self._name = name
        self._work = work
        self._seconds = seconds
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do the work a last time, and end."""
        self._closing.set()
        self._wake.set()
        self._thread.join(STOP_SECONDS)

    def wake(self) -> None:
        """Have the work done soon."""
        self._wake.set()

    def _run(self) -> None:
        pause = 0.0
        failures = 0
        is_last = False
        while not is_last:
            self._closing.wait(pause)
            self._wake.wait(self._seconds)
            self._wake.clear()
            # Asked before the work, so that what came until then is done.
            is_last = self._closing.is_set()
            try:
                pause = self._work()
                failures = 0
            except Exception as error:
                failures += 1
                pause = waits.wait_after(failures, waits.SIDE_WORK)
                self.wake()
                if isinstance(error, ClickstreamError):
                    _log.warning("%s wait: %s", self._name, error)
                else:
                    _log.exception("%s wait", self._name)
