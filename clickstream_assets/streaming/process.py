"""Running the streams: what there is and no more, for a run of Dagster's, or always, as a process of its own."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import psycopg
from deltalake.exceptions import DeltaError
from psycopg.pq import TransactionStatus

from clickstream_assets.engine import SparkSession
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.topic import KafkaError, Offsets, Topic, TopicNotFoundError
from clickstream_assets.stores.lake import LakeError
from clickstream_assets.stores.postgres.connection import PostgresError, explained
from clickstream_assets.streaming import live_events
from clickstream_assets.streaming.alert_index import update_alert_index
from clickstream_assets.streaming.errors import LOST_TO_LIVE_EVENTS, StreamError, explain, needs_person
from clickstream_assets.streaming.lake_copies import update_copies
from clickstream_assets.streaming.notifications import deliver_pending
from clickstream_assets.streaming.owner import OwnedError, ownership
from clickstream_assets.streaming.query import WindowQuery, lake_of
from clickstream_assets.streaming.report import Reporter, metadata
from clickstream_assets.streaming.status import Status, write_status
from clickstream_assets.streaming.store import Changes, progress_of
from clickstream_assets.streaming.windows import QUERY

if TYPE_CHECKING:
    from pyspark.sql.streaming import StreamingQuery

Session = Callable[[], SparkSession]
"""Starts Spark when it is first asked: not before it is clear that nobody else runs the streams."""
Start = Callable[[dict[str, Any]], "StreamingQuery"]

A_RUN = "a run of Dagster's"
ALWAYS_ON = "clickstream stream"

TICK_SECONDS = 0.5
STATUS_SECONDS = 2.0
LOCK_CHECK_SECONDS = 5.0
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0
LIVE_WAIT_SECONDS = 5.0
LONGEST_LIVE_WAIT_SECONDS = 60.0
INDEX_SECONDS = 300.0
RETENTION_SECONDS = 3600.0
STOP_SECONDS = 20.0

_log = logging.getLogger(__name__)


class Background(ABC):
    """Does something in a thread of its own, when it is woken and at times, so that it keeps no batch waiting.

    Args:
        name: the thread's.
        seconds: it is done after this long also without being woken.
    """

    def __init__(self, name: str, seconds: float) -> None:
        self._seconds = seconds
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do it a last time, and end."""
        self._closing.set()
        self._wake.set()
        self._thread.join(STOP_SECONDS)

    def wake(self) -> None:
        """Have it done soon."""
        self._wake.set()

    def _work(self) -> None:
        rest = 0.0
        is_last = False
        while not is_last:
            self._closing.wait(rest)
            self._wake.wait(self._seconds)
            self._wake.clear()
            # Asked before, so that what came until then is done.
            is_last = self._closing.is_set()
            try:
                rest = self._do()
            except Exception:
                # Whatever it is, it must not end the thread, nor the streams.
                _log.exception("%s failed; it is tried again", self._thread.name)
                rest = FIRST_WAIT_SECONDS

    @abstractmethod
    def _do(self) -> float:
        """Do it; returns for how many seconds it must not be done again."""


class Courier(Background):
    """Delivers messages about alerts, however slow a receiver is."""

    def __init__(self, settings: Settings) -> None:
        # Also without being woken: what failed is to be tried again.
        super().__init__("alert messages", LONGEST_WAIT_SECONDS)
        self._settings = settings

    def _do(self) -> float:
        try:
            deliver_pending(self._settings)
        except PostgresError as error:
            _log.warning("messages about alerts wait: %s", error)
        return 0


class AlertIndexer(Background):
    """Keeps the alerts in Elasticsearch equal to PostgreSQL's, however slow or far away it is."""

    def __init__(self, settings: Settings) -> None:
        # Also without being woken: somebody may have deleted the index.
        super().__init__("alert index", INDEX_SECONDS)
        self._settings = settings
        self._wait = LIVE_WAIT_SECONDS

    def _do(self) -> float:
        began = time.monotonic()
        try:
            reason = update_alert_index(self._settings)
        except PostgresError as error:
            reason = str(error)
            _log.warning("the alerts in Elasticsearch wait: %s", reason)
        if reason is None:
            self._wait = LIVE_WAIT_SECONDS
            # A tenth of the time at most goes into comparing, however many alerts there are.
            return 9 * (time.monotonic() - began)
        self.wake()
        wait, self._wait = self._wait, min(self._wait * 2, LONGEST_LIVE_WAIT_SECONDS)
        return wait


