"""The API of a version before goes on while the tables are migrated: its statements, run as its role, on real rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from clickstream_assets.settings import DatabaseRole, Settings
from clickstream_assets.stores.postgres.migrate import MIGRATIONS, migrate, newest_revision
from clickstream_assets.stores.postgres.roles import prepare_roles
from clickstream_assets_tests.databases import PrivateServer, fresh_database, query
from clickstream_assets_tests.stores.postgres.contract import Contract, answers, contracts, fill, record
from clickstream_assets_tests.stores.postgres.test_roles import new_owner, with_roles

COMMAND = "python -m clickstream_assets_tests.stores.postgres.contract"
WRITTEN = contracts()
NEXT = '''"""Next."""

from alembic import op

revision = "{number}"
down_revision = "{before}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    op.execute("{statement}")
'''


def database_at(server: PrivateServer, contract: Contract) -> Settings:
    """A database as the contract's version has left it, with a role for its API."""
    settings = with_roles(new_owner(server.settings, "CREATEROLE CREATEDB"))
    migrate(settings, contract.revision)
    prepare_roles(settings)
    fill(settings, contract)
    return settings


def test_this_versions_contract_is_what_its_api_reads(postgres: Settings) -> None:
    with fresh_database(postgres) as settings:
        now = record(settings)
    assert now.version in WRITTEN, f"run {COMMAND}"
    written = WRITTEN[now.version]
    assert (written.revision, written.statements.keys()) == (now.revision, now.statements.keys()), (
        f"the API reads other things than {written.path.name} says; run {COMMAND}"
    )
    assert len(now.statements) > 100
    assert now.rows.keys() >= {"clickstream_sessions", "carts", "user_segments", "product_recommendations"}


@pytest.mark.parametrize("version", WRITTEN)
def test_the_api_of_a_version_goes_on_in_the_tables_of_this_one(
    private_postgres: PrivateServer, version: str
) -> None:
    contract = WRITTEN[version]
    settings = database_at(private_postgres, contract)
    before = answers(settings, contract, DatabaseRole.API)
    assert [name for name, answer in before.items() if isinstance(answer, str)] == []
    assert sum(bool(rows) for _, rows in before.values()) > 50
    assert migrate(settings).revision == newest_revision()
    after = answers(settings, contract, DatabaseRole.API)
    assert {name: answer for name, answer in after.items() if answer != before[name]} == {}


@pytest.mark.parametrize(
    ("statement", "goes_on"),
    [
        ("ALTER TABLE carts ADD COLUMN colour text", True),
        ("ALTER TABLE carts ADD COLUMN weight int NOT NULL DEFAULT 0", True),
        ("CREATE TABLE colours (colour text)", True),
        ("CREATE INDEX carts_items ON carts (items)", True),
        ("ALTER TABLE carts DROP COLUMN value", False),
        ("ALTER TABLE carts RENAME COLUMN value TO worth", False),
        ("ALTER TABLE carts ALTER COLUMN value TYPE text", False),
        ("ALTER TABLE carts RENAME TO baskets", False),
        ("DROP TABLE funnel", False),
        ("UPDATE carts SET value = value + 1", False),
        ("REVOKE SELECT ON carts FROM {api}", False),
    ],
)
def test_a_migration_that_takes_something_away_from_the_version_before_is_noticed(
    private_postgres: PrivateServer, tmp_path: Path, statement: str, goes_on: bool
) -> None:
    contract = next(reversed(WRITTEN.values()))
    settings = database_at(private_postgres, contract)
    before = answers(settings, contract, DatabaseRole.API)
    folder = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, folder)
    number = f"{int(newest_revision()) + 1:04}"
    values: dict[str, Any] = {"number": number, "before": newest_revision()}
    text = NEXT.format(**values, statement=statement.format(api=settings.postgres_api_user))
    (folder / "versions" / f"r{number}_next.py").write_text(text)
    assert migrate(settings, migrations=folder).revision == number
    after = answers(settings, contract, DatabaseRole.API)
    assert (after == before) is goes_on
    assert query(settings, "SELECT version_num FROM clickstream_schema_version") == [(number,)]
