"""Settings: their variables, their defaults, and the messages about unusable values."""

import os
import re
from datetime import date
from pathlib import Path

import psycopg
import pytest

from clickstream_assets.settings import (
    EngineName,
    EventDialect,
    Settings,
    SettingsError,
    load_database_settings,
    load_settings,
    secret_names,
)

SECRETS = sorted(secret_names(Settings))
# Of those that have a form.
FORMS = {
    "alert_webhook_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "alert_webhook_url": "https://hooks.example.com/alerts",
    "api_keys": f"shop:collect:{'ab' * 32}",
    "incident_webhook_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "incident_webhook_urls": "https://hooks.example.com/services/x",
    "session_secret": "s" * 32,
}


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(f"{name.upper()}_FILE", raising=False)


def test_without_any_variable_the_local_servers_and_duckdb_are_used(tmp_path: Path):
    settings = load_settings()
    assert settings.kafka_bootstrap_servers == "127.0.0.1:9092"
    assert settings.kafka_topic == "clickstream-events"
    assert (settings.postgres_host, settings.postgres_port) == ("127.0.0.1", 5432)
    assert settings.elasticsearch_url == "http://127.0.0.1:9200"
    assert settings.api_host == "127.0.0.1"
    assert settings.engine is EngineName.DUCKDB
    assert settings.lake == str(tmp_path / ".clickstream" / "lake")
    assert settings.raw_logs == Path(".clickstream/raw_logs")
    assert settings.jars_path == Path.home() / ".cache" / "clickstream-assets"
    assert settings.events_start_date is None
    assert settings.allow_data_loss is False


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka:29092", "kafka_bootstrap_servers", "kafka:29092"),
        ("KAFKA_TOPIC", "shop", "kafka_topic", "shop"),
        ("SPARK_MASTER", "spark://master:7077", "spark_master", "spark://master:7077"),
        ("SIMULATOR_INTERVAL", "0.5", "simulator_interval", 0.5),
        ("NUM_USERS", "50", "num_users", 50),
        ("NUM_PRODUCTS", "7", "num_products", 7),
        ("RAW_LOGS_PATH", "/data/raw", "raw_logs", Path("/data/raw")),
        ("LAKE_PATH", "s3a://bucket/lake/", "lake", "s3a://bucket/lake"),
        ("LAKE_PATH", "/data/lake/", "lake", "/data/lake"),
        ("COMPUTE_ENGINE", "spark", "engine", EngineName.SPARK),
        ("EVENTS_START_DATE", "2019-10-01", "events_start_date", date(2019, 10, 1)),
        ("SHOP_TIME_ZONE", "Europe/Berlin", "shop_time_zone", "Europe/Berlin"),
        ("SHOP_CURRENCY", "EUR", "shop_currency", "EUR"),
        ("EXCHANGE_RATES", "/etc/rates.csv", "exchange_rates", Path("/etc/rates.csv")),
        ("ALLOW_DATA_LOSS", "true", "allow_data_loss", True),
        ("DAGSTER_PORT", "0", "dagster_port", 0),
        ("JARS_PATH", "~/jars", "jars_path", Path.home() / "jars"),
    ],
)
def test_a_variable_sets_its_field(monkeypatch: pytest.MonkeyPatch, variable, text, field, value):
    monkeypatch.setenv(variable, text)
    assert getattr(load_settings(), field) == value


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SPARK_MASTER", "")
    monkeypatch.setenv("NUM_USERS", "")
    settings = load_settings()
    assert (settings.spark_master, settings.num_users) == (None, 1000)


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, EngineName.DUCKDB),
        ({"SPARK_MASTER": "local[2]"}, EngineName.SPARK),
        ({"SPARK_REMOTE": "sc://127.0.0.1:15002"}, EngineName.SPARK),
        ({"SPARK_MASTER": "local[2]", "COMPUTE_ENGINE": "duckdb"}, EngineName.DUCKDB),
        ({"COMPUTE_ENGINE": "spark"}, EngineName.SPARK),
    ],
)
def test_naming_a_spark_chooses_it_unless_the_engine_is_set(
    monkeypatch: pytest.MonkeyPatch, environment, name
):
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert load_settings().engine is name


def test_the_env_file_is_read_and_a_real_variable_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / ".env").write_text(
        "# of somebody else\nUNKNOWN=1\nKAFKA_TOPIC=from-file\nNUM_USERS=5\nPOSTGRES_PASSWORD='a b#c'\n"
    )
    monkeypatch.setenv("NUM_USERS", "6")
    settings = load_settings()
    assert (settings.kafka_topic, settings.num_users) == ("from-file", 6)
    assert settings.postgres_password.get_secret_value() == "a b#c"
    assert "UNKNOWN" not in os.environ