class Running:
    """One query, and what is known of it.

    Args:
        name: the query's.
        settings: where its status is written.
        role: what process this is, for others to read.
        start: starts it.
        read: says per partition up to where its batches are done.
    """

    def __init__(
        self, name: str, settings: Settings, role: str, start: Start, read: Callable[[], dict[int, int]]
    ) -> None:
        self.name = name
        self.status = Status(name)
        self._settings = settings
        self._role = role
        self._start = start
        self._read = read
        self._query: StreamingQuery | None = None
        self._told_batch = -1

    def start(self, trigger: dict[str, Any]) -> None:
        """Start it."""
        self.status.read = self._read()
        # A query that is started again reports from its last batch on.
        self._query = self._start(trigger)

    @property
    def is_active(self) -> bool:
        """Whether it runs."""
        return self._query is not None and bool(self._query.isActive)

    @property
    def exception(self) -> BaseException | None:
        """What it ended with, as Spark tells it."""
        return self._query.exception() if self._query else None

    def finish(self) -> BaseException | None:
        """Run it over what there is now; returns what it ended with, if it did not come to the end."""
        self.start({"availableNow": True})
        try:
            while self.is_active:
                time.sleep(0.05)
            return self.exception
        finally:
            self.stop()

    def forget(self) -> None:
        """Let go of a query that has ended."""
        self._query = None

    def note(self, available: Mapping[int, Offsets], latency_seconds: float | None = None) -> None:
        """Write down how it does, with what the topic holds now; also while it does not run."""
        before = self.status.batch_id
        rows, late = self.status.take_in(self._query) if self._query else (0, 0)
        self.status.compare(available)
        if self.is_active and (self.status.batch_id > before or not any(self.status.lag.values())):
            self.status.error = None
        write_status(self._settings, self.status, self._role, rows, late, latency_seconds)

    def has_news(self) -> bool:
        """Whether batches have been done since this was asked last."""
        before, self._told_batch = self._told_batch, self.status.batch_id
        return self._told_batch > before

    def stop(self) -> None:
        """Stop it, after its batch if that does not take long."""
        if self._query is None:
            return
        deadline = time.monotonic() + STOP_SECONDS
        while self._query.isActive and self._query.status["isTriggerActive"] and time.monotonic() < deadline:
            time.sleep(0.01)
        self._query.stop()


@dataclass(frozen=True)
class Outcome:
    """What a run over all that there is did."""

    status: Status
    latency_seconds: float | None
    changed_windows: int
    open_alerts: int | None
    alerts_wait: str | None
    """Why Elasticsearch does not have the alerts as they are."""


def run_available(settings: Settings, session: Session) -> Outcome:
    """Bring windows and alerts up to what is in the topic now, and with them the lake's copies and the alerts' index.

    Where Elasticsearch is away, the index waits for the next run.

    Raises:
        OwnedError: another process runs the streams.
        KafkaError, PostgresError, OSError: a server is away; run it again.
        CheckpointError, StreamError: somebody has to do something first; the message says what.
    """
    Topic(settings).offsets()
    with ownership(settings, "run") as connection, Courier(settings) as courier:
        windows = WindowQuery(session(), settings, connection, lambda _: courier.wake())
        running = _windows(windows, settings, A_RUN)
        error = running.finish()
        if cause := windows.error or error:
            raise explain(cause, settings)
        windows.close_idle()
        running.note(Topic(settings).offsets(), windows.latency_seconds)
        changed = update_copies(settings, lake_of(settings))
        alerts_wait = update_alert_index(settings)
    return Outcome(running.status, windows.latency_seconds, changed, windows.open_alerts, alerts_wait)


