import pytest

from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import PostgresError, PostgresProblem, connect
from clickstream_assets_tests.databases import PrivateServer, free_port, with_settings


@pytest.fixture(scope="module")
def settings(private_postgres: PrivateServer) -> Settings:
    """A server that asks for a password, which a local stack need not."""
    return private_postgres.settings


@pytest.mark.parametrize(
    ("changes", "problem", "message"),
    [
        (
            {"postgres_password": "wrong"},
            PostgresProblem.PASSWORD,
            r"POSTGRES_USER=owner .*POSTGRES_PASSWORD",
        ),
        ({"postgres_password": ""}, PostgresProblem.PASSWORD, "POSTGRES_PASSWORD is empty; set it"),
        ({"postgres_user": "nobody"}, PostgresProblem.PASSWORD, "POSTGRES_USER=nobody"),
        (
            {"postgres_db": "nowhere"},
            PostgresProblem.DATABASE_MISSING,
            r"POSTGRES_DB=nowhere .*`createdb nowhere`",
        ),
        (
            {"postgres_port": free_port()},
            PostgresProblem.UNREACHABLE,
            r"POSTGRES_PORT=\d+ .*Connection refused",
        ),
        (
            {"postgres_host": "no.such.host.invalid"},
            PostgresProblem.UNREACHABLE,
            "POSTGRES_HOST=no.such.host.invalid",
        ),
    ],
    ids=["wrong password", "no password", "unknown user", "no database", "nobody listens", "unknown host"],
)
def test_failed_connection_names_the_setting_and_the_fix(
    settings: Settings, changes: dict[str, object], problem: PostgresProblem, message: str
) -> None:
    with pytest.raises(PostgresError, match=message) as caught:
        connect(with_settings(settings, **changes))
    assert caught.value.problem is problem
    assert "a secret" not in str(caught.value)


def test_right_password_connects(settings: Settings) -> None:
    with connect(settings) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == ("clickstream",)
