from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets.stores.postgres.migrate import migrate
from clickstream_assets_tests.api.conftest import clients_of, publish
from clickstream_assets_tests.databases import (
    PrivateServer,
    free_port,
    fresh_database,
    with_settings,
)
from clickstream_assets_tests.tls import tls_front


@pytest.fixture(scope="module")
def server(private_postgres: PrivateServer) -> PrivateServer:
    migrate(private_postgres.settings)
    publish(private_postgres.settings)
    return private_postgres


@pytest.fixture
def client(server: PrivateServer, elasticsearch: Settings) -> Iterator[FlaskClient]:
    yield from clients_of(with_settings(server.settings, elasticsearch_url=elasticsearch.elasticsearch_url))


def test_service_is_ready_again_by_itself_after_postgresql_was_away(
    server: PrivateServer, client: FlaskClient
) -> None:
    assert client.get("/health/ready").json == {
        "status": "ready",
        "dependencies": {"postgres": "ok", "tables": "ok", "elasticsearch": "ok"},
    }
    assert client.get("/sessions?limit=1").status_code == 200

    server.stop()
    try:
        for path in ("/sessions", "/api/recommend/u1"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "5"
            assert answer.json["code"] == "postgres_unreachable"
            assert "127.0.0.1" not in answer.text
        not_ready = client.get("/health/ready")
        assert not_ready.status_code == 503
        assert not_ready.json["dependencies"] == {
            "postgres": "PostgreSQL cannot be reached",
            "tables": "unknown",
            "elasticsearch": "ok",
        }
        assert client.get("/real-time-events").status_code == 200
        metrics = client.get("/metrics").text
        assert "clickstream_postgres_up 0.0" in metrics
        for stream in ("product_windows", "live_events"):
            assert f'clickstream_stream_failing{{query="{stream}"}} 1.0' in metrics
        assert client.get("/health/live").json == {"status": "live"}
    finally:
        server.start()

    assert client.get("/health/ready").status_code == 200
    assert client.get("/sessions?limit=1").status_code == 200
    assert client.get("/api/recommend/u1").status_code == 200


def test_connections_that_a_restart_broke_are_replaced(server: PrivateServer, client: FlaskClient) -> None:
    assert client.get("/sessions").status_code == 200
    server.stop()
    server.start()
    assert client.get("/sessions").status_code == 200


def test_wrong_password_has_its_own_code_and_is_not_given_away(
    server: PrivateServer, caplog: pytest.LogCaptureFixture
) -> None:
    for client in clients_of(with_settings(server.settings, postgres_password="wr0ng")):
        answer = client.get("/sessions")
        assert answer.status_code == 503
        assert answer.json["code"] == "postgres_password"
        assert "POSTGRES_PASSWORD" in caplog.text
        assert "wr0ng" not in caplog.text + answer.text
        assert "password" in client.get("/health/ready").json["dependencies"]["postgres"]


def test_a_database_that_refuses_the_question_is_not_ready(server: PrivateServer) -> None:
    with connect(server.settings) as connection:
        connection.execute("CREATE ROLE curious LOGIN PASSWORD 'a secret'")
        connection.execute("REVOKE EXECUTE ON FUNCTION to_regclass FROM PUBLIC")
    for client in clients_of(with_settings(server.settings, postgres_user="curious")):
        answer = client.get("/health/ready")
        assert (answer.status_code, answer.json["code"]) == (503, "not_ready")
        assert answer.json["dependencies"]["postgres"] == "the user may not do this"


def test_missing_tables_are_named(postgres: Settings) -> None:
    with fresh_database(postgres, migrated=False) as empty:
        for client in clients_of(empty):
            tables = client.get("/health/ready").json["dependencies"]["tables"]
            assert "popular_products" in tables
            assert "run `clickstream prepare`" in tables
            assert client.get("/sessions").json["code"] == "postgres_table_missing"


def test_connections_can_only_read(client: FlaskClient) -> None:
    from psycopg.errors import ReadOnlySqlTransaction

    from clickstream_assets.api.database import EXTENSION
    from clickstream_assets.stores.postgres.connection import PostgresError

    database = client.application.extensions[EXTENSION]
    with pytest.raises(PostgresError) as caught, database.snapshot() as connection:
        connection.execute("DELETE FROM clickstream_sessions")
    assert isinstance(caught.value.__cause__, ReadOnlySqlTransaction)


def test_without_elasticsearch_all_but_its_own_route_goes_on(server: PrivateServer) -> None:
    port = free_port()
    for client in clients_of(with_settings(server.settings, elasticsearch_url=f"http://127.0.0.1:{port}")):
        answer = client.get("/real-time-events")
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "5"
        assert answer.json["code"] == "elasticsearch_unreachable"
        assert str(port) not in answer.text
        ready = client.get("/health/ready")
        assert (ready.status_code, ready.json["status"]) == (200, "degraded")
        assert ready.json["dependencies"]["elasticsearch"] == "Elasticsearch cannot be reached"
        for path in ("/sessions", "/api/recommend/u1", "/api/windows", "/api/alerts", "/metrics"):
            assert client.get(path).status_code == 200


def test_a_search_server_whose_certificate_is_of_a_private_authority_is_ready(
    server: PrivateServer, elasticsearch: Settings, tmp_path: Path
) -> None:
    with tls_front(int(elasticsearch.elasticsearch_url.rpartition(":")[2]), tmp_path) as front:
        encrypted = with_settings(server.settings, elasticsearch_url=f"https://127.0.0.1:{front.port}")
        known = with_settings(encrypted, elasticsearch_ca_file=front.ca_file)
        states = [
            client.get("/health/ready").json["dependencies"]["elasticsearch"]
            for settings in (known, encrypted)
            for client in clients_of(settings)
        ]
    assert states == ["ok", "Elasticsearch cannot be trusted"]
