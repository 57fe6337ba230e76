"""Kafka: one broker that is its own controller (KRaft)."""

import shutil
from base64 import urlsafe_b64encode
from pathlib import Path
from uuid import uuid4

from clickstream_assets.local.ports import LOOPBACK, accepts_connections, free_port
from clickstream_assets.local.server import Server, Tools

# Measured on 2 cores: up in 1.4 s instead of 2.1 s. A broker that lives for a demo has no use for C2 and G1.
JVM_OPTIONS = ("-Xshare:auto", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData")
MAX_MESSAGE_BYTES = 10 * 1024 * 1024


class Kafka(Server):
    """The broker."""

    name = "kafka"
    title = "Kafka"

    def __init__(self, home: Path, port: int) -> None:
        super().__init__(home, port)
        self._data = self.folder / "data"

    def prepare(self, tools: Tools) -> None:
        """See the base class."""
        # The controller's port is nobody else's business, so it is a new one at each start.
        self.write("server.properties", self._properties(self._data, free_port()), tools.identity)
        if self._data.exists():
            return
        partial = self._data.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        formatting = self.write("format.properties", self._properties(partial, free_port()), tools.identity)
        cluster_id = urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")
        arguments = ("format", f"--cluster-id={cluster_id}", f"--config={formatting}")
        self.initialise(
            self._data, _java(tools, "256m", "kafka.tools.StorageTool", *arguments), tools.identity
        )
        formatting.unlink()

    def command(self, tools: Tools) -> list[str]:
        """See the base class."""
        return _java(tools, "512m", "kafka.Kafka", "server.properties")

    def problem(self) -> str | None:
        """See the base class."""
        if not accepts_connections(self.port):
            return f"nothing answers on port {self.port} yet"
        from kafka import KafkaAdminClient

        from clickstream_assets.stores.kafka.client import open_client

        try:
            with open_client(
                KafkaAdminClient,
                timeout_seconds=5,
                explain=lambda reason, _: ConnectionError(reason),
                bootstrap_servers=f"{LOOPBACK}:{self.port}",
            ):
                # It is made once a broker has registered.
                return None
        except ConnectionError as error:
            return f"it does not answer: {error}"

    def _properties(self, data: Path, controller_port: int) -> str:
        properties = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "listeners": f"PLAINTEXT://{LOOPBACK}:{self.port},CONTROLLER://{LOOPBACK}:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{self.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            # A static quorum: a dynamic one keeps the controller's port in its data, and ours changes.
            "controller.quorum.voters": f"1@{LOOPBACK}:{controller_port}",
            "log.dirs": data,
            "auto.create.topics.enable": "false",
            # A topic is the source of everything else, and a shop may replay it from its first day.
            "log.retention.ms": -1,
            "message.max.bytes": MAX_MESSAGE_BYTES,
            "replica.fetch.max.bytes": MAX_MESSAGE_BYTES,
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "share.coordinator.state.topic.num.partitions": 1,
            # Waiting for more members is for groups of many; a lone consumer would only wait (3 s).
            "group.initial.rebalance.delay.ms": 0,
            # A broker that was killed may only come back when its session has ended: 9 s by default.
            "broker.session.timeout.ms": 3000,
            "broker.heartbeat.interval.ms": 500,
            # The default, 128 MB, is a quarter of the heap.
            "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        }
        return "".join(f"{key}={value}\n" for key, value in properties.items())


def _java(tools: Tools, heap: str, main_class: str, *arguments: str) -> list[str]:
    return [
        str(tools.java),
        f"-Xmx{heap}",
        *JVM_OPTIONS,
        # Log4j's own default is errors alone; what it says goes to the console, and so to our log.
        "-Dlog4j2.level=INFO",
        # Log4j would stop at SIGTERM at once, and say nothing of how the broker ended.
        "-Dlog4j2.shutdownHookEnabled=false",
        *("-cp", tools.kafka_classpath),
        main_class,
        *arguments,
    ]
