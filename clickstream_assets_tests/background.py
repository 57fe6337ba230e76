"""Work that goes on in threads while a test does something else, and fails the test when it fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Background:
    """Threads of a test's own."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        """Set when the test wants no more of it."""
        self.failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def start(self, work: Callable[[threading.Event], None]) -> None:
        """Do the work in a thread of its own."""

        def attempt() -> None:
            try:
                work(self.stop)
            except BaseException as error:
                self.failures.append(error)

        self._threads.append(threading.Thread(target=attempt))
        self._threads[-1].start()

    def is_over(self) -> bool:
        """Return whether all of it has ended, or some has failed."""
        return bool(self.failures) or not any(thread.is_alive() for thread in self._threads)

    def end(self) -> None:
        """Have the work stop, and wait until it has."""
        self.stop.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def in_background(*works: Callable[[threading.Event], None]) -> Iterator[Background]:
    """Do each work in a thread of its own; what it is given is set at the end, which waits for all of them."""
    background = Background()
    try:
        for work in works:
            background.start(work)
        yield background
    finally:
        background.end()
    assert background.failures == []
