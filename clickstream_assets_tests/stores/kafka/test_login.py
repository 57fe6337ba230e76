"""A broker that asks for a user and a password."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from clickstream_assets.engine import Engine
from clickstream_assets.engine.jars import fetch_jars, kafka_classpath
from clickstream_assets.engine.java import find_java
from clickstream_assets.errors import InputError
from clickstream_assets.local.identity import Identity
from clickstream_assets.local.kafka import Kafka
from clickstream_assets.local.ports import LOOPBACK, free_port
from clickstream_assets.local.server import Tools
from clickstream_assets.settings import KafkaSecurity, Settings, SettingsError, load_settings
from clickstream_assets.stores.kafka.consumer import TopicError
from clickstream_assets.stores.kafka.producer import KafkaSink, ensure_topics
from clickstream_assets.stores.kafka.topic import OffsetRange, Offsets, Topics
from clickstream_assets_tests.databases import with_settings
from clickstream_assets_tests.topics import first

# What has to be quoted in a JAAS configuration.
PASSWORD = """it's "a" \\secret;"""
PATIENCE_SECONDS = 60


class KafkaWithLogin(Kafka):
    """A broker whose only listener wants SASL PLAIN."""

    def _properties(self, data: Path, controller_port: int) -> str:
        module = "org.apache.kafka.common.security.plain.PlainLoginModule"
        password = PASSWORD.replace("\\", "\\\\").replace('"', '\\"')
        login = f'{module} required username="shop" password="{password}" user_shop="{password}";'
        wanted = {
            "listeners": f"SHOP://{LOOPBACK}:{self.port},CONTROLLER://{LOOPBACK}:{controller_port}",
            "advertised.listeners": f"SHOP://{LOOPBACK}:{self.port}",
            "listener.security.protocol.map": "SHOP:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "SHOP",
            "sasl.enabled.mechanisms": "PLAIN",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            # A properties file takes a backslash for an escape of its own.
            "listener.name.shop.plain.sasl.jaas.config": login.replace("\\", "\\\\"),
        }
        # Of a property that is there twice, the last counts.
        return super()._properties(data, controller_port) + "".join(
            f"{name}={value}\n" for name, value in wanted.items()
        )


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings that a broker of its own lets in."""
    server = KafkaWithLogin(tmp_path_factory.mktemp("guarded"), free_port())
    jars = Settings(_env_file=None).jars_path
    fetch_jars(jars, print)
    tools = Tools(Identity(), find_java(), kafka_classpath(jars), Path(), Path())
    server.make_folder("", tools.identity)
    server.prepare(tools)
    settings = Settings(
        _env_file=None,
        kafka_bootstrap_servers=f"{LOOPBACK}:{server.port}",
        kafka_security_protocol="SASL_PLAINTEXT",
        kafka_sasl_mechanism="PLAIN",
        kafka_username="shop",
        kafka_password=PASSWORD,
    )
    log = server.folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(server.command(tools), cwd=server.folder, stdout=output, stderr=output)
    try:
        wait_for(process, settings, log)
        yield settings
    finally:
        # Asked to stop, it waits minutes for a controller that stops as well.
        process.kill()
        process.wait()


def wait_for(process: subprocess.Popen[bytes], settings: Settings, log: Path) -> None:
    client = AdminClient(
        {
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "shop",
            "sasl.password": PASSWORD,
            "log_level": 0,
        }
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            assert client.list_topics(timeout=2).brokers
            return
        except KafkaException:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()


@pytest.mark.server
def test_events_go_in_and_come_out_with_the_right_password(guarded: Settings, engine: Engine):
    settings = with_settings(guarded, kafka_topic=f"events-{engine.name}", kafka_topic_partitions=1)
    with KafkaSink(settings) as sink:
        for number in range(3):
            sink.send(b"key", b"%d" % number)
    topics = Topics(settings)
    assert topics.offsets() == {first(settings): Offsets(0, 3)}
    rows = engine.to_arrow(topics.read(engine, [OffsetRange(first(settings), 0, 3)], batch=1))
    assert sorted(rows["value"].to_pylist()) == [b"0", b"1", b"2"]


@pytest.mark.server
@pytest.mark.long
def test_a_wrong_password_is_told_with_the_settings_to_mend(guarded: Settings):
    # On a busy machine the answer takes seconds.
    wrong = with_settings(guarded, kafka_password="wr0ng", kafka_timeout_seconds=20)
    for error, use in ((InputError, ensure_topics), (TopicError, lambda s: Topics(s).offsets())):
        with pytest.raises(error) as caught:
            use(wrong)
        message = str(caught.value)
        assert "refused KAFKA_USERNAME=shop with this KAFKA_PASSWORD" in message
        assert "KAFKA_SASL_MECHANISM=PLAIN" in message
        assert "wr0ng" not in message


@pytest.mark.server
def test_a_listener_that_wants_a_login_is_told_apart_from_none_as_far_as_it_can_be(guarded: Settings):
    without = with_settings(guarded, kafka_security_protocol="PLAINTEXT", kafka_timeout_seconds=2)
    with pytest.raises(
        TopicError, match=r"set .* KAFKA_SECURITY_PROTOCOL=PLAINTEXT to what its listener speaks"
    ):
        Topics(without).offsets()


TIMES = {"kafka.request.timeout.ms": "10000", "kafka.default.api.timeout.ms": "10000"}
"""As KAFKA_TIMEOUT_SECONDS has it by default."""


def test_without_a_login_no_password_is_sent_though_one_is_set():
    settings = Settings(_env_file=None, kafka_username="shop", kafka_password=PASSWORD)
    assert settings.kafka_security_protocol is KafkaSecurity.PLAINTEXT
    assert settings.kafka_client_options == {
        "bootstrap_servers": "127.0.0.1:9092",
        "security_protocol": "PLAINTEXT",
    }
    assert settings.kafka_spark_options == {
        "kafka.bootstrap.servers": "127.0.0.1:9092",
        "kafka.security.protocol": "PLAINTEXT",
        **TIMES,
    }


def test_encryption_and_scram_are_said_to_either_client_in_its_words():
    settings = Settings(
        _env_file=None,
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_mechanism="SCRAM-SHA-256",
        kafka_username="shop",
        kafka_password="wh1sper",
        kafka_ca_file="/etc/ca.pem",
    )
    assert settings.kafka_client_options == {
        "bootstrap_servers": "127.0.0.1:9092",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_plain_username": "shop",
        "sasl_plain_password": "wh1sper",
        "ssl_cafile": "/etc/ca.pem",
    }
    assert settings.kafka_spark_options == {
        "kafka.bootstrap.servers": "127.0.0.1:9092",
        "kafka.security.protocol": "SASL_SSL",
        "kafka.sasl.mechanism": "SCRAM-SHA-256",
        "kafka.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required "
        'username="shop" password="wh1sper";',
        "kafka.ssl.truststore.type": "PEM",
        "kafka.ssl.truststore.location": "/etc/ca.pem",
        **TIMES,
    }
    assert "wh1sper" not in repr(settings)


@pytest.mark.parametrize("missing", ["KAFKA_USERNAME", "KAFKA_PASSWORD"])
def test_a_login_needs_a_user_and_a_password(monkeypatch: pytest.MonkeyPatch, missing: str):
    given = {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_USERNAME": "shop", "KAFKA_PASSWORD": "secret"}
    for name, value in given.items():
        monkeypatch.setenv(name, "" if name == missing else value)
    with pytest.raises(
        SettingsError, match="KAFKA_SECURITY_PROTOCOL=SASL_SSL is for a login: set KAFKA_USERNAME"
    ):
        load_settings()
