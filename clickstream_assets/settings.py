"""Every setting, read from the environment and validated once.

The one module that reads environment variables. A setting's variable is its field's name in capitals:
`kafka_topic` is `KAFKA_TOPIC`. A `.env` file in the current folder counts too (`clickstream stack up` writes
the local servers' addresses there); a variable that is really set wins over it. A secret may be in a file instead,
whose path is `NAME_FILE`.
"""

import os
import re
from base64 import b64decode
from collections.abc import Container, Iterable, Mapping
from datetime import date, timedelta
from email.errors import HeaderParseError
from email.headerregistry import Address
from enum import StrEnum
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self, TypeVar, cast, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as UnreadableValueError

from clickstream_assets.errors import ClickstreamError
from clickstream_assets.keys import Key, parse_keys
from clickstream_assets.silences import Silence, parse_silences

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class SettingsError(ClickstreamError):
    """A setting has a value that cannot be used; the message names the variable, the value and the fix."""


Kind = TypeVar("Kind", bound="DatabaseSettings")


class EngineName(StrEnum):
    """The engine that batch tables are computed with."""

    DUCKDB = "duckdb"
    SPARK = "spark"


class EventDialect(StrEnum):
    """The tracker whose events records are in."""

    AUTO = "auto"
    OWN = "own"
    SEGMENT = "segment"
    GA4 = "ga4"
    SHOPIFY = "shopify"
    SNOWPLOW = "snowplow"
    DATAGEN = "datagen"


class MailEncryption(StrEnum):
    """Encryption of the connection to the mail server."""

    STARTTLS = "starttls"
    SSL = "ssl"
    NONE = "none"


class KafkaSecurity(StrEnum):
    """Protocol of a broker's listener: encrypted or not, with a login or without."""

    PLAINTEXT = "PLAINTEXT"
    SSL = "SSL"
    SASL_PLAINTEXT = "SASL_PLAINTEXT"
    SASL_SSL = "SASL_SSL"


class SaslMechanism(StrEnum):
    """Mechanism by which a client logs in to a broker."""

    PLAIN = "PLAIN"
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    SCRAM_SHA_512 = "SCRAM-SHA-512"


_INTERVAL_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(millisecond|second|minute|hour|day|week)s?")


