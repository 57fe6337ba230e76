"""Experiments in answers, and the exposures that they leave in Kafka."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from flask.testing import FlaskClient
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from clickstream_assets.api.app import create_app
from clickstream_assets.api.database import EXTENSION as DATABASE
from clickstream_assets.api.experiments import EXTENSION as EXPERIMENTS
from clickstream_assets.api.moment import EXTENSION as MOMENT
from clickstream_assets.api.server import serve as serve_api
from clickstream_assets.catalogue import EXPERIMENT_RECOMMENDATIONS, PROFILING_REFUSALS
from clickstream_assets.errors import InputError
from clickstream_assets.recommender.experiments import bucket_of, parse_experiments
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka import background
from clickstream_assets.stores.kafka.topic import OffsetRange, Topics
from clickstream_assets.stores.postgres.publishing import publication
from clickstream_assets_tests.api.conftest import publish
from clickstream_assets_tests.api.test_metrics import scraped
from clickstream_assets_tests.api.test_moment import happen, serve
from clickstream_assets_tests.databases import fresh_database, query, with_settings
from clickstream_assets_tests.stores.postgres.rows import table

DECLARED = """
[[experiment]]
name = "kinds"
start = 2024-01-01T00:00:00Z
arms = [
    {name = "control", share = 0.25},
    {name = "lists", share = 0.25, serves = "lists"},
    {name = "session", share = 0.25, serves = "session"},
    {name = "popular", share = 0.25, serves = "popularity"},
]
"""
(KINDS,) = parse_experiments(DECLARED, "the test")


def member(arm: str) -> str:
    """A visitor who is in an arm."""
    units = (f"anonymous:{number}" for number in range(10_000))
    found = (unit for unit in units if (its := KINDS.arm_of(unit)) and its.name == arm)
    return next(found).removeprefix("anonymous:")


@pytest.fixture(scope="module")
def database(postgres: Settings) -> Iterator[Settings]:
    with fresh_database(postgres) as own:
        publish(own)
        serve(own, "n1")
        yield own


def application(settings: Settings) -> Iterator[FlaskClient]:
    app = create_app(settings)
    app.extensions[MOMENT].renew_models()
    yield app.test_client()
    app.extensions[EXPERIMENTS].close()
    app.extensions[DATABASE].close()


def experimenting(settings: Settings, folder: Path, **more: Any) -> Settings:
    (folder / "experiments.toml").write_text(DECLARED)
    given = {"experiments": folder / "experiments.toml", "kafka_exposures_topic": f"shown-{uuid4().hex[:12]}"}
    return with_settings(settings, **given | more)


@pytest.fixture
def away(database: Settings, tmp_path: Path) -> Iterator[FlaskClient]:
    """An application whose Kafka does not answer."""
    kafka = {"kafka_bootstrap_servers": "127.0.0.1:1", "kafka_timeout_seconds": 0.2}
    yield from application(experimenting(database, tmp_path, **kafka))


def exposures(client: FlaskClient) -> dict[str, float]:
    samples = scraped(client.get("/metrics").text)
    return {outcome: samples["clickstream_exposures_total", outcome] for outcome in ("sent", "lost")}


def soon(check: Any) -> None:
    for attempt in Retrying(
        retry=retry_if_exception_type(AssertionError),
        stop=stop_after_delay(30),
        wait=wait_fixed(0.05),
        reraise=True,
    ):
        with attempt:
            check()


def test_an_arm_is_answered_with_what_it_serves_and_says_so(away: FlaskClient) -> None:
    now = away.application.extensions[MOMENT]
    sources = {}
    for arm in ("control", "lists", "session", "popular"):
        happen(now, {"anonymous_id": member(arm), "product_id": "s1"})
        answer = away.get(f"/api/recommend?anonymous_id={member(arm)}").json
        assert answer["experiment"] == {"name": "kinds", "arm": arm}
        sources[arm] = {item["source"] for item in answer["items"]}
    assert sources == {
        "control": {"session", "popular"},
        "lists": {"popular"},
        "session": {"session", "popular"},
        "popular": {"popular"},
    }
    # A user with a published list is a unit of their own.
    its = KINDS.arm_of("u1")
    assert its
    answer = away.get("/api/recommend/u1").json
    assert answer["experiment"] == {"name": "kinds", "arm": its.name}
    has_list = its.name in ("control", "lists")
    assert ("personal" in {item["source"] for item in answer["items"]}) is has_list


def test_an_experiment_of_an_algorithms_lists_begins_when_there_are_some(
    database: Settings, tmp_path: Path
) -> None:
    algorithms = """
