"""The queries of the streams, run over what the topic holds now, or always, as a process of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import TransactionStatus

from clickstream_assets.engine import SparkSession
from clickstream_assets.errors import ClickstreamError, is_retryable
from clickstream_assets.settings import Settings
from clickstream_assets.stores.elasticsearch import ElasticsearchError
from clickstream_assets.stores.kafka.consumer import TopicError, TopicNotFoundError
from clickstream_assets.stores.kafka.partition import TopicPartition
from clickstream_assets.stores.kafka.topic import Offsets, Topics
from clickstream_assets.stores.lake import LakeError
from clickstream_assets.stores.postgres.connection import PostgresError, explained
from clickstream_assets.streaming import live_events, waits
from clickstream_assets.streaming.alert_index import AlertIndex, update_alert_index
from clickstream_assets.streaming.background import STOP_SECONDS, Background
from clickstream_assets.streaming.errors import (
    LOST_TO_LIVE_EVENTS,
    ServerAwayError,
    StreamError,
    query_error,
)
from clickstream_assets.streaming.lake_copies import update_copies
from clickstream_assets.streaming.outbox import deliver_pending
from clickstream_assets.streaming.owner import OwnedError, Presence, always_on, ownership
from clickstream_assets.streaming.progress import progress_of
from clickstream_assets.streaming.query import WindowQuery, lake_of
from clickstream_assets.streaming.servers import answering_soon, ask_servers
from clickstream_assets.streaming.status import Status, last_owner, metadata, write_statuses
from clickstream_assets.streaming.store import Changes
from clickstream_assets.streaming.windows import QUERY

if TYPE_CHECKING:
    from pyspark.sql.streaming import StreamingQuery

StartSession = Callable[[], SparkSession]
"""Starts Spark when it is first called: not before it is clear that nobody else runs the streams."""
Start = Callable[[dict[str, Any]], "StreamingQuery"]
Report = Callable[[Iterable[str], Mapping[str, Any]], None]
"""Passes on that assets were brought up to date, by their names, and metadata about it."""

A_RUN = "a run of Dagster's"
ALWAYS_ON = "clickstream stream"

TICK_SECONDS = 0.5
IDLE_CHECK_SECONDS = 2.0
STATUS_SECONDS = 5.0
# Asking two servers that hang and writing to a third takes 15 s; what is said to fail within 30 s is overdue before.
STATUS_DUE_SECONDS = 20.0
LOCK_CHECK_SECONDS = 5.0
TURN_SECONDS = 2.0
# An always-on process that has lost the database is back so soon after it is, by `waits.RESTART` and the time that a
# connection may take.
RETURN_SECONDS = 15.0
DELIVERY_SECONDS = 30.0
INDEX_SECONDS = 300.0
TOPIC_CHECK_SECONDS = 10.0
LIVE_CHECK_SECONDS = 60.0
RETENTION_SECONDS = 3600.0

_log = logging.getLogger(__name__)


def _delivery(settings: Settings) -> Background:
    """Deliver notifications, however slow a receiver is; what failed before is due again at some time."""

    def deliver() -> float:
        deliver_pending(settings)
        return 0

    return Background("notifications", deliver, DELIVERY_SECONDS)


def _indexing(settings: Settings) -> Background:
    """Keep the alerts in Elasticsearch equal to PostgreSQL's, also when somebody deletes the index."""

    def update() -> float:
        began = time.monotonic()
        with closing(AlertIndex(settings)) as index:
            index.update()
        # A tenth of the time at most goes into comparing, however many alerts there are.
        return 9 * (time.monotonic() - began)

    return Background("the alerts in Elasticsearch", update, INDEX_SECONDS)


