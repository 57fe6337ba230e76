"""The preparation of the containers: passwords, databases, and Kibana's objects."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values

from clickstream_assets.settings import Settings
from clickstream_assets.stores.elasticsearch import MAPPINGS
from clickstream_assets.streaming.alert_index import ALERT_MAPPINGS
from clickstream_assets.streaming.alerts import AlertState
from clickstream_assets_tests.databases import PrivateServer, query, with_settings
from clickstream_assets_tests.deploy.files import (
    COMPOSE_FILE,
    PASSWORDS,
    ROOT,
    SERVICES,
    compose_secrets,
    compose_variables,
    make_databases,
    make_env,
)
from clickstream_assets_tests.web import Answer, web_server

KIBANA_OBJECTS = ROOT / "deploy" / "kibana" / "objects.ndjson"


def test_every_variable_has_a_default_or_is_made(tmp_path: Path):
    assert make_env(tmp_path / ".env").returncode == 0
    made = dotenv_values(tmp_path / ".env")
    without_default = {name for name, default in compose_variables().items() if default is None}
    assert without_default == set(made) == set(PASSWORDS)
    assert not set(made) & {name.upper() for name in Settings.model_fields}


def test_passwords_are_random_private_and_made_once(tmp_path: Path):
    files = [tmp_path / "one", tmp_path / "two"]
    files[0].write_text("KEPT=1")
    assert [make_env(file).returncode for file in files] == [0, 0]
    passwords = [value for file in files for name, value in dotenv_values(file).items() if name != "KEPT"]
    assert len(set(passwords)) == 2 * len(PASSWORDS)
    assert all(re.fullmatch("[0-9a-f]{48}", str(password)) for password in passwords)
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert dotenv_values(files[0])["KEPT"] == "1"

    before = files[0].read_text()
    refused = make_env(files[0])
    assert refused.returncode == 1
    assert "has the passwords already" in refused.stderr
    assert files[0].read_text() == before


def test_a_password_that_is_missing_is_added_and_the_others_stay(tmp_path: Path):
    file = tmp_path / ".env"
    file.write_text("DATABASE_PASSWORD=of-last-year\nDATABASE_ADMIN_PASSWORD=another\n")
    assert make_env(file).returncode == 0
    made = dotenv_values(file)
    assert (made["DATABASE_PASSWORD"], made["DATABASE_ADMIN_PASSWORD"]) == ("of-last-year", "another")
    assert set(made) == set(PASSWORDS)


def test_no_password_is_written_in_the_file():
    assert re.findall(r"^.*PASSWORD: .*$", COMPOSE_FILE.read_text(), re.MULTILINE) == []
    assert sorted(compose_secrets(PASSWORDS).values()) == sorted(PASSWORDS.values())


def test_an_empty_server_gets_both_databases_and_an_owner_without_power(
    private_postgres: PrivateServer, tmp_path: Path
):
    settings = private_postgres.settings
    make_databases(settings, 'it\'s "one"', tmp_path)

    given = SERVICES["migrate"]["environment"]
    for database in (given["POSTGRES_DB"], given["DAGSTER_POSTGRES_DB"]):
        owner = with_settings(
            settings,
            postgres_user=given["POSTGRES_USER"],
            postgres_password='it\'s "one"',
            postgres_db=database,
        )
        power = "SELECT rolsuper, has_schema_privilege('public', 'CREATE') FROM pg_roles WHERE rolname = user"
        assert query(owner, power) == [(False, True)]


def test_texts_are_ordered_as_on_one_machine():
    arguments = SERVICES["postgres"]["environment"]["POSTGRES_INITDB_ARGS"].split()
    source = (ROOT / "clickstream_assets" / "local" / "postgres.py").read_text()
    assert {argument for argument in arguments if f'"{argument}"' not in source} == set()


def kibana_objects() -> list[dict[str, Any]]:
    return [json.loads(line) for line in KIBANA_OBJECTS.read_text().splitlines()]


def test_kibanas_objects_refer_to_each_other():
    objects = kibana_objects()
    known = {(item["type"], item["id"]) for item in objects}
    assert len(known) == len(objects)
    assert {kind for kind, _ in known} == {"index-pattern", "search", "visualization", "dashboard"}
    wanted = {(reference["type"], reference["id"]) for item in objects for reference in item["references"]}
    assert wanted <= known
    for item in objects:
        if item["type"] == "dashboard":
            panels = json.loads(item["attributes"]["panelsJSON"])
            named = {f"{panel['panelIndex']}:{panel['panelRefName']}" for panel in panels}
            assert named == {reference["name"] for reference in item["references"]}


INDICES = {
    Settings.model_fields["elasticsearch_alias"].default: MAPPINGS,
    Settings.model_fields["elasticsearch_alerts_index"].default: ALERT_MAPPINGS,
}


def test_kibanas_views_are_of_what_is_in_elasticsearch():
    views = [item["attributes"] for item in kibana_objects() if item["type"] == "index-pattern"]
    assert sorted(view["title"] for view in views) == sorted(INDICES)
    for view in views:
        fields = INDICES[view["title"]]["properties"]
        assert fields[view["timeFieldName"]] == {"type": "date"}
        assert set(json.loads(view["fieldFormatMap"])) <= set(fields)


def test_kibanas_objects_name_fields_of_their_view():
    objects = kibana_objects()
    titles = {item["id"]: item["attributes"]["title"] for item in objects if item["type"] == "index-pattern"}
    seen = dict.fromkeys(INDICES, 0)
    for item in objects:
        if item["type"] not in ("search", "visualization"):
            continue
        attributes = item["attributes"]
        fields = {*attributes.get("columns", []), *(field for field, _ in attributes.get("sort", []))}
        for agg in json.loads(attributes.get("visState", '{"aggs": []}'))["aggs"]:
            fields |= {agg["params"]["field"]} if "field" in agg["params"] else set()
        searched = json.loads(attributes["kibanaSavedObjectMeta"]["searchSourceJSON"])["query"]["query"]
        fields |= set(re.findall(r"(\w+) :", searched))
        (title,) = [titles[ref["id"]] for ref in item["references"] if ref["type"] == "index-pattern"]
        assert fields
        assert fields <= set(INDICES[title]["properties"]), item["id"]
        seen[title] += 1
    assert all(count > 2 for count in seen.values())


def test_kibana_shows_open_alerts_first():
    (search,) = [
        item["attributes"]
        for item in kibana_objects()
        if (item["type"], item["id"]) == ("search", "clickstream-alerts")
    ]
    assert search["sort"][0] == ["state", "asc"]
    assert sorted(AlertState) == [AlertState.OPEN, AlertState.RESOLVED]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("curl"), reason="curl, which Kibana's image has, is not installed")
@pytest.mark.parametrize(("said", "code"), [({"success": True}, 0), ({"success": False, "errors": []}, 1)])
def test_kibanas_objects_are_loaded_or_the_container_fails(tmp_path: Path, said: dict[str, Any], code: int):
    service = SERVICES["kibana-objects"]
    with web_server(lambda _: Answer(body=json.dumps(said, separators=(",", ":")).encode())) as kibana:
        (command,) = service["command"]
        for there, here in (
            ("http://kibana:5601", kibana.url),
            ("@/objects.ndjson", f"@{KIBANA_OBJECTS}"),
            ("/tmp/answer", str(tmp_path / "answer")),
        ):
            assert there in command
            command = command.replace(there, here)
        done = subprocess.run([*service["entrypoint"], command], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    (request,) = kibana.requests
    assert (request.method, request.path) == ("POST", "/api/saved_objects/_import?overwrite=true")
    assert request.headers["kbn-xsrf"] == "true"
    assert KIBANA_OBJECTS.read_bytes() in request.body