[[experiment]]
name = "kinds"
start = 2024-01-01T00:00:00Z
arms = [{name = "control", share = 0.5}, {name = "als", share = 0.5, serves = "als"}]
"""
    settings = experimenting(database, tmp_path, kafka_bootstrap_servers="127.0.0.1:1")
    (tmp_path / "experiments.toml").write_text(algorithms)
    (experiment,) = parse_experiments(algorithms, "the test")
    arms: dict[str, str] = {}
    for unit in (f"u{number}" for number in range(100)):
        its = experiment.arm_of(unit)
        assert its
        arms.setdefault(its.name, unit)
    for client in application(settings):
        for unit in arms.values():
            assert client.get(f"/api/recommend/{unit}").json["experiment"] is None
        row = {"lists_of": "als", "product_id": "p9", "rank": 1, "confidence_score": 0.5, "algorithm": "als"}
        rows = [
            row | {"user_id": unit, "reason": "Because", "model_version": "v-als"} for unit in arms.values()
        ]
        with publication(database) as transaction:
            transaction.publish(EXPERIMENT_RECOMMENDATIONS, table(EXPERIMENT_RECOMMENDATIONS, rows))
        for name, unit in arms.items():
            answer = client.get(f"/api/recommend/{unit}?n=3").json
            assert answer["experiment"] == {"name": "kinds", "arm": name}
            first = answer["items"][0]
            is_of_lists = (first["product_id"], first["model_version"]) == ("p9", "v-als")
            assert is_of_lists is (name == "als")
            assert answer["model_version"] == ("v-als" if name == "als" else "m1")


def test_postgresql_gives_a_unit_the_same_part(database: Settings) -> None:
    for unit in ("u1", "anonymous:7c1", "ü 🐍", "a'b"):
        text = f"aa:2:{unit}".replace("'", "''")
        part = f"SELECT ('x' || left(encode(sha256(convert_to('{text}', 'UTF8')), 'hex'), 13))::bit(52)::bigint % 10000"
        assert query(database, part) == [(bucket_of("aa", "2", unit),)]


def test_a_session_without_a_person_is_in_no_experiment(away: FlaskClient) -> None:
    answer = away.post("/api/session/recommend", json={"products": ["s1"]})
    assert answer.json["experiment"] is None


def test_each_answer_is_noted_once_with_what_it_showed_and_a_refusers_is_not(
    database: Settings, kafka: Settings, tmp_path: Path
) -> None:
    servers = with_settings(database, kafka_bootstrap_servers=kafka.kafka_bootstrap_servers)
    settings = experimenting(servers, tmp_path, kafka_topic=f"events-{uuid4().hex[:12]}")
    with publication(database) as transaction:
        refused = {"user_id": "refuser", "refused": datetime(2024, 5, 1, tzinfo=UTC)}
        transaction.publish(PROFILING_REFUSALS, table(PROFILING_REFUSALS, [refused]))
    began = datetime.now(UTC)
    for client in application(settings):
        before = exposures(client)
        paths = [
            f"/api/recommend?anonymous_id={member('popular')}&n=2",
            "/api/recommend/a/b",
            "/api/recommend/u1",
        ]
        answers = [client.get(path).json for path in paths]
        assert client.get("/api/recommend/refuser").json["experiment"] is None

        def all_are_sent(before: dict[str, float] = before, client: FlaskClient = client) -> None:
            assert exposures(client) == {"sent": before["sent"] + 3, "lost": before["lost"]}

        soon(all_are_sent)
    assert settings.kafka_exposures_topic
    topic = Topics(settings, [settings.kafka_exposures_topic], "KAFKA_EXPOSURES_TOPIC")
    ranges = [OffsetRange(p, o.low, o.high) for p, o in topic.offsets().items() if o.high]
    rows = [row for batch in topic.read_here(ranges, 1, 10**9) for row in batch.to_pylist()]
    found = {row["key"].decode(): json.loads(row["value"]) for row in rows}
    assert len(rows) == len(found) == 3
    assert len({record.pop("exposure_id") for record in found.values()}) == 3
    times = [datetime.fromisoformat(record.pop("time")) for record in found.values()]
    assert all(began <= time <= datetime.now(UTC) for time in times)
    assert found == {
        answer["user_id"]: {
            "experiment": "kinds",
            "arm": answer["experiment"]["arm"],
            "unit": answer["user_id"],
            "products": [item["product_id"] for item in answer["items"]],
            "model_version": "m1",
            "moment_version": "n1",
        }
        for answer in answers
    }


def test_without_kafka_every_answer_comes_and_what_is_not_noted_is_counted(
    away: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = exposures(away)
    for _ in range(3):
        assert away.get("/api/recommend/u1").json["experiment"]

    def all_are_lost() -> None:
        assert exposures(away) == {"sent": before["sent"], "lost": before["lost"] + 3}

    soon(all_are_lost)
    # What waits is bounded; here nobody takes it.
    monkeypatch.setattr(background.Thread, "start", lambda _: None)
    full = background.Background(
        Settings(_env_file=None), "shown", lambda sent, lost: counts.append((sent, lost))
    )
    counts: list[tuple[int, int]] = []
    for _ in range(10_002):
        full.send(b"u", b"{}")
    assert counts == [(0, 1), (0, 1)]


def test_the_api_does_not_start_with_experiments_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "experiments.toml"
    settings = Settings(_env_file=None, experiments=path, kafka_exposures_topic="shown")
    with pytest.raises(InputError, match="No such file or directory; set it to a TOML file"):
        serve_api(settings)
    path.write_text(DECLARED.replace("0.25", "0.5"))
    with pytest.raises(
        InputError, match=r"experiments.toml: experiment 1 \(kinds\):\n  the shares of its arms"
    ):
        serve_api(settings)
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match="is not UTF-8"):
        serve_api(settings)
