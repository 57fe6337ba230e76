"""Servers that are gone, and such that hang: what accepts a connection and never answers is as good as gone."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.topic import Offsets
from clickstream_assets.streaming import servers
from clickstream_assets.streaming.servers import ask_servers
from clickstream_assets_tests.databases import free_port, with_settings
from clickstream_assets_tests.topics import keyed, new_topic


@pytest.fixture
def hung() -> Iterator[int]:
    """The port of a process that is stopped: the kernel takes its connections, and nobody reads."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("state", ["gone", "hung"])
def test_servers_that_do_not_answer_are_named(state: str, hung: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(servers, "ANSWER_SECONDS", 1.0)
    port = hung if state == "hung" else free_port()
    settings = Settings(
        _env_file=None,
        kafka_bootstrap_servers=f"127.0.0.1:{port}",
        elasticsearch_url=f"http://127.0.0.1:{port}",
    )
    found = ask_servers(settings)
    assert found.available is None
    assert f"KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:{port}" in str(found.kafka_fault)
    assert f"ELASTICSEARCH_URL=http://127.0.0.1:{port}" in str(found.elasticsearch_fault)


def test_servers_that_answer_have_no_fault(kafka: Settings, elasticsearch: Settings):
    settings = with_settings(new_topic(kafka, 2), elasticsearch_url=elasticsearch.elasticsearch_url)
    found = ask_servers(settings)
    assert (found.kafka_fault, found.elasticsearch_fault) == (None, None)
    assert found.available == keyed(settings, {0: Offsets(0, 0), 1: Offsets(0, 0)})