class ManagedQuery:
    """A streaming query and its status, whether it runs or not.

    Args:
        status: the query's, kept up to date here.
        settings: where others show that they run it.
        start: starts it.
        read: returns, per partition, the offset up to which its batches are done.
        latency: returns the seconds from the newest event's time to where it is written, if they are known.
    """

    def __init__(
        self,
        status: Status,
        settings: Settings,
        start: Start,
        read: Callable[[], dict[TopicPartition, int]],
        latency: Callable[[], float | None] = lambda: None,
    ) -> None:
        self.name = status.query
        self.status = status
        self._settings = settings
        self._start = start
        self._read = read
        self._latency = latency
        self._query: StreamingQuery | None = None
        self._reported_batch = -1

    def start(self, trigger: dict[str, Any]) -> None:
        """Start it."""
        query = self._start(trigger)
        try:
            # A query that is started again reports from its last batch on, unless it begins anew.
            self.status.read = self._read()
            if not self.status.read:
                self.status.batch_id = self._reported_batch = -1
        finally:
            # Last: another thread takes in what it reports.
            self._query = query

    @property
    def is_active(self) -> bool:
        """True while it runs."""
        return self._query is not None and bool(self._query.isActive)

    @property
    def exception(self) -> BaseException | None:
        """Spark's error that it ended with."""
        return self._query.exception() if self._query else None

    def finish(self) -> BaseException | None:
        """Run it over what there is now; return Spark's error, if it did not come to the end.

        Raises:
            OwnedError: an always-on process has come; what was done until then is done.
        """
        give_way(self._settings)
        looked = time.monotonic()
        try:
            self.start({"availableNow": True})
            while self.is_active:
                if time.monotonic() - looked > TURN_SECONDS:
                    give_way(self._settings)
                    looked = time.monotonic()
                time.sleep(0.05)
            return self.exception
        finally:
            self.stop()

    def forget(self) -> None:
        """Let go of a query that has ended."""
        self._query = None

    def observe(self, available: Mapping[TopicPartition, Offsets] | None, fault: str | None) -> None:
        """Bring its status up to date, also while it does not run.

        Args:
            available: what the topics hold now; None where that is not known.
            fault: why a server that it needs cannot be used, if so.
        """
        status, query, before = self.status, self._query, self.status.batch_id
        if query:
            status.take_in(query)
        status.latency_seconds = self._latency()
        if available is not None:
            status.update_lag(available)
        if fault:
            status.fault = fault
        elif self.is_active and (status.batch_id > before or not any(status.lag.values())):
            status.error = status.fault = None

    def has_news(self) -> bool:
        """Return whether batches have been done since the last call."""
        before, self._reported_batch = self._reported_batch, self.status.batch_id
        return self._reported_batch > before

    def stop(self) -> None:
        """Stop it, after its batch if that does not take long."""
        if self._query is None:
            return
        deadline = time.monotonic() + STOP_SECONDS
        query, done = self._query, _last_batch(self._query)
        while query.isActive and query.status["isTriggerActive"] and time.monotonic() < deadline:
            if _last_batch(query) != done:
                # Another batch has begun, of those that a trigger can have.
                break
            time.sleep(0.01)
        self._query.stop()


def _last_batch(query: StreamingQuery) -> int | None:
    progress = query.lastProgress
    return progress.batchId if progress else None


def give_way(settings: Settings, patience: float = 0) -> None:
    """Leave the streams to an always-on process that is there, or that comes within so many seconds.

    Raises:
        OwnedError: there is one; the message says which.
        PostgresError: the database cannot be reached.
    """
    deadline = time.monotonic() + patience
    while True:
        if process := always_on(settings):
            raise OwnedError(f"the streams are left to {process}, which has them or waits for its turn")
        if time.monotonic() >= deadline:
            return
        time.sleep(TICK_SECONDS)


def _wait_for_always_on(settings: Settings) -> None:
    """Give way; the process that had the streams last may have lost the database, and be on its way back."""
    give_way(settings, RETURN_SECONDS if last_owner(settings) == ALWAYS_ON else 0)


@dataclass(frozen=True)
class Outcome:
    """Result of a run over what the topic held.

    Attributes:
        status: of the windows' query.
        changed_windows: rows of windows that are new or changed in the lake.
        open_alerts: after the last batch; None without one.
        alerts_wait: why Elasticsearch's copy of the alerts is out of date; None where it is not.
    """

    status: Status
    changed_windows: int
    open_alerts: int | None
    alerts_wait: str | None


def run_available(settings: Settings, start_session: StartSession) -> Outcome:
    """Bring windows and alerts up to what is in the topic now, with the lake's copies and the alerts' index.

    Where Elasticsearch is away, the index waits for the next run.

    Raises:
        OwnedError: another process runs the streams, or is to.
        ClickstreamError, OSError: as a server or the checkpoint says.
    """
    Topics(settings).offsets()
    _wait_for_always_on(settings)
    status = Status(QUERY)
    with (
        ownership(settings, "run") as connection,
        _failures_noted(settings, A_RUN, status),
        _delivery(settings) as delivery,
    ):
        windows = WindowQuery(start_session(), settings, connection, lambda _: delivery.wake())
        counting = _counting(windows, settings, status)
        error = counting.finish()
        if cause := windows.error or error:
            raise query_error(cause, settings)
        windows.close_idle()
        _note(settings, A_RUN, [counting])
        changed = update_copies(settings, lake_of(settings))
        alerts_wait = update_alert_index(settings)
    return Outcome(status, changed, windows.open_alerts, alerts_wait)


def run_live_events(settings: Settings, start_session: StartSession) -> Status:
    """Bring the live events up to what is in the topic now.

    Raises:
        OwnedError: another process runs the streams, or is to.
        ClickstreamError, OSError: as a server or the checkpoint says.
    """
    Topics(settings).offsets()
    _wait_for_always_on(settings)
    status = Status(live_events.QUERY)
    with ownership(settings, "run"), _failures_noted(settings, A_RUN, status):
        live = _live_events(start_session, settings, status)
        if error := live.finish():
            raise query_error(error, settings, LOST_TO_LIVE_EVENTS)
        _note(settings, A_RUN, [live])
        live_events.drop_old_days(settings)
    return status


