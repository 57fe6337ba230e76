"""Every setting, read from the environment and validated once.

The one module that reads environment variables. A setting's variable is its field's name in capitals:
`kafka_topic` is `KAFKA_TOPIC`. A `.env` file in the current folder counts too (`clickstream stack up` writes
the local servers' addresses there); a variable that is really set wins over it.
"""

from datetime import date
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class SettingsError(ValueError):
    """A setting has a value that cannot be used; the message names the variable, the value and the fix."""


class EngineName(StrEnum):
    """Where batch tables are computed."""

    DUCKDB = "duckdb"
    SPARK = "spark"


class Settings(BaseSettings):
    """All settings of the pipeline, the API, the simulator and the local stack."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, env_ignore_empty=True)

    clickstream_home: Path = Field(
        Path(".clickstream"), description="Folder for the local servers' data, the lake and logs."
    )
    jars_path: Path = Field(
        Path("~/.cache/clickstream-assets"),
        description="Folder of the fetched servers and Spark jars; homes and clones share it.",
    )
    java_home: Path | None = Field(
        None, description="Home of a Java 17 or newer (default: the first one that is found)."
    )
    lake_path: str | None = Field(
        None, description="Where the Delta tables are: a folder or s3a://… (default: lake under the home)."
    )

    compute_engine: EngineName | None = Field(
        None, description="duckdb or spark (default: spark where SPARK_MASTER or SPARK_REMOTE is set)."
    )
    spark_master: str | None = Field(None, description="Spark master, such as local[*] or spark://host:7077.")
    spark_remote: str | None = Field(None, description="Spark Connect server, such as sc://host:15002.")
    spark_driver_memory: str = Field("1g", description="Heap of a Spark driver that the pipeline starts.")
    spark_shuffle_partitions: int = Field(
        4, ge=1, description="spark.sql.shuffle.partitions; raise it on a cluster."
    )
    duckdb_memory_limit: str = Field("1GB", description="DuckDB spills to disk beyond this.")
    duckdb_threads: int | None = Field(None, ge=1, description="Threads of DuckDB (default: all cores).")

    kafka_bootstrap_servers: str = Field("127.0.0.1:9092", description="host:port, comma separated.")
    kafka_topic: str = Field("clickstream-events", min_length=1, description="The topic of click events.")
    kafka_topic_partitions: int = Field(3, ge=1, description="Partitions of the topic when we create it.")
    kafka_timeout_seconds: float = Field(10, gt=0, description="How long a broker may take to answer.")
    ingest_batch_records: int = Field(
        250_000, ge=1, description="Records in one commit to raw_events; bounds an ingest's memory."
    )
    ingest_run_records: int = Field(
        5_000_000, ge=1, description="Records that one ingest run takes at most; the next run goes on."
    )
    allow_data_loss: bool = Field(
        False, description="Go on when Kafka has deleted offsets that were never ingested."
    )

    events_start_date: date = Field(
        date(2010, 1, 1), description="First day of the daily partitions; events before it are rejected."
    )
    max_clock_skew_seconds: int = Field(
        3600, ge=0, description="How far an event's time may be ahead of its arrival in Kafka."
    )
    max_event_bytes: int = Field(
        1_000_000, ge=1, description="Larger events are kept in raw_events and rejected."
    )
    session_gap_minutes: int = Field(
        30, ge=1, le=720, description="Inactivity that ends a session, in minutes."
    )
    bot_views_per_minute: int = Field(
        60, ge=1, description="A session with more views than this within some minute is a bot's."
    )

    als_factors: int = Field(64, ge=1, description="Length of the factor vectors.")
    als_iterations: int = Field(15, ge=1, description="Alternating least squares sweeps.")
    als_regularization: float = Field(
        1.0, gt=0, description="L2 penalty on the factors, per interaction of the user or product."
    )
    als_alpha: float = Field(6.0, gt=0, description="Confidence is 1 + alpha * strength / mean strength.")
    model_seed: int = Field(42, ge=0, description="Seed of every random choice in training.")
    evaluation_test_fraction: float = Field(
        0.25, gt=0, lt=1, description="Share of the interactions, the latest, that models are ranked on."
    )
    evaluation_k: int = Field(10, ge=1, description="Length of the ranked lists that are evaluated.")
    recommendations_per_user: int = Field(20, ge=1, le=1000, description="Published rows per user.")

    postgres_host: str = "127.0.0.1"
    postgres_port: int = Field(5432, ge=1, le=65535)
    postgres_user: str = "clickstream"
    postgres_password: SecretStr = SecretStr("")
    postgres_db: str = Field("clickstream", description="Database of the served tables.")
    elasticsearch_url: str = "http://127.0.0.1:9200"

    api_host: str = "127.0.0.1"
    api_port: int = Field(8000, ge=0, le=65535)
    api_workers: int = Field(2, ge=1, description="gunicorn worker processes.")

    sensor_interval_seconds: int = Field(
        2, ge=1, description="Least seconds between two looks of the Kafka sensor."
    )
    refresh_interval_seconds: int = Field(
        0,
        ge=0,
        description="Least seconds between two refreshes of the tables (0: as soon as events are in).",
    )

    simulator_interval: float = Field(0.1, ge=0, description="Seconds between two simulated events.")
    num_users: int = Field(1000, ge=1, description="Shoppers that the simulator knows.")
    num_products: int = Field(100, ge=1, description="Products that the simulator knows.")
    raw_logs_path: Path | None = Field(
        None, description="Folder of the daily clickstream_YYYY-MM-DD.jsonl (default: raw_logs in the home)."
    )

    @field_validator("jars_path", "java_home")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return path.expanduser().absolute() if path else None

    @model_validator(mode="after")
    def _one_spark(self) -> Self:
        if self.spark_master and self.spark_remote:
            raise ValueError("SPARK_MASTER and SPARK_REMOTE are both set; unset one of them")
        return self

    @cached_property
    def engine(self) -> EngineName:
        """The engine to compute with: as set, else Spark where a cluster is named, else DuckDB."""
        if self.compute_engine:
            return self.compute_engine
        return EngineName.SPARK if self.spark_master or self.spark_remote else EngineName.DUCKDB

    @cached_property
    def lake(self) -> str:
        """Root of the lake, without a trailing slash; a local path is absolute."""
        if self.lake_path and "://" in self.lake_path:
            return self.lake_path.rstrip("/")
        return str(Path(self.lake_path or self.clickstream_home / "lake").absolute())

    @cached_property
    def raw_logs(self) -> Path:
        """Folder of the daily JSON lines."""
        return self.raw_logs_path or self.clickstream_home / "raw_logs"

    @cached_property
    def postgres_conninfo(self) -> str:
        """libpq connection string of the served tables' database, password included."""
        from psycopg.conninfo import make_conninfo

        return make_conninfo(
            host=self.postgres_host,
            port=self.postgres_port,
            user=self.postgres_user,
            password=self.postgres_password.get_secret_value() or None,
            dbname=self.postgres_db,
        )


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingsError: naming each variable that cannot be used, its value and what was expected.
    """
    try:
        return Settings()
    except ValidationError as error:
        problems = [
            f"{'_'.join(str(part) for part in problem['loc']).upper() or 'settings'}="
            f"{problem['input']!r}: {problem['msg']}"
            if problem["loc"]
            else problem["msg"]
            for problem in error.errors()
        ]
        raise SettingsError("Unusable settings:\n  " + "\n  ".join(problems)) from None
