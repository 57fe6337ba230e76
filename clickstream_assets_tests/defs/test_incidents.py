"""People are told what is wrong: real runs, checks and evaluations, a real mail server and a real receiver."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from standardwebhooks import Webhook
from typer.testing import CliRunner, Result

from clickstream_assets.commands.app import app
from clickstream_assets.defs.incidents.delivery import addresses, deliver
from clickstream_assets.defs.incidents.keeping import keep, kept
from clickstream_assets.defs.incidents.messages import subject
from clickstream_assets.defs.incidents.record import Incident, Message, Problem, Record
from clickstream_assets.defs.incidents.sensors import incidents
from clickstream_assets.defs.steps import step
from clickstream_assets.errors import ClickstreamError
from clickstream_assets.settings import Settings, load_settings
from clickstream_assets.silences import Kind
from clickstream_assets.stores.kafka.partition import to_json
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets.streaming.owner import Presence
from clickstream_assets_tests.dagster_private import (
    FreshnessState,
    FreshnessStateChange,
    InstanceRef,
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    RemoteInstigatorOrigin,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickData,
    TickStatus,
    freeze_time,
    serializable_error_info_from_exc_info,
)
from clickstream_assets_tests.databases import environment, free_port, fresh_database
from clickstream_assets_tests.defs.history import REPOSITORY, materialize, past_run, start_run, tick
from clickstream_assets_tests.deploy.containers import wait_until
from clickstream_assets_tests.mailbox import Mailbox, mailbox
from clickstream_assets_tests.topics import first, new_topic, send
from clickstream_assets_tests.web import Answer, WebServer, web_server

SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
WRONG: dict[str, Exception | dg.AssetCheckResult] = {}
"""Failure that `sessions` raises, or its check returns, while it is there."""
AWAY = ClickstreamError("KAFKA_BOOTSTRAP_SERVERS=<a&b>:9092 cannot be reached; start it")


def make() -> None:
    if isinstance(error := WRONG.get("sessions"), Exception):
        raise error


HOURLY = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=1))


@dg.asset(deps=["clickstream_events"], freshness_policy=HOURLY)
def raw_events() -> None:
    """Records."""


@dg.asset(deps=[raw_events])
def events() -> None:
    """Events."""


@dg.asset(deps=[events], freshness_policy=HOURLY)
def sessions() -> None:
    """Visits."""
    step(make)()


@dg.asset_check(asset=sessions)
def are_whole() -> dg.AssetCheckResult:
    """No session is cut."""
    found = WRONG.get("are_whole", dg.AssetCheckResult(passed=True))
    assert isinstance(found, dg.AssetCheckResult)
    return found


@dg.sensor(job_name="refresh")
def dirty_days() -> dg.SkipReason:
    return dg.SkipReason("none")


@dg.schedule(job_name="nightly", cron_schedule="0 2 * * *")
def every_night() -> dg.SkipReason:
    return dg.SkipReason("none")


DEFINITIONS = dg.Definitions(
    assets=[dg.AssetSpec("clickstream_events"), raw_events, events, sessions],
    asset_checks=[are_whole],
    jobs=[dg.define_asset_job(name, selection=[sessions]) for name in ("nightly", "refresh", "stream")],
    sensors=[dirty_days, incidents],
    schedules=[every_night],
)


# One file for the events of all runs: a file for each, as is Dagster's default, takes most of a test's time.
DAGSTER_YAML = """
telemetry: {enabled: false}
event_log_storage:
  module: dagster._core.storage.event_log
  class: ConsolidatedSqliteEventLogStorage
  config: {base_dir: HOME}