def _interval(value: Any) -> Any:
    """Read an interval as Spark writes it, such as `10 minutes` or `1 hour 30 minutes`."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower().removeprefix("interval ").strip()
    parts = _INTERVAL_PART.findall(text)
    if not parts or _INTERVAL_PART.sub("", text).strip():
        raise ValueError("expected an interval such as '10 minutes' or '1 hour 30 minutes'")
    return sum((timedelta(**{f"{unit}s": float(count)}) for count, unit in parts), timedelta())


Interval = Annotated[timedelta, BeforeValidator(_interval)]


class SecretFiles(PydanticBaseSettingsSource):
    """Secrets in files: NAME_FILE is the path of what NAME would be, as Docker and Kubernetes mount it.

    pydantic-settings' own source takes files of one folder by their names, and passes over one that is missing.

    Args:
        kind: the settings.
        variables: where NAME_FILE may be set; what comes before these wins over it.
    """

    def __init__(self, kind: type[BaseSettings], variables: PydanticBaseSettingsSource) -> None:
        super().__init__(kind)
        self._variables = cast(EnvSettingsSource, variables).env_vars

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[str | None, str, bool]:
        """Return a secret, where it is in a file.

        Raises:
            ValueError: the file has none, or there are two; the message names them, and no secret.
        """
        variable = f"{field_name}_file"
        path = self._variables.get(variable)
        if path is None or not _is_secret(field):
            return None, field_name, False
        name, given = field_name.upper(), f"{variable.upper()}={path}"
        if self._variables.get(field_name) is not None:
            raise ValueError(f"{name} and {given} are both set; unset one of them")
        if field_name in self.current_state:
            return None, field_name, False
        try:
            secret = Path(path).expanduser().read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(
                f"{given} cannot be read ({error.strerror}); name the file that {name} is in"
            ) from None
        except UnicodeDecodeError:
            # Without what it says: that has bytes of the secret.
            raise ValueError(f"{given} is not text in UTF-8; write {name} there as text") from None
        secret = secret.removesuffix("\n").removesuffix("\r")
        if not secret:
            raise ValueError(f"{given} is empty; write {name} into it, or unset it")
        return secret, field_name, False

    def __call__(self) -> dict[str, str]:
        """Return all secrets that are in files.

        Raises:
            SettingsError: naming each that cannot be used.
        """
        secrets: dict[str, str] = {}
        problems = []
        for name, field in self.settings_cls.model_fields.items():
            try:
                secret, *_ = self.get_field_value(field, name)
            except ValueError as error:
                problems.append(str(error))
            else:
                if secret is not None:
                    secrets[name] = secret
        if problems:
            raise _unusable(problems)
        return secrets


class DatabaseRole(StrEnum):
    """A role in PostgreSQL; its value is what the names of its settings begin with."""

    OWNER = "postgres"
    API = "postgres_api"
    PIPELINE = "postgres_pipeline"
    DAGSTER = "dagster_postgres"


class Login(NamedTuple):
    """The login of a role."""

    role: DatabaseRole
    user: str
    password: SecretStr

    @property
    def setting(self) -> str:
        """Beginning of the names of its settings: POSTGRES_API has POSTGRES_API_USER and POSTGRES_API_PASSWORD."""
        return self.role.upper()


class DatabaseSettings(BaseSettings):
    """Settings of PostgreSQL: all that Dagster's storage needs, and its web server and daemon are given of secrets."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", frozen=True, env_ignore_empty=True, use_attribute_docstrings=True
    )

    postgres_host: str = "127.0.0.1"
    """Host of the PostgreSQL server."""
    postgres_port: int = Field(5432, ge=1, le=65535)
    """Its port."""
    postgres_user: str = "clickstream"
    """Owner of the served tables, whom `clickstream prepare` is; all others are too, unless roles are named below."""
    postgres_password: SecretStr = SecretStr("")
    """That user's password."""
    postgres_api_user: str | None = None
    """Role that the API connects as, and which reads the served tables alone; `clickstream prepare` makes it (default:
    POSTGRES_USER).
    """
    postgres_api_password: SecretStr = SecretStr("")
    """That role's password."""
    postgres_pipeline_user: str | None = None
    """Role that runs and the streams connect as, and which changes rows and no tables; `clickstream prepare` makes it
    (default: POSTGRES_USER).
    """
    postgres_pipeline_password: SecretStr = SecretStr("")
    """That role's password."""
    postgres_db: str = "clickstream"
    """Database of the served tables."""
    dagster_postgres_db: str = "dagster"
    """Database of Dagster's runs, events and schedules, another one on the same server."""
    dagster_postgres_user: str | None = None
    """Role that Dagster connects as, owner of that database and without rights on the served tables; `clickstream
    prepare` makes it (default: POSTGRES_USER).
    """
    dagster_postgres_password: SecretStr = SecretStr("")
    """That role's password."""
    postgres_timeout_seconds: float = Field(10, ge=2)
    """Seconds that the server may take to let a connection in, and to give a sign of life while it carries a
    statement out. A statement may take longer, and wait for locks, as long as the server answers a new connection.
    """
    migration_lock_seconds: float = Field(10, ge=0.1)
    """Seconds that a migration of the tables waits for one that somebody reads or writes, before it ends and has
    changed nothing: whoever wants that table meanwhile waits behind it.
    """

    @model_validator(mode="after")
    def _roles_are_different(self) -> Self:
        users: dict[str, str] = {}
        for role in DatabaseRole:
            user = getattr(self, f"{role}_user")
            if user in users:
                raise ValueError(
                    f"{role.upper()}_USER={user} is {users[user]} too, and would have its rights; name another role"
                )
            if user is not None:
                users[user] = f"{role.upper()}_USER"
        return self

    def login(self, role: DatabaseRole) -> Login:
        """Return what a role logs in with: its own, or the owner's where it has none."""
        user = getattr(self, f"{role}_user")
        if user is None:
            return self.login(DatabaseRole.OWNER)
        return Login(role, user, getattr(self, f"{role}_password"))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where settings come from, the first of which wins."""
        from_files = (SecretFiles(settings_cls, variables) for variables in (env_settings, dotenv_settings))
        of_environment, of_file = from_files
        return init_settings, env_settings, of_environment, dotenv_settings, of_file


class Settings(DatabaseSettings):
    """All settings of the pipeline, the API, the simulator and the local stack."""

    clickstream_home: Path = Path(".clickstream")
    """Folder for the local servers' data, the lake and logs."""
    jars_path: Path = Path("~/.cache/clickstream-assets")
    """Folder of the fetched servers and Spark jars; homes and clones share it."""
    java_home: Path | None = None
    """Home of a Java 17 or newer (default: the first one that is found)."""
    lake_path: str | None = None
    """Folder or s3a://… of the Delta tables (default: lake under the home)."""

    lake_retention_days: int = Field(7, ge=1)
    """Days that files of the lake are kept after a table's newest version has no use for them: longer than any run
    or query reads.
    """
    raw_retention_days: int = Field(0, ge=0)
    """Days after which the bytes of a record are deleted from `raw_events`, `raw_products` and `raw_exposures`; its row
    stays, and counts; 0 keeps all. From what has no bytes no table can be made again: neither by other rules, nor when
    the lake is put back to an earlier time.
    """
    rejected_retention_days: int = Field(0, ge=0)
    """Days after which what a rejected record said is deleted from `rejected_events`, `rejected_products` and
    `rejected_exposures`; its row stays, and counts; 0 keeps all. It can be neither shown nor sent again after that.
    """
    rejected_samples: int = Field(3, ge=0, le=100)
    """Rejected records of each day, rule and field that `GET /api/rejected/samples` and the page of data show, for 14
    days, each with the value that breaks the rule: what a sender put there, which can be of a person; 0 shows none.
    """
    backup_retention_days: int | None = Field(None, ge=1)
    """Days that whoever makes backups keeps them. The receipt of an erasure says by it until when a person is in them
    (default: nobody has said it).
    """
    served_persons_retention_days: int = Field(0, ge=0)
    """Days up to today of which PostgreSQL, and so the API, has persons' sessions, carts and daily segments; 0 keeps
    all. The lake has them on, and a run that a person starts publishes days again that a longer time lets in.
    """
    runs_retention_days: int = Field(30, ge=0)
    """Days that Dagster's runs are kept, with their events and logs; 0 keeps all. The last one that made an asset, or a
    day of one, always stays, and the last that succeeded of each job.
    """
    # At a refresh each half minute, a day of runs is up to 3.5 GB.
    succeeded_runs_retention_days: int = Field(3, ge=0)
    """Days instead, of runs that have succeeded, and of what checks found; 0 is RUNS_RETENTION_DAYS. Gone are the run's
    page and its figures in an asset's history.
    """

    compute_engine: EngineName | None = None
    """duckdb or spark (default: spark where SPARK_MASTER or SPARK_REMOTE is set)."""
    spark_master: str | None = None
    """Spark master, such as local[*] or spark://host:7077."""
    spark_remote: str | None = None
    """Spark Connect server, such as sc://host:15002."""
    spark_secret: SecretStr | None = None
    """Secret that the processes of a standalone cluster, ours among them, prove to each other that they know, and
    encrypt by what they say; the master and the workers have the same (default: whoever reaches the master can run
    programs).
    """
    spark_driver_memory: str = "1g"
    """Heap of a Spark driver that the pipeline starts."""
    spark_driver_host: str = "127.0.0.1"
    """Name by which a cluster's executors reach the driver; not for local[*]."""
    spark_driver_bind_address: str | None = None
    """Address that the driver listens on (default: SPARK_DRIVER_HOST)."""
    spark_executor_memory: str = "1g"
    """Heap of each executor of a cluster."""
    spark_cores_max: int | None = Field(None, ge=1)
    """Cores that a run takes of a standalone cluster (default: all that are free; the next run waits)."""
    spark_config: dict[str, str] = {}
    """Further Spark configuration, a JSON object; it wins over the pipeline's. A Connect server has its own."""
    spark_shuffle_partitions: int = Field(4, ge=1)
    """spark.sql.shuffle.partitions; raise it on a cluster."""
    duckdb_memory_limit: str = "1GB"
    """DuckDB spills to disk beyond this."""
    duckdb_threads: int | None = Field(None, ge=1)
    """Threads of DuckDB (default: all cores)."""

    kafka_bootstrap_servers: str = "127.0.0.1:9092"
    """host:port, comma separated."""
    kafka_security_protocol: KafkaSecurity = KafkaSecurity.PLAINTEXT
    """PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL, as the listener speaks."""
    kafka_sasl_mechanism: SaslMechanism = SaslMechanism.SCRAM_SHA_512
    """PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; for SASL_…."""
    kafka_username: str | None = None
    """User to log in with; for SASL_…."""
    kafka_password: SecretStr | None = None
    """That user's password."""
    kafka_ca_file: Path | None = None
    """PEM file of the authorities that the brokers' certificates are checked by; for SSL and SASL_SSL (default: the
    system's). On a Spark cluster each executor needs it at this path.
    """
    kafka_topic: str = "clickstream-events"
    """The topic of click events, or several, separated by commas; after a topic's name and `=` the dialect of its
    records, as EVENT_DIALECT names them: clickstream-events,web=segment,app=ga4. All are read, and the simulator,
    `clickstream replay` and others of ours send to the first.
    """
    kafka_products_topic: str | None = None
    """A topic of what the shop sells: records keyed by product, of the fields that `clickstream catalogue` reads; one
    without a value withdraws the product. No topic of KAFKA_TOPIC (default: none is read).
    """
    kafka_exposures_topic: str | None = None
    """A topic to which the API writes whom it has shown which products in an experiment; EXPERIMENTS needs it. No topic
    of KAFKA_TOPIC (default: none).
    """
    kafka_topic_partitions: int = Field(3, ge=1)
    """Partitions of a topic when we create it."""
    kafka_timeout_seconds: float = Field(10, gt=0)
    """Seconds that a broker may take to answer."""
    ingest_batch_records: int | None = Field(None, ge=1)
    """Records in one commit to raw_events; bounds an ingest's memory (default: 300,000, and on Spark, which spills,
    and where every commit is many jobs, 2,500,000).
    """
    ingest_batch_bytes: int = Field(256_000_000, ge=1)
    """Bytes after which a commit to raw_events takes no more records: bounds memory where those are large. Spark
    holds no batch in memory, and does not need it.
    """
    ingest_run_records: int = Field(5_000_000, ge=1)
    """Records that one ingest run takes at most; the next run goes on."""
    allow_data_loss: bool = False
    """Go on when Kafka has deleted offsets that were never ingested."""

    events_start_date: date | None = None
    """First day of the daily partitions; events before it are rejected. Dagster and the streams read it when they start
    (default: 1 January of the year before the first ingest, kept with the lake from then on, as is an earlier day that
    is set).
    """
    shop_time_zone: str = "UTC"
    """Time zone of the shop, such as Europe/Berlin. Times without an offset are in it, and days begin and end at its
    midnights. A lake keeps the zone that it was begun with.
    """
    pseudonyms: bool = False
    """Keep a random pseudonym in place of each user id, anonymous id and session id: in the lake, in PostgreSQL, whose
    table `pseudonyms` alone has both, and in Elasticsearch. User agents, records' bytes and values of fields that
    cannot be read are not kept at all. A lake keeps the choice that it was begun with.
    """
    shop_currency: str | None = None
    """Currency of the shop's figures, such as EUR, and of amounts that name none (default: that of the first purchase
    that names one, kept with the lake).
    """
    exchange_rates: Path | None = None
    """CSV file of date, currency, rate: units of the shop's currency per unit of that one, from that day on. Amounts in
    a currency without a rate are kept apart and counted, never added. Days whose rates change are computed again.
    """
    max_clock_skew_seconds: int = Field(3600, ge=0)
    """Seconds by which an event's time may be ahead of its arrival in Kafka."""
    max_event_age_days: int | None = Field(None, ge=1)
    """Days by which an event's time may be before its arrival in Kafka. Unset: any, as for history that is replayed."""
    event_id_days: int = Field(2, ge=1, le=366)
    """Days by which two events of one id, or two that repeat an order line, are apart at most. Further apart they are
    two events; so far does an ingest look for repetitions."""
    max_event_bytes: int = Field(1_000_000, ge=1)
    """Larger events are kept in raw_events and rejected."""
    id_placeholders: str = (
        "null, none, nan, undefined, (not set), [object Object], 00000000-0000-0000-0000-000000000000, "
        "user_id=0, user_id=-1, order_id=0, order_id=-1"
    )
    """Words that senders write for an id that they do not have, in any case, separated by commas: in every field that
    is an id, or after a field's name and `=` in that field alone.
    """
    decimal_comma: bool = False
    """Prices and quantities that are sent as text have a comma before their fraction, and dots between thousands, as in
    1.299,50. False: the other way round. JSON's own numbers always have a dot.
    """
    event_dialect: EventDialect = EventDialect.AUTO
    """Dialect of the records of topics that KAFKA_TOPIC names without one: own, segment (RudderStack's and PostHog's
    events too), ga4 (the export to BigQuery), shopify (the web pixel), snowplow (enriched events, as JSON or TSV) or
    datagen (the shoe shop of Confluent's connector). auto: each record's own, told by its shape.
    """
    identity_lookback_days: int = Field(30, ge=0)
    """Days before an anonymous id first came with a user id in which its events are that user's."""
    identity_max_users: int = Field(10, ge=1)
    """An anonymous id that came with more users than this is a shared device's: it ties nobody."""
    session_gap_minutes: int = Field(30, ge=1, le=720)
    """Inactivity that ends a session, in minutes."""
    session_cut_at_midnight: bool = False
    """End a session that goes on at midnight (of SHOP_TIME_ZONE) there, and begin a new one."""
    session_cut_at_campaign: bool = False
    """Begin a new session at a campaign other than the visit's last one."""
    bot_views_per_minute: int = Field(60, ge=1)
    """A session with more views than this within some minute is a bot's."""

    funnel_window_minutes: int = Field(60, ge=1, le=720)
    """Minutes from a view to the purchase that the funnel counts as one way, at most."""
    cart_abandoned_after_hours: int = Field(24, ge=1)
    """Hours without activity after which a cart counts as abandoned."""
    cart_lifetime_days: int = Field(30, ge=1)
    """Days without activity after which what is put into a cart opens a new one."""
    rfm_days: int = Field(365, ge=1)
    """Days of purchases that customers' RFM scores look back on."""
    attribution_days: int = Field(30, ge=1)
    """Days before a purchase in which a campaign has a part in it."""

    # A season: taste and assortment change, and what a training takes of memory grows with its days.
    training_days: int = Field(90, ge=1)
    """Days up to the newest with events that models are trained and judged on."""
    train_after_share: float = Field(0.1, ge=0)
    """Models are trained again when so much is new: a share of the interactions that they were trained on, each a
    person and a product that met on a day. 0 trains after every refresh.
    """
    # What is trained once a day is done before FRESHNESS_MODELS_HOURS warns, at nine tenths of its time.
    train_max_age_hours: float = Field(22, gt=0)
    """Hours after a training at which anything new, however little, is reason enough for the next."""
    als_factors: int = Field(64, ge=1)
    """Length of the factor vectors of ALS."""
    als_iterations: int = Field(15, ge=1)
    """Alternating least squares sweeps."""
    als_regularization: float = Field(1.0, gt=0)
    """L2 penalty on the factors, per interaction of the user or product."""
    als_alpha: float = Field(6.0, gt=0)
    """Confidence is 1 + alpha * strength / mean strength."""
    ease_products: int = Field(5000, ge=1)
    """Most products that EASE learns, those that most speaks for: 12 bytes of memory for each pair of them."""
    ease_regularization: float = Field(20.0, gt=0)
    """L2 penalty on EASE's weights, as a multiple of what a product's interactions come to on average."""
    ease_share: float = Field(0.5, ge=0, le=1)
    """Share of EASE in `blend`; the rest is that of ALS."""
    category_weight: float = Field(0.3, ge=0)
    """Weight of what is popular in the shopper's categories, in `blend` and `item_knn`; 1 is as much as all else."""
    trend_days: int = Field(30, ge=1)
    """Days up to the newest interaction that a product's trend is of."""
    trend_exponent: float = Field(0.5, ge=0)
    """Scores of `blend` are multiplied by trend ^ this: its share of recent interactions divided by that of all."""
    taste_half_life_days: float = Field(120, ge=0)
    """Days after which an interaction says half as much of taste; 0 for ever as much."""
    # Strengths have three decimals.
    view_weight: float = Field(1, ge=0.001)
    """What a view or click says of taste."""
    add_to_cart_weight: float = Field(4, ge=0.001)
    """What an addition to the cart says of taste."""
    purchase_weight: float = Field(10, ge=0.001)
    """What a purchase says of taste."""
    search_days: int = Field(7, ge=0)
    """Days between two searches for better values of ALS_FACTORS to TASTE_HALF_LIFE_DAYS, which begin from these; 0
    never searches.
    """
    search_trials: int = Field(6, ge=0)
    """Settings of ALS that a search tries."""
    model_seed: int = Field(42, ge=0)
    """Seed of every random choice in training."""
    evaluation_test_fraction: float = Field(0.25, gt=0, lt=1)
    """Share of the interactions, the latest, that models are ranked on."""
    evaluation_k: int = Field(10, ge=1)
    """Length of the ranked lists that are evaluated."""
    evaluation_persons: int = Field(10_000, ge=100)
    """Persons with a history that a training judges models on at most, a sample by a hash of their ids; `clickstream
    evaluate` judges on all.
    """
    recommendations_per_user: int = Field(20, ge=1, le=1000)
    """Published rows per user."""
    next_product_sessions: int = Field(100_000, ge=1, le=1_000_000)
    """Sessions, the newest, in which the model of the next product looks for neighbours. Each API process holds it:
    about 50 bytes a session and product of it.
    """
    recent_minutes: int = Field(1440, ge=1)
    """Minutes for which the products that a visitor met count as recent: the next product is foretold from them."""
    recent_events: int = Field(100_000, ge=0)
    """Product events, the newest, that each API process keeps of all visitors to recommend by, read from Kafka; each
    takes about 500 bytes. 0: what visitors did since the last training does not count.
    """
    experiments: Path | None = None
    """TOML file of experiments on recommendations; docs/experiments.md says what it has. The API reads it when it
    starts, Dagster at each look at their results (default: no experiments).
    """
    experiment_results_minutes: float = Field(60, ge=0)
    """Least minutes between two looks at the results of experiments, while there is something new."""

    window_duration: Interval = Field(timedelta(minutes=10), gt=timedelta(0))
    """Length of a window, such as 10 minutes."""
    slide_duration: Interval = Field(timedelta(minutes=5), gt=timedelta(0))
    """A window starts this often; at most its length."""
    watermark_delay: Interval = Field(timedelta(minutes=10), ge=timedelta(0))
    """Time by which an event may come later than the latest event and still count in the stream."""
    views_threshold: int = Field(100, ge=0)
    """A flash-sale alert needs more views in a window."""
    purchases_threshold: int = Field(5, ge=1)
    """A flash-sale alert needs fewer purchases."""
    alert_cooldown_minutes: float = Field(30, ge=0)
    """Minutes after an alert's last window in which a further window belongs to the same alert."""
    stream_trigger_seconds: float = Field(2, gt=0)
    """Seconds between two micro-batches of `clickstream stream`."""
    stream_batch_records: int = Field(200_000, ge=1)
    """Most records in one micro-batch."""
    stream_shuffle_partitions: int = Field(1, ge=1)
    """State partitions of the streams; fixed by their checkpoint. Raise on a cluster."""
    stream_cores_max: int = Field(2, ge=1)
    """Cores that the streams take of a standalone cluster; the rest is for runs."""
    stream_idle_seconds: float = Field(300, ge=0)
    """Without a record for so long, windows that are that much over, and WATERMARK_DELAY, are closed, and their
    alerts resolved; 0 leaves them open until later events come.
    """
    stream_check_seconds: int = Field(900, ge=1)
    """Least seconds between two runs of the checks of streamed tables while `clickstream stream` runs."""
    stream_lake_seconds: float = Field(60, ge=0)
    """Least seconds between two updates of the lake's copies of streamed tables."""
    stream_report_seconds: float = Field(60, gt=0)
    """Seconds between two reports of `clickstream stream` to Dagster."""
    stream_heartbeat_path: Path | None = None
    """A file that `clickstream stream` touches while it is alive: a minute without means that it hangs (default:
    none).
    """
    stream_sensor_seconds: int = Field(20, ge=1)
    """Least seconds between two looks of the sensor that runs the streams."""
    checkpoint_path: str | None = None
    """Folder or s3a://… in which the streams keep their state (default: in the home)."""
    dagster_home: Path | None = None
    """Dagster's instance, which the streams report to."""

    elasticsearch_url: str = "http://127.0.0.1:9200"
    """http(s)://host:port of the server."""
    elasticsearch_api_key: SecretStr | None = None
    """Key for a server that asks for one."""
    elasticsearch_ca_file: Path | None = None
    """PEM file of the authorities that the server's certificate is checked by; for https (default: the public ones).
    On a Spark cluster each executor needs it at this path.
    """
    # Without a hyphen: the indices of alias-2024.05.31 must not look like those of a shorter alias.
    elasticsearch_alias: str = Field("clickstream_data", pattern="^[a-z0-9][a-z0-9_]*$")
    """Alias of the live events; their indices are called alias-YYYY.MM.DD."""
    elasticsearch_alerts_index: str = Field("clickstream_alerts", pattern="^[a-z0-9][a-z0-9_]*$")
    """Index of the flash-sale alerts, a copy of the table: one of its own for each POSTGRES_DB."""
    elasticsearch_shards: int = Field(1, ge=1)
    """Shards of each day's index."""
    elasticsearch_replicas: int = Field(0, ge=0)
    """Copies of each shard; 1 on a cluster."""
    elasticsearch_patience_seconds: float = Field(60, ge=0)
    """Seconds that the stream waits for a server that is away or busy before it starts anew."""
    live_events_retention_days: int = Field(30, ge=0)
    """Days of live events that are kept before the newest; 0 keeps all. Each is an index; a node bears 1,000."""

    # A season. Alerts look back a day and the checks two; what is older comes back from the lake's events.
    windows_retention_days: int = Field(90, ge=0)
    """Days of event time that windows are kept; 0 keeps all. The newest 3 always stay, and those that an alert
    rests on. `clickstream stream --rebuild` brings deleted ones back.
    """
    notifications_retention_days: int = Field(90, ge=0)
    """Days that alerts' notifications are kept after they were delivered or given up; 0 keeps all."""
    alert_webhook_url: SecretStr | None = None
    """Address that alerts are posted to as JSON (default: none)."""
    alert_webhook_secret: SecretStr | None = None
    """Key that posted alerts are signed with, as Standard Webhooks has it: whsec_ and 24 to 64 bytes in base64
    (default: not signed).
    """
    alert_webhook_timeout_seconds: float = Field(5, gt=0)
    """Seconds that a receiver may take, of alerts or of incidents."""
    alert_delivery_attempts: int = Field(12, ge=1)
    """Attempts, ever further apart, after which a notification has failed."""

    smtp_host: str | None = None
    """Mail server for the daily report and for incidents (default: no mail)."""
    smtp_port: int | None = Field(None, ge=1, le=65535)
    """Its port (default: 587 for starttls, 465 for ssl, 25 for none)."""
    smtp_user: str | None = None
    """User to log in with (default: no login)."""
    smtp_password: SecretStr = SecretStr("")
    """That user's password."""
    smtp_tls: MailEncryption = MailEncryption.STARTTLS
    """starttls, ssl or none."""
    report_from: str | None = None
    """Sender address of the daily report."""
    report_to: str = ""
    """Recipients of the daily report, comma separated; they may be left out where mail is for INCIDENT_TO alone."""

    incident_to: str = ""
    """Mail addresses that are told of incidents, comma separated (default: none)."""
    incident_from: str | None = None
    """Sender address of these mails (default: REPORT_FROM)."""
    incident_webhook_urls: SecretStr | None = None
    """Addresses that incidents are posted to as JSON, comma separated: incoming webhooks of Slack or Mattermost, which
    read its `text`, and any other receiver (default: none).
    """
    incident_webhook_secret: SecretStr | None = None
    """Key that posted incidents are signed with, of the form of ALERT_WEBHOOK_SECRET (default: not signed)."""
    incident_silences: str = ""
    """Incidents that nobody is told of, comma separated: KIND, KIND:SUBJECT, or either with @22:00-07:00 (every day) or
    @2026-12-24T18:00/2026-12-27T08:00 (once). KIND is run_failed, check_failed, sensor_failed, asset_overdue,
    stream_down or *; SUBJECT a job, asset, asset/check, sensor or query, in which * stands for any text. What is
    still open when a silence ends is told then.
    """
    incident_time_zone: str = "UTC"
    """Time zone of the times in INCIDENT_SILENCES and in messages, such as Europe/Berlin."""
    incident_after_seconds: float = Field(30, ge=0)
    """Seconds that something has to be wrong, or right again, before anybody is told."""
    incident_pause_seconds: float = Field(60, ge=0)
    """Least seconds between two messages to the same address; what happens meanwhile goes into one."""
    incident_sensor_seconds: int = Field(15, ge=1)
    """Least seconds between two looks of the sensor that finds incidents."""
    dagster_url: str | None = Field(None, pattern="^https?://")
    """Address of Dagster's pages, for the links in messages and on the page of data (default: none, and messages have
    the part of it that comes after the server; `clickstream demo` has its own).
    """

    api_host: str = "127.0.0.1"
    """Address that the API listens on."""
    api_port: int = Field(8000, ge=0, le=65535)
    """Its port; 0 takes a free one."""
    picture_hosts: str = Field("", pattern=r"^(https?://[^\s;,]+(,https?://[^\s;,]+)*)?$")
    """Where pictures of products are that pages may show, such as https://pictures.shop.example, with commas between.
    Pages load nothing from elsewhere, so without it there are none; `clickstream demo` names that of its shop.
    """
    api_workers: int = Field(2, ge=1)
    """Worker processes. Each answers 16 requests at once, and others wait for their turn; requests with events need no
    turn.
    """
    api_connections: int = Field(500, ge=1)
    """Connections that a worker process holds open. A further one takes the place of the one that has been idle or slow
    for longest. As many files, and 100, must be allowed (`ulimit -n`).
    """
    api_request_seconds: float = Field(10, gt=0)
    """Seconds within which a request must have come in whole; then its connection is closed."""
    api_idle_seconds: int = Field(75, ge=1)
    """Seconds after which a connection without a request is closed, and one whose client does not take its answer.
    Longer than those of a load balancer in front.
    """
    api_keys: SecretStr | None = None
    """Keys of the API, comma separated, each NAME:SCOPES:SHA256, as `clickstream keys new` prints them: what the key
    may do, with + between several (read, personal, collect, admin), and the hash of the key, not the key. With any,
    reading asks for one (default: none, everybody may read, and no events are taken; that only on an address of this
    machine alone, or with API_BEHIND_LOGIN).
    """
    api_behind_login: bool = False
    """Whoever reaches the API has been let in by something in front of it, as a proxy that asks for a login, so it
    needs no API_KEYS on an address that other machines reach.
    """
    api_metrics_open: bool = False
    """Answer /metrics without a key even where API_KEYS is set."""
    api_rate_limit: float | None = Field(None, gt=0)
    """Requests that a client may make in a second, all worker processes together: one of a key, or of an address. For
    more the answer is 429. Events have COLLECTOR_RATE_LIMIT (default: any number).
    """
    api_trusted_proxies: str = ""
    """Addresses or networks of proxies before the API, comma separated, such as 10.0.0.0/8: what they say in
    X-Forwarded-For and X-Forwarded-Proto is believed (default: none, and each client has the address that it connects
    from).
    """
    login_hours: float = Field(12, gt=0)
    """Hours that a login to the pages lasts."""
    session_secret: SecretStr | None = None
    """What logins are signed with, 32 characters or more; `openssl rand -hex 32` makes one. Several servers behind one
    address need the same (default: a new one at each start, which ends all logins).
    """
    dagster_port: int = Field(3000, ge=0, le=65535)
    """Port of Dagster's UI in `clickstream demo`; 0 takes a free one. `dagster dev` and `dg dev` have --port."""

    collector_allowed_origins: str = ""
    """Origins whose pages may send events and read the answer, comma separated, such as https://shop.example; * is any
    (default: none; pages of the API's own address may).
    """
    collector_rate_limit: float | None = Field(None, gt=0)
    """Events that are taken in a second of each key, all worker processes together; for more the answer is 429
    (default: any number).
    """
    collector_max_bytes: int = Field(1_000_000, ge=1, le=32_000_000)
    """Most bytes of a request's body, as it comes and unpacked."""
    collector_max_events: int = Field(1000, ge=1)
    """Most events of a request."""
    collector_clock_tolerance_seconds: int = Field(300, ge=60)
    """Seconds by which `sentAt` may differ from the arrival before it is a wrong clock, and the times of these events
    are corrected.
    """

    sensor_interval_seconds: float = Field(0.5, ge=0.1)
    """Least seconds between two looks of the sensors at Kafka and at what runs have done."""
    refresh_interval_seconds: int = Field(0, ge=0)
    """Least seconds between two refreshes of the tables (0: as soon as events are in)."""

    # Dagster takes no window of less than a minute, and it warns at nine tenths of one.
    freshness_ingest_minutes: float = Field(15, ge=2)
    """Minutes after which Dagster calls what comes straight from Kafka overdue: records, events, windows and alerts.
    Raise it, and the next, for a shop where nobody does anything for longer.
    """
    freshness_tables_minutes: float = Field(60, ge=2)
    """Minutes after which the tables of days and shoppers, and what is published of them, are overdue."""
    freshness_models_hours: float = Field(26, ge=0.1)
    """Hours after which models, recommendations, the daily report and its mail are overdue."""
    code_url: str | None = Field(None, pattern="^https?://[^?#]+$")
    """Address of this code in its repository, which Dagster's assets link to, such as
    https://github.com/you/clickstream_assets/blob/main (default: the files themselves, in a checkout; else no links).
    """

    simulator_interval: float = Field(0.1, ge=0)
    """Seconds between two simulated events."""
    num_users: int = Field(1000, ge=1)
    """Shoppers that the simulator knows."""
    num_products: int = Field(100, ge=1)
    """Products that the simulator knows."""
    raw_logs_path: Path | None = None
    """Folder of the daily clickstream_YYYY-MM-DD.jsonl (default: raw_logs in the home)."""
    raw_logs_retention_days: int = Field(0, ge=0)
    """Days after which such a file is deleted, once nothing was written to it for so long; 0 keeps all. What is in it
    is in Kafka, and in the lake, unless it was written alone.
    """

    @field_validator("jars_path", "java_home", "kafka_ca_file", "elasticsearch_ca_file")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return path.expanduser().absolute() if path else None

    @model_validator(mode="after")
    def _one_spark(self) -> Self:
        if self.spark_master and self.spark_remote:
            raise ValueError("SPARK_MASTER and SPARK_REMOTE are both set; unset one of them")
        return self

    @model_validator(mode="after")
    def _trained_in_time(self) -> Self:
        if self.train_max_age_hours >= self.freshness_models_hours:
            raise ValueError(
                f"TRAIN_MAX_AGE_HOURS={self.train_max_age_hours:g} is not less than "
                f"FRESHNESS_MODELS_HOURS={self.freshness_models_hours:g}, so models would be overdue before they are "
                "trained; lower the one or raise the other"
            )
        return self

    @model_validator(mode="after")
    def _abandoned_before_over(self) -> Self:
        if self.cart_abandoned_after_hours > 24 * self.cart_lifetime_days:
            raise ValueError(
                f"CART_ABANDONED_AFTER_HOURS={self.cart_abandoned_after_hours} is longer than "
                f"CART_LIFETIME_DAYS={self.cart_lifetime_days}, after which a cart is over; lower it or raise that"
            )
        return self

    @model_validator(mode="after")
    def _kafka_login(self) -> Self:
        if not self.kafka_security_protocol.startswith("SASL_"):
            return self
        if not self.kafka_username or self.kafka_password is None:
            raise ValueError(
                f"KAFKA_SECURITY_PROTOCOL={self.kafka_security_protocol} is for a login: set KAFKA_USERNAME and "
                "KAFKA_PASSWORD"
            )
        if "\n" in self.kafka_username + self.kafka_password.get_secret_value():
            raise ValueError(
                "KAFKA_USERNAME and KAFKA_PASSWORD: a line break in one of them is not supported"
            )
        return self

    @model_validator(mode="after")
    def _alerts_have_an_address(self) -> Self:
        if self.alert_webhook_url is not None:
            _refuse_other_addresses("ALERT_WEBHOOK_URL", [self.alert_webhook_url.get_secret_value()])
        return self

    @model_validator(mode="after")
    def _webhook_keys(self) -> Self:
        for name in ("alert_webhook_secret", "incident_webhook_secret"):
            secret = getattr(self, name)
            if secret is not None and not _is_webhook_key(secret.get_secret_value()):
                # Without the value, as it is a secret.
                raise ValueError(
                    f"{name.upper()} is not whsec_ and 24 to 64 bytes in base64; make one by "
                    "`echo whsec_$(openssl rand -base64 32)`"
                )
        return self

    @field_validator("shop_time_zone")
    @classmethod
    def _is_a_time_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise ValueError("is no time zone; write one such as UTC or Europe/Berlin") from None
        return name

    @field_validator("shop_currency")
    @classmethod
    def _is_a_currency(cls, code: str | None) -> str | None:
        if code is not None and not re.fullmatch("[A-Z]{3}", code):
            raise ValueError("is no currency's code; write one such as EUR")
        return code

    @model_validator(mode="after")
    def _incidents_have_a_way(self) -> Self:
        if self.incident_recipients:
            if not self.smtp_host:
                raise ValueError("INCIDENT_TO is set and SMTP_HOST is not; set it to the mail server")
            if not self.incident_sender:
                raise ValueError(
                    "INCIDENT_TO is set, and INCIDENT_FROM and REPORT_FROM are not; set one of them to the sender's "
                    "address"
                )
            mail_addresses("INCIDENT_FROM" if self.incident_from else "REPORT_FROM", self.incident_sender)
        _refuse_other_addresses("INCIDENT_WEBHOOK_URLS", self.incident_webhooks)
        try:
            self.incident_zone  # noqa: B018
        except (KeyError, ValueError, OSError):
            raise ValueError(
                f"INCIDENT_TIME_ZONE={self.incident_time_zone!r} is no time zone; write one such as UTC or "
                "Europe/Berlin"
            ) from None
        try:
            self.silences  # noqa: B018
        except ValueError as error:
            raise ValueError(f"INCIDENT_SILENCES: {error}") from None
        return self

    @field_validator("kafka_topic")
    @classmethod
    def _are_topics(cls, text: str) -> str:
        _parse_topics(text)
        return text

    @model_validator(mode="after")
    def _what_is_no_event_has_a_topic_of_its_own(self) -> Self:
        taken = dict.fromkeys(self.topics, "KAFKA_TOPIC, whose records are events")
        for name, kind in (("kafka_products_topic", "products"), ("kafka_exposures_topic", "exposures")):
            text = getattr(self, name)
            if text is None:
                continue
            topics = _parse_topics(text)
            if len(topics) > 1 or any(topics.values()):
                raise ValueError(f"{name.upper()}={text!r}: name one topic, without a dialect")
            if text in taken:
                raise ValueError(f"{name.upper()}={text!r} is a topic of {taken[text]}; name another one")
            taken[text] = f"{name.upper()}, whose records are {kind}"
        return self

    @model_validator(mode="after")
    def _exposures_are_written(self) -> Self:
        if self.experiments is not None and self.kafka_exposures_topic is None:
            raise ValueError(
                f"EXPERIMENTS={self.experiments} is set and KAFKA_EXPOSURES_TOPIC is not, so nobody would know who was "
                "shown what; set it to a topic of its own, such as clickstream-exposures"
            )
        return self

    @model_validator(mode="after")
    def _keys_can_be_read(self) -> Self:
        try:
            self.known_keys  # noqa: B018
        except ValueError as error:
            # Without the value, which may have a key in it.
            raise ValueError(f"API_KEYS: {error}") from None
        return self

    @model_validator(mode="after")
    def _session_secret_is_long(self) -> Self:
        if self.session_secret is not None and len(self.session_secret.get_secret_value()) < 32:
            raise ValueError(
                "SESSION_SECRET has fewer than 32 characters; make one with `openssl rand -hex 32`, or unset it"
            )
        return self

    @field_validator("api_trusted_proxies")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        for part in _parts(text):
            try:
                ip_network(part)
            except ValueError as error:
                raise ValueError(f"{error}; write addresses or networks such as 10.0.0.0/8") from None
        return text

    @field_validator("collector_allowed_origins")
    @classmethod
    def _are_origins(cls, text: str) -> str:
        for origin in _parts(text):
            if origin != "*" and not re.fullmatch(r"https?://[^\s/?#@]+/?", origin):
                raise ValueError(f"{origin!r} is no origin; write https://shop.example, without a path, or *")
        return text

    @model_validator(mode="after")
    def _windows_without_gaps(self) -> Self:
        if self.slide_duration > self.window_duration:
            raise ValueError(
                f"SLIDE_DURATION={self.slide_duration} is longer than WINDOW_DURATION={self.window_duration}, "
                "so events would fall between the windows; make it as long or shorter"
            )
        return self

    _may_be_pickled: bool = PrivateAttr(False)

    def with_secrets(self, *names: str) -> Self:
        """Return the settings with these secrets, and as if no other were set: for a process that needs no more."""
        left_out = secret_names(type(self)) - set(names)
        values = {name: getattr(self, name) for name in type(self).model_fields if name not in left_out}
        # Not `model_copy`, which brings along what was computed of all secrets.
        copy = cast(Self, type(self).model_construct(self.model_fields_set - left_out, **values))
        copy._may_be_pickled = True
        return copy

    def __getstate__(self) -> dict[Any, Any]:
        """Return what is pickled, of what `with_secrets` returned.

        Raises:
            TypeError: this is something else, with all secrets. Spark writes pickles to the executors' disks, and sends
                them through the network.
        """
        if not self._may_be_pickled:
            raise TypeError(
                "settings go to other processes without the secrets that these do not need: pickle what "
                "`with_secrets` returns"
            )
        return super().__getstate__()

    @cached_property
    def topics(self) -> Mapping[str, EventDialect | None]:
        """The topics of click events, and the dialect of each that has one of its own, in the order of KAFKA_TOPIC."""
        return _parse_topics(self.kafka_topic)

    @property
    def all_topics(self) -> tuple[str, ...]:
        """The topics of click events, and those of products and of exposures, where there are some."""
        return (*self.topics, *filter(None, [self.kafka_products_topic, self.kafka_exposures_topic]))

    @property
    def first_topic(self) -> str:
        """The topic that our own producers send to."""
        return next(iter(self.topics))

    @cached_property
    def incident_recipients(self) -> list[str]:
        """Mail addresses that are told of incidents, each once."""
        return mail_addresses("INCIDENT_TO", self.incident_to)

    @property
    def incident_sender(self) -> str | None:
        """Sender address of mails about incidents."""
        return self.incident_from or self.report_from

    @cached_property
    def incident_webhooks(self) -> list[str]:
        """Addresses that incidents are posted to, each once."""
        return _parts(self.incident_webhook_urls.get_secret_value() if self.incident_webhook_urls else "")

    @cached_property
    def known_keys(self) -> tuple[Key, ...]:
        """Keys of the API, in the order of API_KEYS."""
        return parse_keys(self.api_keys.get_secret_value() if self.api_keys else "")

    @cached_property
    def trusted_proxies(self) -> list[str]:
        """Addresses and networks of proxies that are believed, each once."""
        return _parts(self.api_trusted_proxies)

    @cached_property
    def collector_origins(self) -> list[str]:
        """Origins whose pages may send events, each once, in the spelling that browsers send."""
        return [origin.rstrip("/").lower() for origin in _parts(self.collector_allowed_origins)]

    @cached_property
    def incident_zone(self) -> ZoneInfo:
        """Time zone of people who are told of incidents."""
        return ZoneInfo(self.incident_time_zone)

    @cached_property
    def silences(self) -> tuple[Silence, ...]:
        """Incidents that nobody is told of."""
        return parse_silences(self.incident_silences, self.incident_zone)

    @cached_property
    def engine(self) -> EngineName:
        """The engine to compute with: as set, else Spark where a cluster is named, else DuckDB."""
        if self.compute_engine:
            return self.compute_engine
        return EngineName.SPARK if self.spark_master or self.spark_remote else EngineName.DUCKDB

    @cached_property
    def ingest_batch(self) -> int:
        """Records in one commit to raw_events: as set, else what suits the engine."""
        return self.ingest_batch_records or (300_000 if self.engine is EngineName.DUCKDB else 2_500_000)

    @cached_property
    def lake(self) -> str:
        """Root of the lake, without a trailing slash; a local path is absolute."""
        return self._root(self.lake_path, "lake")

    @cached_property
    def checkpoints(self) -> str:
        """Folder of the streams' checkpoints, without a trailing slash; a local path is absolute."""
        return self._root(self.checkpoint_path, "checkpoints")

    def _root(self, path: str | None, default: str) -> str:
        if path and "://" in path:
            return path.rstrip("/")
        return str(Path(path or self.clickstream_home / default).absolute())

    @cached_property
    def raw_logs(self) -> Path:
        """Folder of the daily JSON lines."""
        return self.raw_logs_path or self.clickstream_home / "raw_logs"

    @cached_property
    def kafka_client_options(self) -> dict[str, str]:
        """Options with which kafka-python's clients reach the brokers, password included."""
        options = {
            "bootstrap_servers": self.kafka_bootstrap_servers,
            "security_protocol": self.kafka_security_protocol.value,
        }
        if self._kafka_credentials:
            user, password = self._kafka_credentials
            options |= {
                "sasl_mechanism": self.kafka_sasl_mechanism.value,
                "sasl_plain_username": user,
                "sasl_plain_password": password,
            }
        if self.kafka_ca_file:
            options["ssl_cafile"] = str(self.kafka_ca_file)
        return options

    @cached_property
    def kafka_spark_options(self) -> dict[str, str]:
        """Options with which Spark's Kafka source reaches the brokers, password included."""
        options = {
            "kafka.bootstrap.servers": self.kafka_bootstrap_servers,
            "kafka.security.protocol": self.kafka_security_protocol.value,
            # The latter bounds calls of several requests. Spark itself makes three attempts.
            "kafka.request.timeout.ms": str(int(self.kafka_timeout_seconds * 1000)),
            "kafka.default.api.timeout.ms": str(int(self.kafka_timeout_seconds * 1000)),
        }
        if self._kafka_credentials:
            plain = self.kafka_sasl_mechanism is SaslMechanism.PLAIN
            module = "plain.PlainLoginModule" if plain else "scram.ScramLoginModule"
            user, password = map(_jaas_quoted, self._kafka_credentials)
            options |= {
                "kafka.sasl.mechanism": self.kafka_sasl_mechanism.value,
                "kafka.sasl.jaas.config": f"org.apache.kafka.common.security.{module} required "
                f"username={user} password={password};",
            }
        if self.kafka_ca_file:
            options |= {
                "kafka.ssl.truststore.type": "PEM",
                "kafka.ssl.truststore.location": str(self.kafka_ca_file),
            }
        return options

    @property
    def _kafka_credentials(self) -> tuple[str, str] | None:
        if not self.kafka_security_protocol.startswith("SASL_") or not self.kafka_username:
            return None
        return self.kafka_username, self.kafka_password.get_secret_value() if self.kafka_password else ""

    @property
    def postgres_conninfo(self) -> str:
        """libpq connection string of the served tables' database for their owner, password included."""
        return self.conninfo_of(DatabaseRole.OWNER)

    def conninfo_of(self, role: DatabaseRole) -> str:
        """Return the same for a role."""
        from psycopg.conninfo import make_conninfo

        login = self.login(role)
        return make_conninfo(
            host=self.postgres_host,
            port=self.postgres_port,
            user=login.user,
            password=login.password.get_secret_value() or None,
            dbname=self.postgres_db,
        )