@pytest.mark.parametrize(
    ("variable", "value", "expectation"),
    [
        ("NUM_USERS", "0", "greater than or equal to 1"),
        ("NUM_USERS", "many", "valid integer"),
        ("COMPUTE_ENGINE", "pandas", "'duckdb' or 'spark'"),
        ("POSTGRES_PORT", "70000", "less than or equal to 65535"),
        ("KAFKA_TIMEOUT_SECONDS", "0", "greater than 0"),
        ("SESSION_GAP_MINUTES", "721", "less than or equal to 720"),
        ("EVENTS_START_DATE", "yesterday", "valid date"),
        ("SHOP_TIME_ZONE", "Europe/Berlinn", "is no time zone; write one such as UTC or Europe/Berlin"),
        ("SHOP_TIME_ZONE", "+02:00", "is no time zone"),
        ("SHOP_CURRENCY", "euro", "is no currency's code; write one such as EUR"),
        ("ALLOW_DATA_LOSS", "perhaps", "valid boolean"),
        ("EVALUATION_TEST_FRACTION", "1", "less than 1"),
        ("KAFKA_TOPIC", "no spaces", "'no spaces' is no topic's name, which has letters, digits, dots"),
        ("KAFKA_TOPIC", "web,", "'' is no topic's name"),
        ("KAFKA_TOPIC", "web,app=ga4,web=own", "it names the topic web twice"),
        (
            "KAFKA_TOPIC",
            "web=klaviyo",
            "'klaviyo' of topic web is no dialect; write one of auto, own, segment, ga4",
        ),
        ("KAFKA_TOPIC", "web=", "'' of topic web is no dialect"),
    ],
)
def test_an_unusable_value_is_named_with_what_was_expected(
    monkeypatch: pytest.MonkeyPatch, variable, value, expectation
):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert f"{variable}='{value}'" in str(caught.value)
    assert expectation in str(caught.value)
    assert caught.value.__suppress_context__


def test_topics_are_named_with_their_dialects_and_the_first_is_sent_to(monkeypatch: pytest.MonkeyPatch):
    assert load_settings().topics == {"clickstream-events": None}
    monkeypatch.setenv("KAFKA_TOPIC", " clicks , web = segment,app.v2=auto")
    settings = load_settings()
    assert settings.topics == {"clicks": None, "web": EventDialect.SEGMENT, "app.v2": EventDialect.AUTO}
    assert settings.first_topic == "clicks"


def test_all_unusable_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NUM_USERS", "0")
    monkeypatch.setenv("API_PORT", "http")
    with pytest.raises(SettingsError, match=r"(?s)API_PORT='http'.*NUM_USERS='0'"):
        load_settings()


def test_two_sparks_at_once_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SPARK_MASTER", "local[2]")
    monkeypatch.setenv("SPARK_REMOTE", "sc://127.0.0.1:15002")
    with pytest.raises(SettingsError, match="SPARK_MASTER and SPARK_REMOTE are both set; unset one"):
        load_settings()