"""


class Shop:
    """A Dagster instance of its own, and those who are told of its incidents."""

    def __init__(self, folder: Path, mails: Mailbox, hooks: WebServer) -> None:
        self.folder = folder
        self.mails = mails
        self.hooks = hooks
        self.open()

    def open(self) -> None:
        """Open the instance, as a process does that starts anew."""
        self.instance = dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(self.folder)))

    def run(self, job: str, **wrong: Exception | dg.AssetCheckResult) -> str:
        """Run a job for real, while this is wrong; return the run's id."""
        WRONG.clear()
        WRONG.update(wrong)
        found = DEFINITIONS.resolve_job_def(job)
        return found.execute_in_process(instance=self.instance, raise_on_error=False).run_id

    def look(self) -> str:
        """Evaluate the sensor; return what it says."""
        return str(tick(incidents, self.instance, DEFINITIONS).skip_message)

    def subjects(self) -> list[str]:
        return [str(message["Subject"]) for _, _, message in self.mails.mails]

    def posted(self) -> list[dict[str, Any]]:
        return [json.loads(request.body) for request in self.hooks.requests]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an instance that has its tables and nothing in them."""
    folder = tmp_path_factory.mktemp("dagster")
    (folder / "dagster.yaml").write_text(DAGSTER_YAML.replace("HOME", str(folder)))
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(folder))) as instance:
        instance.all_instigator_state()
        keep(instance, Record())
    return folder


@pytest.fixture
def answers() -> list[int]:
    """Answers of the receiver, one after the other; when there are no more, it takes what comes."""
    return []


@pytest.fixture
def shop(home: Path, answers: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Shop]:
    def answer(_: object) -> Answer:
        return Answer(answers.pop(0) if answers else 200)

    with mailbox() as mails, web_server(answer) as hooks:
        variables = {
            "SMTP_HOST": mails.host,
            "SMTP_PORT": str(mails.port),
            "SMTP_TLS": "none",
            "INCIDENT_FROM": "pipeline@example.com",
            "INCIDENT_TO": "ann@example.com",
            "INCIDENT_WEBHOOK_URLS": f"{hooks.url}/services/t0ken",
            "INCIDENT_WEBHOOK_SECRET": SECRET,
            "INCIDENT_AFTER_SECONDS": "0",
            "INCIDENT_PAUSE_SECONDS": "0",
            "INCIDENT_SILENCES": "stream_down",
            "INCIDENT_TIME_ZONE": "Europe/Berlin",
            "DAGSTER_URL": "https://dagster.example.com/",
            # Nobody is there.
            "POSTGRES_HOST": "127.0.0.1",
            "POSTGRES_PORT": str(free_port()),
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        folder = tmp_path / "dagster"
        shutil.copytree(home, folder)
        (folder / "dagster.yaml").write_text(DAGSTER_YAML.replace("HOME", str(folder)))
        yield Shop(folder, mails, hooks)
    WRONG.clear()


def test_a_failed_run_is_told_once_with_its_sentence_and_its_page_and_so_is_its_end(shop: Shop):
    run_id = shop.run("nightly", sessions=AWAY)
    assert "run_failed:nightly" in shop.look()
    shop.look()
    ((sender, recipient, mail),) = shop.mails.mails
    assert (sender, recipient) == ("pipeline@example.com", "ann@example.com")
    assert mail["Subject"] == "[clickstream] job nightly failed"
    lines = shop.mails.text(0).splitlines()
    assert lines[0].startswith("ERROR: job nightly failed, since 20")
    assert lines[0].endswith(" CET") or lines[0].endswith(" CEST")
    assert lines[1:5] == [
        "sessions: KAFKA_BOOTSTRAP_SERVERS=<a&b>:9092 cannot be reached; start it",
        "It is not run again before its next time, unless you do it from its page.",
        f"https://dagster.example.com/runs/{run_id}",
        "Name: run_failed:nightly",
    ]
    assert "INCIDENT_SILENCES, such as run_failed:nightly" in lines[-1]

    (request,) = shop.hooks.requests
    posted = Webhook(SECRET).verify(request.body, dict(request.headers))
    assert posted["id"] == request.headers["webhook-id"]
    # Slack would take <…> for a mention or a link.
    assert "KAFKA_BOOTSTRAP_SERVERS=&lt;a&amp;b&gt;:9092 cannot be reached" in posted["text"]
    (entry,) = posted["opened"]
    assert (entry["kind"], entry["subject"], entry["severity"]) == ("run_failed", "nightly", "error")
    assert entry["url"] == f"https://dagster.example.com/runs/{run_id}"
    assert posted["resolved"] == []

    shop.run("nightly")
    assert "run_failed" not in shop.look()
    shop.look()
    assert shop.subjects()[1:] == ["[clickstream] resolved: job nightly failed"]
    assert [len(one["resolved"]) for one in shop.posted()] == [0, 1]
    assert shop.posted()[1]["resolved"][0]["id"] == entry["id"]


def test_a_run_that_is_run_again_and_then_succeeds_is_no_incident(shop: Shop):
    shop.run("refresh", sessions=AWAY)
    shop.look()
    start_run(shop.instance, "refresh")
    shop.look()
    shop.run("refresh")
    shop.look()
    assert shop.mails.mails == []


@pytest.mark.slow
def test_a_run_that_fails_again_is_one_however_often_it_is_tried(shop: Shop):
    for _ in range(3):
        shop.run("refresh", sessions=AWAY)
        shop.look()
    assert shop.subjects() == ["[clickstream] job refresh failed 2 times in a row"]
    assert "It is run again by itself, at most 10 minutes apart." in shop.mails.text(0)
    start_run(shop.instance, "refresh")
    shop.look()
    assert len(shop.mails.mails) == 1


def test_a_run_that_nobody_runs_again_is_told_after_a_minute(shop: Shop):
    past_run(shop.instance, "refresh", DagsterRunStatus.FAILURE, seconds_ago=59)
    shop.look()
    assert shop.mails.mails == []
    past_run(shop.instance, "refresh", DagsterRunStatus.SUCCESS)
    past_run(shop.instance, "refresh", DagsterRunStatus.FAILURE, seconds_ago=61)
    shop.look()
    assert shop.subjects() == ["[clickstream] job refresh failed"]


def test_a_run_that_dagster_runs_again_has_not_failed_yet(shop: Shop):
    run = start_run(shop.instance, "nightly", tags={"dagster/will_retry": "true"})
    shop.instance.report_run_failed(run)
    shop.look()
    assert shop.mails.mails == []
    shop.instance.report_run_failed(start_run(shop.instance, "nightly"), "its process is gone")
    shop.look()
    assert "\nits process is gone\n" in shop.mails.text(0)


def test_a_run_that_a_person_started_is_told_and_its_end_is_not(shop: Shop):
    WRONG["sessions"] = KeyError("a column")
    by_hand = DEFINITIONS.resolve_implicit_global_asset_job_def()
    by_hand.execute_in_process(
        instance=shop.instance, raise_on_error=False, asset_selection=[dg.AssetKey("sessions")]
    )
    shop.look()
    assert shop.subjects() == ["[clickstream] run of sessions failed"]
    # A fault of ours has no sentence: its page has more.
    assert "\nsessions: KeyError: 'a column'\n" in shop.mails.text(0)
    shop.run("nightly")
    shop.look()
    assert len(shop.mails.mails) == 1


@pytest.mark.slow
def test_a_failed_check_is_told_with_what_it_found(shop: Shop):
    warning = dg.AssetCheckResult(
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"expected": 3, "actual": 5, "sample_keys": ["a", "b"]},
    )
    shop.run("nightly", are_whole=warning)
    shop.look()
    assert shop.subjects() == ["[clickstream] check are_whole of sessions does not pass"]
    lines = shop.mails.text(0).splitlines()
    assert lines[0].startswith("WARNING: check are_whole")
    assert lines[1:4] == [
        "No session is cut.",
        "expected: 3; actual: 5; sample keys: ['a', 'b']",
        "https://dagster.example.com/assets/sessions?view=checks&checkDetail=are_whole",
    ]
    # While it is carried out again, nothing is known.
    start_run(shop.instance, "nightly")
    shop.look()
    shop.run("nightly", are_whole=dg.AssetCheckResult(passed=True))
    shop.look()
    assert shop.subjects()[1:] == ["[clickstream] resolved: check are_whole of sessions does not pass"]


class Evaluated(NamedTuple):
    """A sensor or schedule, as the daemon knows it."""

    shop: Shop
    name: str
    kind: InstigatorType

    @property
    def state(self) -> InstigatorState:
        origin = RemoteInstigatorOrigin(REPOSITORY, self.name)
        is_sensor = self.kind == InstigatorType.SENSOR
        data = SensorInstigatorData() if is_sensor else ScheduleInstigatorData("0 2 * * *")
        return InstigatorState(origin, self.kind, InstigatorStatus.RUNNING, data)

    def start(self) -> None:
        self.shop.instance.add_instigator_state(self.state)

    def evaluate(self, error: Exception | None = None, status: TickStatus | None = None) -> None:
        """Write down an evaluation as the daemon does, with the error as the code server sends it."""
        info = None
        if error:
            try:
                raise error
            except Exception:
                info = serializable_error_info_from_exc_info(sys.exc_info())
        self.shop.instance.create_tick(
            TickData(
                self.state.instigator_origin_id,
                self.name,
                self.kind,
                status or (TickStatus.FAILURE if error else TickStatus.SUCCESS),
                time.time(),
                [],
                [],
                error=info,
                selector_id=self.state.selector_id,
            )
        )


@pytest.mark.parametrize(
    ("name", "kind", "word"),
    [
        ("dirty_days", InstigatorType.SENSOR, "sensor"),
        ("every_night", InstigatorType.SCHEDULE, "schedule"),
    ],
)
def test_a_sensor_or_schedule_in_error_is_told_until_it_works(
    shop: Shop, name: str, kind: InstigatorType, word: str
):
    evaluated = Evaluated(shop, name, kind)
    evaluated.start()
    shop.look()
    evaluated.evaluate()
    shop.look()
    assert shop.mails.mails == []
    for _ in range(2):
        evaluated.evaluate(AWAY)
        # One that is under way says nothing.
        evaluated.evaluate(status=TickStatus.STARTED)
        shop.look()
    assert shop.subjects() == [f"[clickstream] {word} {name} fails"]
    assert shop.mails.text(0).splitlines()[1:4] == [
        "KAFKA_BOOTSTRAP_SERVERS=<a&b>:9092 cannot be reached; start it",
        "What it starts is not started until then.",
        f"https://dagster.example.com/locations/clickstream_assets/{word}s/{name}",
    ]
    evaluated.evaluate()
    shop.look()
    assert shop.subjects()[1:] == [f"[clickstream] resolved: {word} {name} fails"]


def test_a_sensor_that_a_person_turned_off_is_not_in_error(shop: Shop):
    evaluated = Evaluated(shop, "dirty_days", InstigatorType.SENSOR)
    evaluated.start()
    evaluated.evaluate(AWAY)
    shop.instance.update_instigator_state(evaluated.state.with_status(InstigatorStatus.STOPPED))
    shop.look()
    assert shop.mails.mails == []


def change_freshness(shop: Shop, asset: str, before: FreshnessState, after: FreshnessState) -> None:
    """Report it as the daemon does."""
    shop.instance._report_runless_asset_event(
        FreshnessStateChange(
            key=dg.AssetKey(asset),
            previous_state=before,
            new_state=after,
            state_change_timestamp=time.time(),
        )
    )


def report_at(shop: Shop, hours_ago: float, asset: str, **metadata: Any) -> None:
    """An asset was brought up to date so long ago."""
    with freeze_time(datetime.now(UTC) - timedelta(hours=hours_ago)):
        materialize(shop.instance, asset, **metadata)


def test_an_asset_that_is_overdue_is_told_until_it_is_up_to_date(shop: Shop):
    report_at(shop, 3, "sessions")
    report_at(shop, 2, "events", dirty_days=["2024-05-01"])
    # What follows does not begin the wait anew.
    report_at(shop, 0.1, "events", dirty_days=["2024-05-01"])
    change_freshness(shop, "sessions", FreshnessState.PASS, FreshnessState.WARN)
    shop.look()
    assert shop.mails.mails == []
    change_freshness(shop, "sessions", FreshnessState.WARN, FreshnessState.FAIL)
    shop.look()
    shop.look()
    assert shop.subjects() == ["[clickstream] asset sessions is overdue"]
    assert "\nhttps://dagster.example.com/assets/sessions\n" in shop.mails.text(0)
    change_freshness(shop, "sessions", FreshnessState.FAIL, FreshnessState.PASS)
    shop.look()
    assert shop.subjects()[1:] == ["[clickstream] resolved: asset sessions is overdue"]


def test_an_asset_that_has_nothing_to_do_is_not_overdue(shop: Shop):
    report_at(shop, 9, "events", dirty_days=["2024-05-01"])
    report_at(shop, 8, "sessions")
    # Records that repeat others, as the last ones before the night.
    report_at(shop, 7, "events", dirty_days=[])
    change_freshness(shop, "sessions", FreshnessState.PASS, FreshnessState.FAIL)
    shop.look()
    assert shop.mails.mails == []


def test_nothing_is_overdue_at_the_first_event_after_a_quiet_night(shop: Shop):
    report_at(shop, 8, "sessions")
    change_freshness(shop, "sessions", FreshnessState.PASS, FreshnessState.FAIL)
    report_at(shop, 0.1, "events", dirty_days=["2024-05-01"])
    shop.look()
    assert shop.mails.mails == []


def test_ingest_is_overdue_while_records_wait(shop: Shop, kafka: Settings, monkeypatch: pytest.MonkeyPatch):
    topic = new_topic(kafka, partitions=2)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka.kafka_bootstrap_servers)
    monkeypatch.setenv("KAFKA_TOPIC", topic.kafka_topic)
    two_hours_ago = datetime.now(UTC) - timedelta(hours=2)
    send(topic, {0: [b"{}", b"{}"]}, sent_at=two_hours_ago)
    report_at(shop, 9, "raw_events", offsets=to_json({first(topic): 2}))
    change_freshness(shop, "raw_events", FreshnessState.PASS, FreshnessState.FAIL)
    shop.look()
    assert shop.mails.mails == []
    send(topic, {1: [b"{}"]})
    shop.look()
    assert shop.mails.mails == []
    send(topic, {0: [b"{}"]}, sent_at=two_hours_ago)
    shop.look()
    assert shop.subjects() == ["[clickstream] asset raw_events is overdue"]
    # What is not known while nobody can ask Kafka neither ends an incident nor opens one.
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", f"127.0.0.1:{free_port()}")
    monkeypatch.setenv("KAFKA_TIMEOUT_SECONDS", "1")
    shop.look()
    assert len(shop.mails.mails) == 1


def test_a_stream_that_stands_still_is_told_until_it_goes_on(
    shop: Shop, postgres: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("INCIDENT_SILENCES")
    with fresh_database(postgres) as database:

        def write(error: str | None) -> None:
            with connect(database) as connection:
                connection.execute("DELETE FROM stream_status")
                connection.execute(
                    "INSERT INTO stream_status (query, owner, batch_id, rows, dropped_late, error) "
                    "VALUES ('product_windows', 'clickstream stream', 1, 1, 0, %s)",
                    [error],
                )

        shop.look()
        assert shop.subjects() == ["[clickstream] stream product_windows stands still"]
        assert "its state cannot be read: PostgreSQL cannot be reached" in shop.mails.text(0)
        for name, value in environment(database).items():
            monkeypatch.setenv(name, value)
        write("no broker answers")
        assert shop.look() == "open: stream_down:product_windows"
        assert len(shop.mails.mails) == 1
        write(None)
        assert shop.look() == "nothing is wrong"
    assert shop.subjects()[1:] == ["[clickstream] resolved: stream product_windows stands still"]


def test_a_failed_run_of_the_streams_is_over_once_their_process_is_there(
    shop: Shop, postgres: Settings, monkeypatch: pytest.MonkeyPatch
):
    with fresh_database(postgres) as database, closing(Presence(database, "stream")) as process:
        for name, value in environment(database).items():
            monkeypatch.setenv(name, value)
        for _ in range(2):
            past_run(shop.instance, "stream", DagsterRunStatus.FAILURE, seconds_ago=120)
        assert shop.look() == "open: run_failed:stream"
        process.show()
        assert shop.look() == "nothing is wrong"
    assert shop.subjects() == [
        "[clickstream] job stream failed 2 times in a row",
        "[clickstream] resolved: job stream failed 2 times in a row",
    ]


@pytest.mark.long
def test_a_daemon_whose_servers_are_away_has_people_told(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("INCIDENT_SILENCES")
    monkeypatch.setenv("DAGSTER_HOME", str(shop.folder))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", f"127.0.0.1:{free_port()}")
    monkeypatch.setenv("KAFKA_TIMEOUT_SECONDS", "1")
    told = {
        "sensor_failed:new_records": "KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:",
        "sensor_failed:new_stream_records": "POSTGRES_HOST=127.0.0.1",
        "sensor_failed:unchecked_streams": "POSTGRES_HOST=127.0.0.1",
        "stream_down:product_windows": "POSTGRES_HOST=127.0.0.1",
    }

    def reasons() -> dict[str, str]:
        entries = [entry for posted in shop.posted() for entry in posted["opened"]]
        return {f"{entry['kind']}:{entry['subject']}": entry["reason"] for entry in entries}

    daemon = subprocess.Popen(
        [Path(sys.executable).parent / "dagster-daemon", "run", "-m", "clickstream_assets.definitions"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: reasons().keys() == told.keys())
    finally:
        os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()
    assert {name: told[name] in reason for name, reason in reasons().items()} == dict.fromkeys(told, True)
    # Each once, however often it was evaluated meanwhile.
    assert sum(len(posted["opened"]) for posted in shop.posted()) == len(told)
    assert len(shop.mails.mails) == len(shop.posted())


@pytest.mark.slow
def test_many_at_once_are_one_message(shop: Shop):
    many = [f"asset_{number}" for number in range(30)]
    for name in many:
        past_run(shop.instance, name, DagsterRunStatus.FAILURE)
    jobs = [dg.define_asset_job(name, selection=[sessions]) for name in many]
    tick(incidents, shop.instance, dg.Definitions(assets=[sessions], jobs=jobs, sensors=[incidents]))
    (subject,) = shop.subjects()
    assert subject.startswith("[clickstream] 30 incidents: job asset_")
    assert len(subject) <= 165
    text = shop.mails.text(0)
    assert text.count("ERROR: ") == 20
    assert "And 10 more: run_failed:asset_" in text
    (posted,) = shop.posted()
    assert len(posted["opened"]) == 30


def test_a_subject_says_once_what_is_over():
    first, second, third = (
        Incident(
            id=name,
            problem=Problem(
                kind=Kind.RUN_FAILED, subject=name, summary=f"job {name} failed", reason="", path="/"
            ),
            since=0,
        )
        for name in ("a", "b", "c")
    )
    over = Message(id="1", created=0, resolved=[first, second])
    assert subject(over) == "[clickstream] 2 incidents resolved: job a failed; job b failed"
    both = Message(id="2", created=0, opened=[third], resolved=[first, second])
    assert subject(both) == ("[clickstream] 3 incidents: job c failed; resolved: job a failed; job b failed")


def test_a_receiver_that_is_away_keeps_nobody_waiting_and_gets_the_message_later(
    shop: Shop, answers: list[int], monkeypatch: pytest.MonkeyPatch
):
    answers += [500, 404]
    shop.run("nightly", sessions=AWAY)
    assert "(attempt" not in shop.look()
    assert len(shop.mails.mails) == 1
    # Not before its time.
    assert "127.0.0.1" in shop.look()
    assert len(shop.hooks.requests) == 1
    for attempts in (2, 3):
        record = kept(shop.instance)
        for route in record.routes.values():
            assert route.next_attempt < time.time() + 10 * attempts
            route.next_attempt = 0
        keep(shop.instance, record)
        said = shop.look()
        assert ("waits: HTTP 404" in said) == (attempts == 2)
    # What a receiver refuses is sent again too, when somebody has mended its address.
    assert len({request.headers["webhook-id"] for request in shop.hooks.requests}) == 1
    assert [len(posted["opened"]) for posted in shop.posted()] == [1, 1, 1]
    assert "t0ken" not in said


@pytest.mark.slow
def test_a_mail_server_that_is_away_is_asked_again_and_no_incident_is_lost(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    port = str(shop.mails.port)
    monkeypatch.setenv("SMTP_PORT", str(free_port()))
    monkeypatch.setenv("INCIDENT_TO", "ann@example.com, bob@example.com")
    shop.run("nightly", sessions=AWAY)
    assert "mail to bob@example.com waits: SMTP_HOST=127.0.0.1" in shop.look()
    shop.run("nightly")
    shop.look()
    assert (len(shop.posted()), shop.mails.mails) == (2, [])
    monkeypatch.setenv("SMTP_PORT", port)
    record = kept(shop.instance)
    for route in record.routes.values():
        route.next_attempt = 0
    keep(shop.instance, record)
    shop.look()
    shop.look()
    told = [(recipient, str(message["Subject"])) for _, recipient, message in shop.mails.mails]
    assert sorted(told) == [
        (recipient, subject)
        for recipient in ("ann@example.com", "bob@example.com")
        for subject in ("[clickstream] job nightly failed", "[clickstream] resolved: job nightly failed")
    ]


@pytest.mark.slow
def test_a_mail_server_that_hangs_costs_its_patience_once(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("clickstream_assets.defs.incidents.delivery.MAIL_SECONDS", 0.3)
    # The port takes connections, and nothing ever reads from them.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("SMTP_PORT", str(silent.getsockname()[1]))
        monkeypatch.setenv("INCIDENT_TO", ",".join(f"{name}@example.com" for name in "abcdefgh"))
        shop.run("nightly", sessions=AWAY)
        assert "mail to h@example.com waits: SMTP_HOST=127.0.0.1" in shop.look()
        silent.settimeout(0)
        silent.accept()
        with pytest.raises(BlockingIOError):
            silent.accept()
    assert len(shop.posted()) == 1


@pytest.mark.slow
def test_a_message_that_was_sent_and_not_remembered_is_sent_again_under_its_id(shop: Shop):
    shop.run("nightly", sessions=AWAY)
    shop.look()
    # As the record was before the message was sent: the process died right after.
    record = kept(shop.instance)
    shop.run("nightly")
    record.take_in([], [], time.time(), load_settings())
    record.compose(time.time(), load_settings())
    keep(shop.instance, record)

    def died() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deliver(load_settings(), record, died)
    # A process that starts anew.
    shop.open()
    shop.look()
    shop.look()
    ids = [request.headers["webhook-id"] for request in shop.hooks.requests]
    assert len(ids) == 3
    assert ids[1] == ids[2] != ids[0]
    assert shop.posted()[1] == shop.posted()[2]


def test_what_was_told_stays_told_after_a_restart(shop: Shop):
    shop.run("nightly", sessions=AWAY)
    shop.look()
    shop.open()
    shop.look()
    assert (len(shop.mails.mails), len(shop.posted())) == (1, 1)


@pytest.mark.slow
def test_one_look_at_a_time(shop: Shop, answers: list[int], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("INCIDENT_TO")
    begun, go_on = threading.Event(), threading.Event()

    def answer(_: object) -> Answer:
        begun.set()
        go_on.wait(30)
        return Answer(200)

    shop.run("nightly", sessions=AWAY)
    with web_server(answer) as slow:
        monkeypatch.setenv("INCIDENT_WEBHOOK_URLS", slow.url)
        monkeypatch.setenv("ALERT_WEBHOOK_TIMEOUT_SECONDS", "30")
        first = threading.Thread(target=shop.look)
        first.start()
        assert begun.wait(30)
        assert shop.look() == "the last look is still under way"
        go_on.set()
        first.join()
        assert len(slow.requests) == 1


def test_what_cannot_be_looked_for_keeps_nothing_else_from_being_told(shop: Shop):
    # It has no storage of sensors' evaluations.
    shop.instance = dg.DagsterInstance.ephemeral()
    shop.run("nightly", sessions=AWAY)
    with pytest.raises(Exception, match="Schedule storage not available"):
        shop.look()
    assert shop.subjects() == ["[clickstream] job nightly failed"]


def test_without_an_address_the_sensor_says_how_to_be_told(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("INCIDENT_TO")
    monkeypatch.delenv("INCIDENT_WEBHOOK_URLS")
    shop.run("nightly", sessions=AWAY)
    assert "nobody is told: set INCIDENT_TO or INCIDENT_WEBHOOK_URLS" in shop.look()


def command(*arguments: str, **more: str) -> Result:
    return CliRunner().invoke(app, ["incidents", *arguments], env=more)


def test_a_test_message_says_what_became_of_it(shop: Shop, answers: list[int]):
    result = command("test")
    assert (result.exit_code, result.stdout) == (
        0,
        f"{webhook()}: taken\nmail to ann@example.com: taken\nSilenced, now: stream_down\n",
    )
    assert shop.subjects()[0].startswith("[clickstream] A test message")
    (posted,) = shop.posted()
    assert posted["type"] == "test"
    assert posted["text"].startswith("A test message")
    answers += [404]
    result = command("test")
    assert result.exit_code == 1
    assert f"{webhook()}: not taken: HTTP 404" in result.stdout
    assert "1 of 2 did not take the test message" in result.stderr
    result = command("test", INCIDENT_TO="", INCIDENT_WEBHOOK_URLS="")
    assert "INCIDENT_TO and INCIDENT_WEBHOOK_URLS are not set, so nobody is told" in result.stderr


def test_the_list_shows_what_is_open_what_is_silenced_and_who_is_told(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DAGSTER_HOME", str(shop.folder))
    assert command("list").stdout.startswith("0 incidents are open.\n")
    shop.run("nightly", sessions=AWAY)
    monkeypatch.setenv("INCIDENT_SILENCES", "stream_down, run_failed:refresh@2020-01-01/2020-01-02")
    monkeypatch.setenv("SMTP_PORT", str(free_port()))
    shop.look()
    shown = command("list").stdout.splitlines()
    assert shown[0] == "2 incidents are open."
    assert {line.partition("  ")[2] for line in shown[1:5:2]} == {
        "error  run_failed:nightly",
        "error  stream_down:product_windows (silenced)",
    }
    assert "    sessions: KAFKA_BOOTSTRAP_SERVERS=<a&b>:9092 cannot be reached; start it" in shown
    assert shown[5:7] == [
        "Silenced, now: stream_down: stream_down:product_windows",
        "Silenced, not now: run_failed:refresh@2020-01-01/2020-01-02",
    ]
    assert shown[7].startswith(f"Told: {webhook()}, last at 20")
    assert shown[8].startswith("Told: mail to ann@example.com: waits, SMTP_HOST=127.0.0.1 SMTP_PORT=")
    assert "t0ken" not in "".join(shown)


def test_a_dagster_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert "DAGSTER_HOME is not set" in command("list", DAGSTER_HOME="").stderr
    (tmp_path / "dagster.yaml").write_text("storage: {postgres: {postgres_url: {env: NOT_SET_ANYWHERE}}}\n")
    result = command("list", DAGSTER_HOME=str(tmp_path))
    assert result.exit_code == 1
    assert f"DAGSTER_HOME={tmp_path}: Dagster's storage cannot be read" in result.stderr


def test_a_dagster_whose_database_is_away_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/dagster"
    (tmp_path / "dagster.yaml").write_text(f"storage: {{postgres: {{postgres_url: '{url}'}}}}\n")
    result = command("list", DAGSTER_HOME=str(tmp_path))
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"DAGSTER_HOME={tmp_path}: Dagster's storage cannot be read (connection to server")
    assert "Connection refused" in line


def webhook() -> str:
    """The receiver's name, without what its address keeps secret."""
    return next(name for name in addresses(load_settings()) if name.startswith("webhook"))