def _jaas_quoted(text: str) -> str:
    """A text as JAAS configurations have it, which are read as Java's literals are."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def mail_addresses(name: str, text: str) -> list[str]:
    """Return the mail addresses of a setting, each once.

    Raises:
        ValueError: naming the setting and what is no address.
    """
    addresses = _parts(text)
    for value in addresses:
        try:
            address = Address(addr_spec=value)
        except (ValueError, IndexError, HeaderParseError) as error:
            raise ValueError(f"{name}: {value!r} is no mail address ({error}); write name@host") from None
        if not address.domain or address.addr_spec != value or not value.isascii():
            raise ValueError(f"{name}: {value!r} is no mail address; write name@host")
    return addresses


# As Kafka has them.
_TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


def _parse_topics(text: str) -> Mapping[str, EventDialect | None]:
    """Return the topics of KAFKA_TOPIC, with the dialect of each that names one.

    Raises:
        ValueError: naming what cannot be read.
    """
    topics: dict[str, EventDialect | None] = {}
    for part in text.split(","):
        name, equals, dialect = (word.strip() for word in part.partition("="))
        if not _TOPIC_NAME.fullmatch(name) or name in (".", ".."):
            raise ValueError(
                f"{name!r} is no topic's name, which has letters, digits, dots, underscores and hyphens; write topics "
                "as clickstream-events,web=segment"
            )
        if name in topics:
            raise ValueError(f"it names the topic {name} twice")
        if equals and dialect not in list(EventDialect):
            raise ValueError(
                f"{dialect!r} of topic {name} is no dialect; write one of {', '.join(EventDialect)}"
            )
        topics[name] = EventDialect(dialect) if equals else None
    return topics


def _parts(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _refuse_other_addresses(name: str, addresses: Iterable[str]) -> None:
    """Raise a ValueError for what is no webhook's address; it says where that leads, and not how to post there."""
    for number, address in enumerate(addresses, start=1):
        if not re.fullmatch(r"https?://[^\s/]\S*", address):
            raise ValueError(f"{name}: address {number}{_place_of(address)} is none; write https://host/path")