def test_a_cart_is_abandoned_before_it_is_over(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CART_LIFETIME_DAYS", "2")
    monkeypatch.setenv("CART_ABANDONED_AFTER_HOURS", "48")
    assert load_settings().cart_lifetime_days == 2
    monkeypatch.setenv("CART_ABANDONED_AFTER_HOURS", "49")
    expected = "CART_ABANDONED_AFTER_HOURS=49 is longer than CART_LIFETIME_DAYS=2, after which a cart is over; lower it"
    with pytest.raises(SettingsError, match=expected):
        load_settings()


def test_the_password_is_shown_nowhere_but_in_the_connection_string(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POSTGRES_PASSWORD", "it's a pa$$phrase")
    settings = load_settings()
    shown = (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json())
    assert not any("phrase" in text for text in shown)
    assert psycopg.conninfo.conninfo_to_dict(settings.postgres_conninfo) == {
        "host": "127.0.0.1",
        "port": "5432",
        "user": "clickstream",
        "password": "it's a pa$$phrase",
        "dbname": "clickstream",
    }


def test_a_password_next_to_an_unusable_value_stays_out_of_the_message(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POSTGRES_PASSWORD", "a pa$$phrase")
    monkeypatch.setenv("SPARK_MASTER", "local[2]")
    monkeypatch.setenv("SPARK_REMOTE", "sc://127.0.0.1:15002")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "phrase" not in str(caught.value)


def test_settings_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        load_settings().kafka_topic = "another"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10 minutes", 600),
        ("1 hour 30 minutes", 5400),
        ("interval 45 seconds", 45),
        ("1 Day", 86_400),
        ("500 milliseconds", 0.5),
    ],
)
def test_an_interval_is_written_as_for_spark(text: str, seconds: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WATERMARK_DELAY", text)
    assert load_settings().watermark_delay.total_seconds() == seconds


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("WINDOW_DURATION", "ten minutes", "expected an interval such as '10 minutes'"),
        ("WINDOW_DURATION", "0 minutes", "greater than"),
        ("SLIDE_DURATION", "1 hour", "SLIDE_DURATION=1:00:00 is longer than WINDOW_DURATION=0:10:00"),
        ("WATERMARK_DELAY", "-5 minutes", "expected an interval"),
    ],
)
def test_windows_that_cannot_be_are_refused(
    name: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=re.escape(says)):
        load_settings()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"KAFKA_PRODUCTS_TOPIC": "a,b"}, "KAFKA_PRODUCTS_TOPIC='a,b': name one topic, without a dialect"),
        (
            {"KAFKA_EXPOSURES_TOPIC": "clickstream-events"},
            "KAFKA_EXPOSURES_TOPIC='clickstream-events' is a topic of KAFKA_TOPIC, whose records are events",
        ),
        (
            {"KAFKA_PRODUCTS_TOPIC": "a", "KAFKA_EXPOSURES_TOPIC": "a"},
            "KAFKA_EXPOSURES_TOPIC='a' is a topic of KAFKA_PRODUCTS_TOPIC, whose records are products",
        ),
        ({"EXPERIMENTS": "e.toml"}, "EXPERIMENTS=e.toml is set and KAFKA_EXPOSURES_TOPIC is not"),
    ],
)
def test_what_is_no_event_goes_to_a_topic_of_its_own(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], said: str
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert said in str(caught.value)


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("line_break", ["", "\n", "\r\n"])
def test_a_secret_may_be_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, line_break: str
):
    secret = FORMS.get(name, " a pa$$phrase ")
    (tmp_path / "secret").write_bytes(f"{secret}{line_break}".encode())
    monkeypatch.setenv(f"{name.upper()}_FILE", str(tmp_path / "secret"))
    assert getattr(load_settings(), name).get_secret_value() == secret


def test_only_secrets_may_be_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert {"postgres_password", "smtp_password", "api_keys"} <= set(SECRETS)
    assert not {f"{name}_file" for name in SECRETS} & set(Settings.model_fields)
    (tmp_path / "topic").write_text("another")
    monkeypatch.setenv("KAFKA_TOPIC_FILE", str(tmp_path / "topic"))
    assert load_settings().kafka_topic == "clickstream-events"


def test_dagsters_storage_reads_the_same_file_and_no_other_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "secret").write_text("a pa$$phrase\n")
    monkeypatch.setenv("POSTGRES_PASSWORD_FILE", "secret")
    monkeypatch.setenv("NUM_USERS", "many")
    assert load_database_settings().postgres_password.get_secret_value() == "a pa$$phrase"


@pytest.mark.parametrize(
    ("content", "expectation"),
    [
        (None, "cannot be read (No such file or directory); name the file that SMTP_PASSWORD is in"),
        (b"", "is empty; write SMTP_PASSWORD into it, or unset it"),
        (b"\n", "is empty; write SMTP_PASSWORD into it, or unset it"),
        (b"pa$$phrase\xff", "is not text in UTF-8; write SMTP_PASSWORD there as text"),
    ],
)
def test_a_file_without_a_secret_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, expectation: str
):
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    monkeypatch.setenv("SMTP_PASSWORD_FILE", "secret")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == f"Unusable settings:\n  SMTP_PASSWORD_FILE=secret {expectation}"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Who runs the tests as root may read everything but a folder.
    (tmp_path / "secret").mkdir()
    monkeypatch.setenv("SMTP_PASSWORD_FILE", "secret")
    with pytest.raises(SettingsError, match=r"SMTP_PASSWORD_FILE=secret cannot be read \(Is a directory\)"):
        load_settings()


def test_a_secret_is_given_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "secret").write_text("pa$$phrase")
    monkeypatch.setenv("SMTP_PASSWORD_FILE", "secret")
    monkeypatch.setenv("SMTP_PASSWORD", "pa$$word")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    said = "Unusable settings:\n  SMTP_PASSWORD and SMTP_PASSWORD_FILE=secret are both set; unset one of them"
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("in_the_file", "variable"),
    [("SMTP_PASSWORD=two", "SMTP_PASSWORD_FILE"), ("SMTP_PASSWORD_FILE=two", "SMTP_PASSWORD")],
)
def test_what_is_really_set_wins_over_the_env_file_here_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_the_file: str, variable: str
):
    (tmp_path / "one").write_text("one")
    (tmp_path / ".env").write_text(in_the_file)
    monkeypatch.setenv(variable, "one")
    assert load_settings().smtp_password.get_secret_value() == "one"
