"""Clients of Kafka, and what is said when it does not answer or does not let one in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar

from kafka.errors import KafkaError, KafkaTimeoutError

from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.client_private import WatchedClient

C = TypeVar("C")

# Its errors reach the user through ours; it would print each failed attempt to stderr as well.
logging.getLogger("kafka").setLevel(logging.CRITICAL)


@contextmanager
def open_client(
    kind: Callable[..., C], timeout_seconds: float, explain: Callable[[str, bool], Exception], **options: Any
) -> Iterator[C]:
    """Make a client of kafka-python, and close it.

    Args:
        kind: such as `KafkaConsumer`.
        timeout_seconds: how long to wait for the first broker.
        explain: makes the error for one of the client's, from its text and whether a broker refused the login.
        **options: of the client; `Settings.kafka_client_options` are among them.
    """
    connections: list[WatchedClient] = []

    def connect(**config: Any) -> WatchedClient:
        connections.append(WatchedClient(**config))
        return connections[-1]

    try:
        made = kind(**options, bootstrap_timeout_ms=int(timeout_seconds * 1000), kafka_client=connect)
        with closing(made):  # type: ignore[type-var]
            yield made
    except KafkaError as error:
        (connection,) = connections
        # That its time is up says less than why the last attempt failed.
        cause = connection.failure if isinstance(error, KafkaTimeoutError) else None
        raise explain(str(cause or error), connection.refused) from None
    finally:
        # A client that finds no broker leaves its thread running.
        for connection in connections:
            connection.close()


def unreachable_message(settings: Settings, reason: str, refused: bool) -> str:
    """Name the settings that keep a client from Kafka, and the fix."""
    where = f"KAFKA_BOOTSTRAP_SERVERS={settings.kafka_bootstrap_servers}"
    if refused:
        return (
            f"{where} refused KAFKA_USERNAME={settings.kafka_username} with this KAFKA_PASSWORD ({reason}); set "
            f"both to a user of that broker, and KAFKA_SASL_MECHANISM={settings.kafka_sasl_mechanism} to one that it "
            "offers"
        )
    return (
        f"No Kafka broker answered at {where} within {settings.kafka_timeout_seconds:g} s ({reason}); start the local "
        "one with `clickstream stack up`, or set KAFKA_BOOTSTRAP_SERVERS to a broker that runs, and "
        f"KAFKA_SECURITY_PROTOCOL={settings.kafka_security_protocol} to what its listener speaks"
    )