def _counting(windows: WindowQuery, settings: Settings, status: Status) -> ManagedQuery:
    def read() -> dict[TopicPartition, int]:
        progress = progress_of(settings)
        return progress.offsets if progress else {}

    return ManagedQuery(status, settings, windows.start, read, lambda: windows.latency_seconds)


def _live_events(start_session: StartSession, settings: Settings, status: Status) -> ManagedQuery:
    return ManagedQuery(
        status,
        settings,
        lambda trigger: live_events.start(start_session(), settings, trigger),
        lambda: live_events.checkpoint_of(settings).committed_offsets(),
    )


def _note(
    settings: Settings, role: str, queries: Iterable[ManagedQuery], due_seconds: float | None = None
) -> None:
    """Write down the status of queries, with what their servers say; `due_seconds` as `write_statuses` has it.

    Raises:
        PostgresError: the database cannot be reached.
    """
    servers = ask_servers(settings)
    for query in queries:
        needs_elasticsearch = query.name == live_events.QUERY
        fault = servers.kafka_fault or (servers.elasticsearch_fault if needs_elasticsearch else None)
        query.observe(servers.available, fault)
    write_statuses(settings, role, [query.status for query in queries], due_seconds)


@contextmanager
def _failures_noted(settings: Settings, role: str, *statuses: Status) -> Iterator[None]:
    """Write down why queries do not run any more, while this process owns them still."""
    try:
        yield
    except OwnedError:
        # Another process goes on, and reports.
        raise
    except Exception as error:
        for status in statuses:
            # Of what is no error of ours, the log has the text, which can be Java's whole stack.
            status.error = str(error) if isinstance(error, ClickstreamError) else type(error).__name__
        # Without PostgreSQL nobody can read it either, and who asks for it says so.
        with suppress(PostgresError):
            write_statuses(settings, role, statuses)
        raise


