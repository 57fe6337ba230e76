"""Roles in PostgreSQL: each does its own work, and cannot do what is another's."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from uuid import uuid4

import dagster as dg
import psycopg
import pytest
from dagster_postgres.run_storage import PostgresRunStorage
from psycopg import sql

from clickstream_assets.backup.dagster import database_of
from clickstream_assets.backup.databases import copy_out, moment, put_back_rows
from clickstream_assets.backup.manifest import Backup
from clickstream_assets.backup.place import Place
from clickstream_assets.settings import DatabaseRole, Settings, SettingsError, load_settings
from clickstream_assets.stores.postgres.connection import PostgresError, PostgresProblem, connect
from clickstream_assets.stores.postgres.migrate import migrate, newest_revision, remake
from clickstream_assets.stores.postgres.roles import NOT_READ_BY_THE_API, prepare_roles
from clickstream_assets.streaming.outbox import deliver_pending
from clickstream_assets.streaming.owner import ownership
from clickstream_assets.streaming.retention import delete_expired
from clickstream_assets.streaming.store import WindowStore
from clickstream_assets_tests.api.conftest import PATHS, clients_of, publish
from clickstream_assets_tests.databases import PrivateServer, free_port, query, with_settings
from clickstream_assets_tests.streaming.streams import Shop
from clickstream_assets_tests.streaming.test_store import NOON, Stream, views

DAGSTER_YAML = Path(__file__).parents[3] / "dagster.yaml"
# What routes need: of the small shop that is published.
IN_PATHS = {"user_id": "u1", "person_id": "u1", "product_id": "p1", "name": "none", "date": "2024-05-08"}


def new_owner(admin: Settings, rights: str) -> Settings:
    """An owner with a database, as an administrator makes them."""
    name = f"shop_{uuid4().hex[:8]}"
    with connect(admin, autocommit=True) as connection:
        for statement in (
            f"CREATE ROLE {{}} LOGIN PASSWORD 'own3r' {rights}",
            "CREATE DATABASE {0} OWNER {0}",
        ):
            connection.execute(sql.SQL(statement).format(sql.Identifier(name)))
    return with_settings(
        admin,
        postgres_user=name,
        postgres_password="own3r",
        postgres_db=name,
        dagster_postgres_db=f"{name}_dagster",
        elasticsearch_url=f"http://127.0.0.1:{free_port()}",
    )


def with_roles(owner: Settings) -> Settings:
    name = owner.postgres_user
    return with_settings(
        owner,
        postgres_api_user=f"{name}_api",
        postgres_api_password="ap'1",
        postgres_pipeline_user=f"{name}_pipeline",
        postgres_pipeline_password="p1peline",
        dagster_postgres_user=f"{name}_dagster",
        dagster_postgres_password="d4gster",
    )


@pytest.fixture(scope="module")
def settings(private_postgres: PrivateServer) -> Settings:
    """A database with all three roles, made by an owner who is no superuser."""
    settings = with_roles(new_owner(private_postgres.settings, "CREATEROLE CREATEDB"))
    migrate(settings)
    assert [sentence.split(" (")[0] for sentence in prepare_roles(settings)] == [
        f"made the role {settings.postgres_user}_{name}" for name in ("api", "pipeline", "dagster")
    ]
    return settings


def refused(settings: Settings, role: DatabaseRole, statement: str) -> bool:
    """Return whether a role may not carry a statement out, of which nothing stays."""
    database = settings.dagster_postgres_db if role is DatabaseRole.DAGSTER else settings.postgres_db
    own = with_settings(settings, postgres_db=database)
    with psycopg.connect(own.conninfo_of(role)) as connection:
        try:
            connection.execute(statement.encode())
        except psycopg.errors.InsufficientPrivilege:
            return True
        finally:
            connection.rollback()
    return False


def test_the_pipeline_publishes_and_the_api_answers_all_its_routes(settings: Settings):
    publish(settings)
    assert query(settings, "SELECT current_user::text") == [(settings.postgres_pipeline_user,)]
    others = {}
    with contextmanager(clients_of)(settings) as client:
        for path in PATHS:
            address = re.sub(r"\{(\w+)\}", lambda found: IN_PATHS[found[1]], path)
            asked = {"anonymous_id": "u1"} if path in ("/api/buy-again", "/api/recommend") else {}
            answer = client.get(address, query_string=asked)
            if answer.status_code != 200:
                others[path] = answer.json["code"]
        listed = client.get("/api/recommend/u1").json
    assert others == {
        "/api/experiments/{name}": "unknown_experiment",
        "/api/predictions/{person_id}": "unknown_person",
        "/real-time-events": "elasticsearch_unreachable",
    }
    assert [item["product_id"] for item in listed["items"]] == [f"p{n}" for n in range(1, 11)]


def test_the_pipelines_streams_work(settings: Settings, tmp_path: Path):
    own = with_settings(settings, lake_path=str(tmp_path / "lake"), views_threshold=100)
    with ownership(own, "test") as connection:
        stream = Stream(Shop(own), WindowStore(connection, own))
        changes = stream.read(*views(NOON, 101))
    assert (changes.windows, changes.open_alerts) == (2, 1)
    assert deliver_pending(own) == changes.notifications > 0
    assert delete_expired(own).windows == 0


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        (DatabaseRole.API, "INSERT INTO funnel DEFAULT VALUES"),
        (DatabaseRole.API, "UPDATE stream_status SET batch_id = 1"),
        (DatabaseRole.API, "DELETE FROM products"),
        (DatabaseRole.API, "TRUNCATE products"),
        (DatabaseRole.API, "CREATE TABLE more (a int)"),
        *((DatabaseRole.API, f"SELECT FROM {table}") for table in NOT_READ_BY_THE_API),
        (DatabaseRole.PIPELINE, "DROP TABLE products"),
        (DatabaseRole.PIPELINE, "ALTER TABLE products ADD COLUMN a int"),
        (DatabaseRole.PIPELINE, "TRUNCATE products"),
        (DatabaseRole.PIPELINE, "CREATE TABLE more (a int)"),
        (DatabaseRole.PIPELINE, "UPDATE clickstream_schema_version SET version_num = '9999'"),
        (DatabaseRole.PIPELINE, "CREATE ROLE friend"),
    ],
)
def test_a_role_cannot_do_what_is_anothers(settings: Settings, role: DatabaseRole, statement: str):
    assert refused(settings, role, statement)
    assert not refused(settings, role, "SELECT FROM products")


def test_dagster_has_its_own_database_and_no_other(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("host", "port"):
        monkeypatch.setenv(f"POSTGRES_{name.upper()}", str(getattr(settings, f"postgres_{name}")))
    monkeypatch.setenv("DAGSTER_POSTGRES_DB", settings.dagster_postgres_db)
    monkeypatch.setenv("DAGSTER_POSTGRES_USER", str(settings.dagster_postgres_user))
    monkeypatch.setenv("DAGSTER_POSTGRES_PASSWORD", "d4gster")
    (tmp_path / "dagster.yaml").write_bytes(DAGSTER_YAML.read_bytes())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("sessions"))
        assert len(instance.fetch_materializations(dg.AssetKey("sessions"), limit=2).records) == 1
    assert not refused(settings, DatabaseRole.DAGSTER, "SELECT FROM event_logs")

    served = settings.conninfo_of(DatabaseRole.DAGSTER)
    with psycopg.connect(served) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT FROM products")
    theirs = with_settings(settings, postgres_db=settings.dagster_postgres_db)
    for role in (DatabaseRole.API, DatabaseRole.PIPELINE):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(theirs.conninfo_of(role))


def test_a_table_of_a_later_migration_has_the_same_rights(settings: Settings):
    with connect(settings, role=DatabaseRole.OWNER) as connection:
        connection.execute("CREATE TABLE later (a int GENERATED ALWAYS AS IDENTITY, b serial)")
    assert not refused(settings, DatabaseRole.API, "SELECT FROM later")
    assert refused(settings, DatabaseRole.API, "INSERT INTO later DEFAULT VALUES")
    assert not refused(settings, DatabaseRole.PIPELINE, "INSERT INTO later DEFAULT VALUES")


def test_preparing_again_changes_nothing_but_a_password(settings: Settings):
    sentences = prepare_roles(settings)
    assert [sentence.split(" the ")[0] for sentence in sentences] == ["there is"] * 3
    changed = with_settings(settings, postgres_api_password="another")
    with pytest.raises(
        PostgresError, match=r"refused POSTGRES_API_USER=\S+_api with this POSTGRES_API_PASSWORD"
    ):
        connect(changed, role=DatabaseRole.API)
    prepare_roles(changed)
    connect(changed, role=DatabaseRole.API).close()
    prepare_roles(settings)
    connect(settings, role=DatabaseRole.API).close()


def test_an_owner_who_may_make_no_roles_says_what_an_administrator_is_to_do(private_postgres: PrivateServer):
    admin = private_postgres.settings
    settings = with_settings(with_roles(new_owner(admin, "")), dagster_postgres_user=None)
    migrate(settings)
    with pytest.raises(PostgresError) as caught:
        prepare_roles(settings)
    assert caught.value.problem is PostgresProblem.NOT_ALLOWED
    assert f"ALTER ROLE {settings.postgres_user} CREATEROLE" in str(caught.value)
    assert "ap'1" not in str(caught.value)

    with connect(admin, autocommit=True) as connection:
        for login in (settings.login(DatabaseRole.API), settings.login(DatabaseRole.PIPELINE)):
            make = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
            password = sql.Literal(login.password.get_secret_value())
            connection.execute(make.format(sql.Identifier(login.user), password))
    assert len(prepare_roles(settings)) == 2
    assert refused(settings, DatabaseRole.API, "DELETE FROM products")
    assert not refused(settings, DatabaseRole.PIPELINE, "DELETE FROM products")


def test_a_database_that_dagster_has_used_is_given_to_its_role(
    private_postgres: PrivateServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    before = new_owner(private_postgres.settings, "CREATEROLE CREATEDB")
    with connect(before, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(before.dagster_postgres_db)))
    migrate(before)
    theirs = with_settings(before, postgres_db=before.dagster_postgres_db)
    with connect(theirs) as connection:
        connection.execute("CREATE TABLE runs (id serial, name text)")
        connection.execute("INSERT INTO runs (name) VALUES ('one')")
    settings = with_roles(before)
    for _ in range(2):
        prepare_roles(settings)
    assert not refused(settings, DatabaseRole.DAGSTER, "INSERT INTO runs (name) VALUES ('two')")
    assert not refused(settings, DatabaseRole.DAGSTER, "ALTER TABLE runs ADD COLUMN a int")
    owners = "SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = current_database()"
    assert query(with_settings(settings, postgres_pipeline_user=None), owners) == [(settings.postgres_user,)]


def test_a_superuser_is_no_role_for_an_api(private_postgres: PrivateServer):
    settings = new_owner(private_postgres.settings, "CREATEROLE")
    migrate(settings)
    with pytest.raises(PostgresError, match="POSTGRES_API_USER=owner is a superuser"):
        prepare_roles(with_settings(settings, postgres_api_user="owner"))


def test_without_roles_nothing_is_made(settings: Settings):
    plain = with_settings(
        settings, postgres_api_user=None, postgres_pipeline_user=None, dagster_postgres_user=None
    )
    assert prepare_roles(plain) == []
    assert {plain.login(role).user for role in DatabaseRole} == {plain.postgres_user}


@pytest.fixture
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.usefixtures("_nothing_set")
@pytest.mark.parametrize("name", ["POSTGRES_API_USER", "POSTGRES_PIPELINE_USER", "DAGSTER_POSTGRES_USER"])
def test_a_role_is_not_another_role_too(monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv(name, "clickstream")
    with pytest.raises(SettingsError, match=f"{name}=clickstream is POSTGRES_USER too"):
        load_settings()


def test_a_backup_is_made_by_the_pipeline_and_put_back_by_the_owner_with_all_rights(
    private_postgres: PrivateServer, tmp_path: Path
):
    settings = with_roles(new_owner(private_postgres.settings, "CREATEROLE CREATEDB"))
    migrate(settings)
    prepare_roles(settings)
    publish(settings)
    place = Place(str(tmp_path))
    with moment(settings) as connection:
        database, _ = copy_out(connection, ["products"], "r0001", place, "rows")
    with connect(settings, role=DatabaseRole.PIPELINE) as connection:
        connection.execute("DELETE FROM products")

    backup = SimpleNamespace(name="of this test", product="this")
    put_back_rows(settings, database, place, cast(Backup, backup))

    rows = database.tables["products"].rows
    assert rows > 0
    assert query(settings, "SELECT count(*) FROM products") == [(rows,)]
    # As a restore does with tables that are of the backup's revision, and of another.
    remake(settings, newest_revision())
    with connect(settings, role=DatabaseRole.OWNER) as connection:
        connection.execute("UPDATE clickstream_schema_version SET version_num = 'r0000'")
    remake(settings, newest_revision())
    prepare_roles(settings)
    assert not refused(settings, DatabaseRole.API, "SELECT FROM products")
    assert refused(settings, DatabaseRole.API, "SELECT FROM report_mails")


def test_dagsters_database_is_copied_as_its_own_role(settings: Settings):
    login = settings.login(DatabaseRole.DAGSTER)
    url = (
        f"postgresql://{login.user}:{login.password.get_secret_value()}@{settings.postgres_host}:"
        f"{settings.postgres_port}/{settings.dagster_postgres_db}"
    )
    storage = PostgresRunStorage(url, should_autocreate_tables=False)
    instance = SimpleNamespace(run_storage=storage)
    its_own = database_of(cast(dg.DagsterInstance, instance), settings)
    with moment(its_own) as connection:
        asked = connection.execute("SELECT current_user::text, current_database()").fetchone()
    assert asked == (login.user, settings.dagster_postgres_db)
