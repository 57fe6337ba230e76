"""What clients say when Kafka does not answer, or does not let them in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clickstream_assets.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka import KafkaError


class LoginWatch:
    """Remembers that a broker refused the login: librdkafka tells its `error_cb` alone, and goes on trying."""

    def __init__(self) -> None:
        self.refusal: str | None = None

    def __call__(self, error: KafkaError) -> None:
        """Take an error of the client."""
        from confluent_kafka import KafkaError

        if error.code() == KafkaError._AUTHENTICATION:
            self.refusal = error.str()


def unreachable(settings: Settings, reason: str, login: LoginWatch) -> str:
    """Name the settings that keep a client from Kafka, and the fix."""
    where = f"KAFKA_BOOTSTRAP_SERVERS={settings.kafka_bootstrap_servers}"
    if login.refusal:
        return (
            f"{where} refused KAFKA_USERNAME={settings.kafka_username} with this KAFKA_PASSWORD ({login.refusal}); set "
            f"both to a user of that broker, and KAFKA_SASL_MECHANISM={settings.kafka_sasl_mechanism} to one that it "
            "offers"
        )
    return (
        f"No Kafka broker answered at {where} within {settings.kafka_timeout_seconds:g} s ({reason}); start the local "
        "one with `clickstream stack up`, or set KAFKA_BOOTSTRAP_SERVERS to a broker that runs, and "
        f"KAFKA_SECURITY_PROTOCOL={settings.kafka_security_protocol} to what its listener speaks"
    )