class Supervisor:
    """`clickstream stream`: keeps the streams running until it is to stop.

    Args:
        settings: everything.
        start_session: gives what `source.streaming_session` returns.
        stop: set from outside to end it.
        report: is called for queries that have done batches, every STREAM_REPORT_SECONDS.
    """

    def __init__(
        self,
        settings: Settings,
        start_session: StartSession,
        stop: threading.Event,
        report: Report = lambda *_: None,
    ) -> None:
        self._settings = settings
        self._start_session = start_session
        self._stop = stop
        self._report = report
        self._statuses = [Status(QUERY), Status(live_events.QUERY)]
        self._live_failures = 0
        self._live_start = 0.0
        self._trigger = {"processingTime": f"{settings.stream_trigger_seconds:g} seconds"}

    def run(self) -> None:
        """Run until `stop` is set. Servers that go away, another owner and a missing topic are waited for.

        Raises:
            ClickstreamError: one that is not retryable.
        """
        with closing(Presence(self._settings, "stream")) as presence:
            self._run(presence)

    def _run(self, presence: Presence) -> None:
        failures = 0
        waiting_for = ""
        while not self._stop.is_set():
            self._beat()
            began = time.monotonic()
            try:
                presence.show()
                self._run_as_owner()
            except (OwnedError, TopicNotFoundError) as error:
                if str(error) != waiting_for:
                    _log.info("%s; waiting for it", error)
                waiting_for = str(error)
                self._pause(TURN_SECONDS)
            except Exception as caught:
                reason = query_error(caught, self._settings) if isinstance(caught, OSError) else caught
                if not is_retryable(reason):
                    raise
                failures = 1 if time.monotonic() - began > waits.RESTART.max else failures + 1
                wait = waits.wait_after(failures, waits.RESTART)
                _log.warning("the streams stopped: %s; starting again in %.0f s", reason, wait)
                self._pause(wait)

    def _pause(self, seconds: float) -> bool:
        """Wait, and show that this process is alive; return whether it is time to stop."""
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
        with ownership(self._settings, "stream") as connection:
            # A query that is started again counts its batches anew, and has failed until one succeeds.
            self._statuses = [status.anew() for status in self._statuses]
            with _failures_noted(self._settings, ALWAYS_ON, *self._statuses):
                Topics(self._settings).offsets()
                with _delivery(self._settings) as delivery, _indexing(self._settings) as indexing:
                    self._run_queries(connection, delivery, indexing)

    def _run_queries(
        self, connection: psycopg.Connection, delivery: Background, indexing: Background
    ) -> None:
        def on_batch(changes: Changes) -> None:
            delivery.wake()
            if changes.alerts:
                indexing.wake()

        session = self._start_session()
        windows = WindowQuery(session, self._settings, connection, on_batch)
        windows_status, live_status = self._statuses
        counting = _counting(windows, self._settings, windows_status)
        live = _live_events(lambda: session, self._settings, live_status)
        try:
            counting.start(self._trigger)
            # For what others left undone, and for alerts that were found anew at the start.
            indexing.wake()
            _log.info("the streams run, up to now at %s", self._settings.kafka_topic)
            with self._noting(counting, live) as noting:
                noting.wake()
                self._watch(connection, windows, counting, live)
        finally:
            # The lock may only go when nothing of this process writes any more.
            counting.stop()
            live.stop()
        _note(self._settings, ALWAYS_ON, [counting, live])
        self._copy()
        self._report_news(windows, counting, live)

    def _noting(self, *queries: ManagedQuery) -> Background:
        """Keep the status up to date in a thread of its own: whatever the queries wait for, it says that they do."""

        def note() -> float:
            _note(self._settings, ALWAYS_ON, queries, STATUS_DUE_SECONDS)
            return 0

        return Background("reports of the streams' status", note, STATUS_SECONDS)

    def _watch(
        self, connection: psycopg.Connection, windows: WindowQuery, counting: ManagedQuery, live: ManagedQuery
    ) -> None:
        chores: list[tuple[float, Callable[[], None]]] = [
            (LOCK_CHECK_SECONDS, lambda: self._check_lock(connection)),
            (IDLE_CHECK_SECONDS, windows.close_idle),
            (self._settings.stream_lake_seconds, self._copy),
            (self._settings.stream_report_seconds, lambda: self._report_news(windows, counting, live)),
            (TOPIC_CHECK_SECONDS, lambda: self._check_topics(windows)),
            (LIVE_CHECK_SECONDS, lambda: self._check_live(live)),
            (RETENTION_SECONDS, lambda: live_events.drop_old_days(self._settings)),
        ]
        due = [0.0] * len(chores)
        while not self._pause(TICK_SECONDS):
            if not counting.is_active:
                error = windows.error or counting.exception
                if error is None:
                    raise ServerAwayError(f"the query {counting.name} was stopped from outside")
                raise query_error(error, self._settings)
            if not live.is_active:
                self._keep_live(live)
            for number, (seconds, do) in enumerate(chores):
                if time.monotonic() >= due[number]:
                    do()
                    due[number] = time.monotonic() + seconds

    def _keep_live(self, live: ManagedQuery) -> None:
        """Start the live events, or note why they ended and wait: whatever it is, it does not stop the windows.

        The wait grows while no batch succeeds. The reason is in the status until one does.
        """
        fault = live.exception
        live.forget()
        if fault is None and time.monotonic() >= self._live_start:
            try:
                live.start(self._trigger)
            except Exception as error:
                fault = error
        if fault is None:
            return
        self._live_failures = self._live_failures + 1 if live.status.error else 1
        wait = waits.wait_after(self._live_failures, waits.SIDE_WORK)
        reason = query_error(fault, self._settings, LOST_TO_LIVE_EVENTS)
        live.status.error = str(reason)
        _log.warning("the live events stopped: %s; starting again in %.0f s", reason, wait)
        self._live_start = time.monotonic() + wait

    def _check_topics(self, windows: WindowQuery) -> None:
        """See that no topic was deleted and made anew, in whose middle Spark would go on; Spark waits for Kafka."""
        try:
            ids = Topics(answering_soon(self._settings)).ids()
        except TopicError:
            return
        windows.refuse_topics_made_anew(ids)

    def _check_live(self, live: ManagedQuery) -> None:
        """Have the live events started again if Elasticsearch no longer has all that they wrote."""
        with suppress(ElasticsearchError):
            if live.is_active and live_events.lost_since(self._settings) is not None:
                live.stop()

    def _copy(self) -> None:
        """Bring the lake's copies up to date; a lake that cannot be written has them wait, and nothing else."""
        try:
            update_copies(self._settings, lake_of(self._settings))
        except LakeError as error:
            _log.warning("the lake's copies of windows and alerts wait: %s", error)

    def _check_lock(self, connection: psycopg.Connection) -> None:
        """See that the connection, and the lock with it, is still there, also while there is nothing to write."""
        if connection.info.transaction_status is TransactionStatus.IDLE:
            with explained(self._settings):
                connection.execute("SELECT")

    def _report_news(self, windows: WindowQuery, counting: ManagedQuery, live: ManagedQuery) -> None:
        """Report queries that have done batches since: one that stands still materializes nothing."""
        if counting.has_news():
            values = metadata(counting.status, windows.open_alerts)
            self._report([QUERY, "flash_sale_alerts"], values)
        if live.has_news():
            self._report([live.name], metadata(live.status))