def run_live_events(settings: Settings, session: Session) -> Status:
    """Bring the live events up to what is in the topic now.

    Raises:
        OwnedError: another process runs the streams.
        KafkaError, PostgresError, OSError: a server is away; run it again.
        CheckpointError, StreamError: somebody has to do something first; the message says what.
    """
    Topic(settings).offsets()
    with ownership(settings, "run"):
        running = _live_events(session, settings, A_RUN)
        if error := running.finish():
            raise explain(error, settings, LOST_TO_LIVE_EVENTS)
        running.note(Topic(settings).offsets())
        live_events.drop_old_days(settings)
    return running.status


def _windows(windows: WindowQuery, settings: Settings, role: str) -> Running:
    def read() -> dict[int, int]:
        progress = progress_of(settings)
        return progress.offsets if progress else {}

    return Running(QUERY, settings, role, windows.start, read)


def _live_events(session: Session, settings: Settings, role: str) -> Running:
    return Running(
        live_events.QUERY,
        settings,
        role,
        lambda trigger: live_events.start(session(), settings, trigger),
        lambda: live_events.checkpoint_of(settings).committed_offsets(),
    )


class Supervisor:
    """`clickstream stream`: keeps the streams running until it is told to stop.

    Args:
        settings: everything.
        session: gives what `source.streaming_session` returns.
        stop: set from outside to end it.
    """

    def __init__(self, settings: Settings, session: Session, stop: threading.Event) -> None:
        self._settings = settings
        self._session = session
        self._stop = stop
        self._reporter = Reporter(settings)
        self._live_wait = LIVE_WAIT_SECONDS
        self._live_start = 0.0
        self._trigger = {"processingTime": f"{settings.stream_trigger_seconds:g} seconds"}

    def run(self) -> None:
        """Run until told to stop. Servers that go away are waited for.

        Raises:
            CheckpointError, StreamError, DataLossError, PostgresError: somebody has to do something first.
        """
        wait = FIRST_WAIT_SECONDS
        while not self._stop.is_set():
            self._beat()
            began = time.monotonic()
            try:
                self._run_as_owner()
            except OwnedError as error:
                _log.info("%s; waiting for it to end", error)
                self._pause(LOCK_CHECK_SECONDS)
            except Exception as error:
                if needs_person(error):
                    raise
                if time.monotonic() - began > LONGEST_WAIT_SECONDS:
                    wait = FIRST_WAIT_SECONDS
                _log.warning("the streams stopped: %s; starting again in %.0f s", error, wait)
                self._pause(wait)
                wait = min(wait * 2, LONGEST_WAIT_SECONDS)

    def _pause(self, seconds: float) -> bool:
        """Wait, and show that this process is alive; True where it is time to stop."""
        self._beat()
        return self._stop.wait(seconds)

    def _beat(self) -> None:
        """Touch the file by whose time others see that this process is alive, also while it waits for a server."""
        path = self._settings.stream_heartbeat_path
        if path is None:
            return
        try:
            path.touch()
        except OSError as error:
            raise StreamError(
                f"STREAM_HEARTBEAT_PATH={path} cannot be written: {error.strerror}; name a file in a folder that can"
            ) from error

    def _run_as_owner(self) -> None:
        with (
            ownership(self._settings, "stream") as connection,
            Courier(self._settings) as courier,
            AlertIndexer(self._settings) as indexer,
        ):

            def on_batch(changes: Changes) -> None:
                courier.wake()
                if changes.alerts:
                    indexer.wake()

            if not self._wait_for_topic():
                return
            session = self._session()
            windows = WindowQuery(session, self._settings, connection, on_batch)
            counting = _windows(windows, self._settings, ALWAYS_ON)
            live = _live_events(lambda: session, self._settings, ALWAYS_ON)
            try:
                counting.start(self._trigger)
                # For what others left undone, and for alerts that were found anew at the start.
                indexer.wake()
                _log.info("the streams run, up to now at %s", self._settings.kafka_topic)
                self._watch(connection, windows, counting, live)
            finally:
                # The lock may only go when nothing of this process writes any more.
                counting.stop()
                live.stop()
            self._note(windows, counting, live)
            self._copy()
            self._report(windows, counting, live)

    def _wait_for_topic(self) -> bool:
        """Wait until the topic is there; False where it is time to stop."""
        is_told = False
        while not self._stop.is_set():
            try:
                Topic(self._settings).offsets()
            except TopicNotFoundError as error:
                if not is_told:
                    _log.info("%s; waiting for it", error)
                    is_told = True
                self._pause(FIRST_WAIT_SECONDS)
            else:
                return True
        return False

    def _watch(
        self, connection: psycopg.Connection, windows: WindowQuery, counting: Running, live: Running
    ) -> None:
        now = time.monotonic()
        next_status = next_lock_check = next_retention = now
        next_copy = now + self._settings.stream_lake_seconds
        next_report = now + self._settings.stream_report_seconds
        while not self._pause(TICK_SECONDS):
            now = time.monotonic()
            if not counting.is_active:
                error = windows.error or counting.exception
                raise explain(error, self._settings) if error else _ended(counting)
            if not live.is_active:
                self._keep_live(live, now)
            if now >= next_lock_check:
                self._check_lock(connection)
                next_lock_check = now + LOCK_CHECK_SECONDS
            if now >= next_status:
                windows.close_idle()
                self._note(windows, counting, live)
                next_status = now + STATUS_SECONDS
            if now >= next_copy:
                self._copy()
                next_copy = time.monotonic() + self._settings.stream_lake_seconds
            if now >= next_report:
                self._report(windows, counting, live)
                next_report = time.monotonic() + self._settings.stream_report_seconds
            if now >= next_retention:
                live_events.drop_old_days(self._settings)
                next_retention = now + RETENTION_SECONDS

    def _keep_live(self, live: Running, now: float) -> None:
        """Start the live events, or say why they ended and wait: whatever it is, it does not stop the windows.

        The pause grows while no batch succeeds. The reason is in the status until one does.
        """
        fault: BaseException | None = live.exception
        live.forget()
        if fault is None:
            if now < self._live_start:
                return
            try:
                live.start(self._trigger)
            except Exception as error:
                fault = error
        if fault is None:
            return
        if live.status.error is None:
            self._live_wait = LIVE_WAIT_SECONDS
        reason = explain(fault, self._settings, LOST_TO_LIVE_EVENTS)
        live.status.error = str(reason)
        _log.warning("the live events stopped: %s; starting again in %.0f s", reason, self._live_wait)
        self._live_start = now + self._live_wait
        self._live_wait = min(self._live_wait * 2, LONGEST_LIVE_WAIT_SECONDS)

    def _copy(self) -> None:
        """Bring the lake's copies up to date; a lake that cannot be written has them wait, and nothing else."""
        try:
            update_copies(self._settings, lake_of(self._settings))
        except (LakeError, DeltaError, OSError) as error:
            _log.warning("the lake's copies of windows and alerts wait: %s", error)

    def _check_lock(self, connection: psycopg.Connection) -> None:
        """See that the connection, and the lock with it, is still there, also while there is nothing to write."""
        if connection.info.transaction_status is TransactionStatus.IDLE:
            with explained(self._settings):
                connection.execute("SELECT")

    def _note(self, windows: WindowQuery, counting: Running, live: Running) -> None:
        try:
            available = Topic(self._settings).offsets()
        except KafkaError as error:
            # How far behind they are is not known: the status stays as old as it is, with its time.
            _log.warning("the lag is not known: %s", error)
            return
        counting.note(available, windows.latency_seconds)
        live.note(available)

    def _report(self, windows: WindowQuery, counting: Running, live: Running) -> None:
        """Tell Dagster of queries that have done batches since: one that stands still materializes nothing."""
        if counting.has_news():
            values = metadata(counting.status, windows.latency_seconds, windows.open_alerts)
            self._reporter.report([QUERY, "flash_sale_alerts"], values)
        if live.has_news():
            self._reporter.report([live.name], metadata(live.status))


def _ended(running: Running) -> Exception:
    return OSError(f"the query {running.name} was stopped from outside")
