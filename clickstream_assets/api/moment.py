"""Sources of answers in the moment: visitors' last events, and the models of the next product and of sessions.

Each worker process reads the end of Kafka's topics itself, in a thread, without a consumer group: what a visitor does
counts within the second, whether or not Dagster and the streams run. Another thread looks every few seconds which
models PostgreSQL serves, reads all of a new one, and only then puts it in the place of the one before. Without Kafka,
or before a model is served, what was made before is the answer, and it says so.
"""

from __future__ import annotations

import logging
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Lock, Thread
from time import time
from typing import Any

from flask import current_app

from clickstream_assets.api import queries
from clickstream_assets.api.database import Database
from clickstream_assets.api.metrics import note_recent_read
from clickstream_assets.api.pseudonyms import persons_as_sent
from clickstream_assets.api.recent import Recent
from clickstream_assets.catalogue.units import MINUTE, SECOND
from clickstream_assets.predictions.sessions import SessionModel
from clickstream_assets.recommender.next_product import NextProduct
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.consumer import TopicError
from clickstream_assets.stores.kafka.partition import TopicPartition
from clickstream_assets.stores.kafka.tail import Tail
from clickstream_assets.stores.postgres.connection import PostgresError

EXTENSION = "clickstream_moment"

_PAUSE_SECONDS = 1.0
_MODEL_SECONDS = 5.0
# From here on an answer says that events are missing.
_LATE_SECONDS = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedModel:
    """A model of the next product, and its version."""

    version: str
    ranks: NextProduct


@dataclass(frozen=True)
class ServedSessionModel:
    """A model that says whether a session buys, and its version."""

    version: str
    model: SessionModel


class Moment:
    """Visitors' last events and the served models, kept up to date by threads once it is opened."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._stopping = Event()
        self._lock = Lock()
        self._threads: list[Thread] = []
        self._positions: dict[TopicPartition, int] = {}
        self._caught_up_at: float | None = None
        self._error: str | None = None
        self.recent = Recent(settings)
        self.model: ServedModel | None = None
        self.session_model: ServedSessionModel | None = None
        self.session_gap = settings.session_gap_minutes * MINUTE
        """Inactivity that ends a session, in microseconds."""
        self.lag = 0
        """Records that were still to be read, when it was last asked for."""

    def open(self) -> None:
        """Begin to read, in the process that answers."""
        with self._lock:
            if self._threads or not self._settings.recent_events:
                return
            self._stopping.clear()
            self._threads = [
                Thread(target=self._repeat, args=(work, pause), name=name, daemon=True)
                for name, work, pause in (
                    ("recent events", self._follow, _PAUSE_SECONDS),
                    ("served models", self._look_at_postgres, _MODEL_SECONDS),
                )
            ]
            for thread in self._threads:
                thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._stopping.set()
        with self._lock:
            for thread in self._threads:
                thread.join(_PAUSE_SECONDS)
            self._threads = []

    @property
    def is_open(self) -> bool:
        """True if it reads."""
        return bool(self._threads)

    @property
    def behind_seconds(self) -> float | None:
        """Seconds since it had read all that Kafka had; None if it never has."""
        return None if self._caught_up_at is None else time() - self._caught_up_at

    @property
    def problem(self) -> str | None:
        """The reason why the last events do not count, in words without host names; None if they count."""
        if not self.is_open:
            return None
        behind = self.behind_seconds
        if behind is not None and behind < _LATE_SECONDS:
            return None
        if self._error:
            return self._error
        return "the last events are still being read"

    def renew_models(self) -> None:
        """Look which models are served, and read those that are others.

        Raises:
            PostgresError: the database cannot be reached.
        """
        self._renew_session_model()
        self._renew_model()

    def leave_out_erased(self) -> None:
        """Forget who has asked to be erased.

        Raises:
            PostgresError: the database cannot be reached.
        """
        with self._database.snapshot() as connection:
            asked = queries.erased_lately(connection, self._settings.recent_minutes)
            sent = persons_as_sent(connection, [person for person, _ in asked], self._settings)
        self.recent.erase({sent[person]: int(when.timestamp() * SECOND) for person, when in asked})

    def _renew_session_model(self) -> None:
        with self._database.snapshot() as connection:
            version = queries.session_model_version(connection)
            if version == (self.session_model.version if self.session_model else None):
                return
            content = queries.session_model(connection)
        if version is None or content is None:
            self.session_model = None
            return
        self.session_model = ServedSessionModel(version, SessionModel.from_json(content))
        _log.info("serves the purchases of sessions by model %s", version)

    def _renew_model(self) -> None:
        with self._database.snapshot() as connection:
            version = queries.served_model(connection, "next_product")
            if version == (self.model.version if self.model else None):
                return
            parts = queries.model_parts(connection, version) if version else []
        if not version:
            self.model = None
            return
        content = b"".join(map(b64decode, parts))
        # Not until all of it is there.
        self.model = ServedModel(version, NextProduct.from_bytes(content).prepared())
        _log.info("serves the next product by model %s", version)

    def _look_at_postgres(self) -> None:
        try:
            self.leave_out_erased()
            self.renew_models()
        except PostgresError as error:
            # Requests say so.
            _log.info("the served models are not known: %s", error.problem)

    def _follow(self) -> None:
        since = time() - self._settings.recent_minutes * 60
        try:
            for records, lag in Tail(self._settings).follow(
                self._positions, since, self._settings.recent_events
            ):
                self.recent.take(records)
                self.lag, self._error = lag, None
                if not lag:
                    self._caught_up_at = time()
                    note_recent_read(self._caught_up_at)
                if self._stopping.is_set():
                    return
        except TopicError as error:
            if self._error is None:
                _log.warning("the last events do not count: %s", error)
            self._error = "Kafka cannot be reached"

    def _repeat(self, work: Callable[[], Any], pause: float) -> None:
        while not self._stopping.is_set():
            try:
                work()
            except Exception:
                # A fault of a client's own, or ours: the answers are of what was there before.
                _log.exception("cannot keep up with what recommendations are made from")
            self._stopping.wait(pause)


def moment() -> Moment:
    """Return the running application's."""
    found = current_app.extensions[EXTENSION]
    assert isinstance(found, Moment)
    return found
