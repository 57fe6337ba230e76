"""Secrets, each with a mark: in no error, no pickle and no process that has no use for them."""

from __future__ import annotations

import json
import os
import pickle
import socket
import stat
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyspark import cloudpickle
from typer.testing import CliRunner

from clickstream_assets.commands.app import app
from clickstream_assets.defs.incidents.delivery import addresses
from clickstream_assets.engine.spark import spark_config, spark_session
from clickstream_assets.local import processes, spark
from clickstream_assets.settings import Settings, SettingsError, load_settings, secret_names
from clickstream_assets.stores.webhook import DeliveryError, poster
from clickstream_assets.streaming import live_events
from clickstream_assets.streaming.source import parser
from clickstream_assets.streaming.windows import COLUMNS

SECRETS = secret_names(Settings)
# Of those that have a form: its beginning, and a mark that fits in.
_FORMS = {
    "alert_webhook_secret": ("whsec_", "bWFya2VkYWxlcnR3ZWJob29rc2VjcmV0"),
    "alert_webhook_url": ("https://hooks.example.com/services/", "marked-alert-webhook-url"),
    "api_keys": ("shop:collect:", "a9" * 32),
    "incident_webhook_secret": ("whsec_", "bWFya2VkaW5jaWRlbnR3ZWJob29rc2Vj"),
    "incident_webhook_urls": ("https://chat.example.com/hooks/", "marked-incident-webhook-url"),
    "session_secret": ("", "marked-session-secret" * 2),
}
MARKED = {name: _FORMS.get(name, ("", f"marked-{name}")) for name in SECRETS}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Set all secrets, and what makes their settings be looked at."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    variables = {name.upper(): f"{form}{mark}" for name, (form, mark) in MARKED.items()}
    variables |= {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_USERNAME": "shop"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


def shown(text: str | bytes) -> set[str]:
    """Return the secrets whose marks are in a text."""
    content = text if isinstance(text, bytes) else text.encode()
    return {name for name, (_, mark) in MARKED.items() if mark.encode() in content}


def used() -> Settings:
    """Return the settings after everything that is computed of secrets has been asked for."""
    settings = load_settings()
    computed = (settings.postgres_conninfo, settings.kafka_client_options, settings.kafka_spark_options)
    assert shown(repr(computed)) == {"postgres_password", "kafka_password"}
    assert settings.known_keys
    assert settings.incident_webhooks
    return settings


def test_what_goes_to_sparks_workers_has_no_secret_but_the_one_that_they_need():
    settings = used()
    assert shown(cloudpickle.dumps(parser(settings, COLUMNS))) == set()
    written = cloudpickle.dumps(live_events.writer(settings))
    assert shown(written) == {"elasticsearch_api_key"}
    there: Settings = pickle.loads(written).keywords["settings"]
    assert there.elasticsearch_api_key == settings.elasticsearch_api_key
    assert there.model_dump(exclude=set(SECRETS)) == settings.model_dump(exclude=set(SECRETS))


def test_settings_with_all_secrets_cannot_be_pickled():
    settings = used()
    for dumps in (pickle.dumps, cloudpickle.dumps):
        with pytest.raises(TypeError, match="pickle what `with_secrets` returns"):
            dumps(lambda: settings) if dumps is cloudpickle.dumps else dumps(settings)
    assert shown(pickle.dumps(settings.with_secrets("kafka_password"))) == {"kafka_password"}
    assert settings.with_secrets().postgres_conninfo == used().with_secrets().postgres_conninfo


def test_sparks_configuration_has_the_clusters_alone_and_keeps_it_out_of_the_command():
    assert shown(json.dumps(spark_config(used()))) == set()
    on_cluster = used().model_copy(update={"spark_master": "spark://master:7077"})
    assert shown(json.dumps(spark_config(on_cluster))) == {"spark_secret"}
    seen: list[tuple[dict[str, str], str]] = []

    def start(configuration: dict[str, str]) -> Any:
        arguments = os.environ["PYSPARK_SUBMIT_ARGS"].split()
        seen.append((configuration, Path(arguments[arguments.index("--properties-file") + 1]).read_text()))

    spark_session(on_cluster, start)
    ((configuration, file),) = seen
    assert shown(json.dumps(configuration)) == set()
    assert configuration["spark.authenticate"] == configuration["spark.network.crypto.enabled"] == "true"
    assert file == f"spark.authenticate.secret={MARKED['spark_secret'][1]}\n"
    assert "PYSPARK_SUBMIT_ARGS" not in os.environ


def broken_settings() -> Iterator[Mapping[str, str]]:
    """Yield variables by which settings cannot be used, one kind of problem after another."""
    for name in Settings.model_fields:
        if name not in SECRETS:
            yield {name.upper(): "://nothing of the kind"}
    yield {"ALERT_WEBHOOK_SECRET": MARKED["alert_webhook_secret"][1][:-1] + "!"}
    yield {"API_KEYS": MARKED["api_keys"][1]}
    yield {"SESSION_SECRET": MARKED["session_secret"][1][:21]}
    yield {"KAFKA_USERNAME": ""}
    yield {"KAFKA_PASSWORD": MARKED["kafka_password"][1] + "\n"}
    yield {"SPARK_CONFIG": '{"spark.hadoop.fs.s3a.secret.key": ' + MARKED["smtp_password"][1]}
    for name in ("SLIDE_DURATION", "TRAIN_MAX_AGE_HOURS"):
        yield {name: "50 hours" if name == "SLIDE_DURATION" else "500"}


@contextmanager
def suppress_but_keep(messages: list[str]) -> Iterator[None]:
    """Go on after settings that cannot be used, and keep all that is printed of that."""
    try:
        yield
    except SettingsError as error:
        messages.append("".join(traceback.format_exception(error)))


def test_no_error_of_settings_shows_one(monkeypatch: pytest.MonkeyPatch):
    messages: list[str] = []
    for variables in broken_settings():
        with monkeypatch.context() as patch, suppress_but_keep(messages):
            for name, value in variables.items():
                patch.setenv(name, value)
            load_settings()
    assert len(messages) > 100
    assert [message for message in messages if shown(message)] == []


@pytest.mark.parametrize("name", ["ALERT_WEBHOOK_URL", "INCIDENT_WEBHOOK_URLS"])
@pytest.mark.parametrize(
    ("before", "says"),
    [
        ("htps://hooks.example.com/services/", "address 1 (htps://hooks.example.com/…) is none"),
        ("hooks.example.com/services/", "address 1 is none"),
        ("https:/hooks.example.com/services/", "address 1 is none"),
        ("https:///hooks/", "address 1 is none"),
        ("ftp://shop:", "address 1 (ftp://hooks.example.com/…) is none"),
        ("https://hooks.example.com/ser vices/", "address 1 (https://hooks.example.com/…) is none"),
        ("http//[", "address 1 is none"),
    ],
)
def test_a_mistyped_address_shows_no_more_than_scheme_and_host(
    monkeypatch: pytest.MonkeyPatch, name: str, before: str, says: str
):
    mark = MARKED[name.lower()][1]
    monkeypatch.setenv(name, f"{before}{mark}@hooks.example.com" if "shop:" in before else f"{before}{mark}")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == f"Unusable settings:\n  Value error, {name}: {says}; write https://host/path"


def test_a_password_in_another_address_is_not_shown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAGSTER_URL", f"ftp://shop:{MARKED['smtp_password'][1]}@dagster.example.com")
    with pytest.raises(SettingsError, match=r"DAGSTER_URL='ftp://…@dagster.example.com'"):
        load_settings()


def test_a_delivery_that_fails_shows_no_address():
    with socket.create_server(("127.0.0.1", 0)) as silent, poster(0.1) as webhook:
        closed = socket.create_server(("127.0.0.1", 0))
        closed_port = closed.getsockname()[1]
        closed.close()
        for host in (
            f"127.0.0.1:{silent.getsockname()[1]}",
            f"127.0.0.1:{closed_port}",
            "host:99999",
            "[::1",
            "",
        ):
            secret = load_settings().alert_webhook_secret
            url = f"http://{host}/{MARKED['alert_webhook_url'][1]}"
            with pytest.raises(DeliveryError) as caught:
                webhook.post(url, "1", {}, secret, "ALERT_WEBHOOK_URL")
            assert caught.value.__cause__ is None
            assert shown("".join(traceback.format_exception(caught.value, chain=True))) == set()


def test_nothing_that_is_printed_shows_one():
    settings = used()
    answer = CliRunner().invoke(app, ["settings"])
    assert answer.exit_code == 0
    texts = [answer.output, repr(settings), str(settings), settings.model_dump_json(), *addresses(settings)]
    assert shown("\n".join(texts)) == set()
    assert any("chat.example.com" in name for name in addresses(settings))


def test_servers_of_the_stack_get_none(tmp_path: Path, environment: dict[str, str]):
    log = tmp_path / "log"
    processes.start(["env"], tmp_path, log)
    deadline = time.monotonic() + 60
    while "PATH=" not in (log.read_text() if log.exists() else ""):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert shown(log.read_text()) == set()
    assert f"KAFKA_USERNAME={environment['KAFKA_USERNAME']}" in log.read_text()


# Spark's own program takes a quarter of a minute to start.
SPARK_SUBMIT = """\
#!{python}
import os, socket, sys, time
from pathlib import Path
Path("given").write_text("\\0".join([*sys.argv, *(f"{{n}}={{v}}" for n, v in os.environ.items())]))
file = Path(sys.argv[sys.argv.index("--properties-file") + 1])
properties = dict(line.split("=", 1) for line in file.read_text().splitlines())
server = socket.create_server(("127.0.0.1", int(properties["spark.connect.grpc.binding.port"])))
time.sleep(600)
"""


def test_a_connect_server_has_none_in_its_command_and_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    program = tmp_path / "spark" / "bin" / "spark-submit"
    program.parent.mkdir(parents=True)
    program.write_text(SPARK_SUBMIT.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(spark, "pyspark_home", lambda: tmp_path / "spark")
    key = "spark.hadoop.fs.s3a.secret.key"
    value = f"{MARKED['smtp_password'][1]} = a\\b"
    monkeypatch.setenv("SPARK_CONFIG", json.dumps({key: value}))
    folder = tmp_path / "connect"
    with spark.connect_server(load_settings(), folder):
        given = (folder / "given").read_text()
    assert "PATH=" in given
    arguments = given.replace(f"SPARK_CONFIG={os.environ['SPARK_CONFIG']}", "")
    assert shown(arguments) == set()
    (file,) = folder.glob("*.conf")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert f"{key}={value.replace(chr(92), chr(92) * 2)}\n" in file.read_text()