def _place_of(address: str) -> str:
    """Return scheme and host of an address in brackets, if it has them; the rest may be what lets one post."""
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        return ""
    return f" ({parts.scheme}://{host}/…)" if parts.scheme and host else ""


def _is_webhook_key(secret: str) -> bool:
    try:
        return 24 <= len(b64decode(secret.removeprefix("whsec_"), validate=True)) <= 64
    except ValueError:
        return False


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingsError: naming each variable that cannot be used, its value and what was expected.
    """
    return _load(Settings)


def load_database_settings() -> DatabaseSettings:
    """Read the settings of PostgreSQL alone, whatever the others are.

    Raises:
        SettingsError: as `load_settings`.
    """
    return _load(DatabaseSettings)


def _load(kind: type[Kind]) -> Kind:
    try:
        return kind()
    except ValidationError as error:
        secrets = secret_names(kind)
        raise _unusable(_problem_text(problem, secrets) for problem in error.errors()) from None
    except UnreadableValueError as error:
        # Without its cause, which has the value.
        raise _unusable([f"{error}; write it as JSON"]) from None


def _problem_text(problem: "ErrorDetails", secrets: Container[str]) -> str:
    """Say which setting has which value, and what was expected."""
    if not problem["loc"]:
        return problem["msg"]
    field = "_".join(str(part) for part in problem["loc"])
    if problem["loc"][0] in secrets:
        return f"{field.upper()}: {problem['msg']}"
    # Addresses may have a password in them.
    value = re.sub(r"//[^/\s]*@", "//…@", repr(problem["input"]))
    return f"{field.upper()}={value}: {problem['msg']}"


def _unusable(problems: Iterable[str]) -> SettingsError:
    return SettingsError("Unusable settings:\n  " + "\n  ".join(problems))


def environment_without_secrets() -> dict[str, str]:
    """Return the environment's variables but for those of secrets, for processes that have no use for them."""
    secrets = {name.upper() for name in secret_names(Settings)}
    return {name: value for name, value in os.environ.items() if name not in secrets}


def secret_names(kind: type[DatabaseSettings]) -> frozenset[str]:
    """Return the names of the fields that are secrets."""
    return frozenset(name for name, field in kind.model_fields.items() if _is_secret(field))


def _is_secret(field: FieldInfo) -> bool:
    return SecretStr in (field.annotation, *get_args(field.annotation))
