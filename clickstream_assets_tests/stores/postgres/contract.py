"""What the API of a version reads in PostgreSQL: the statements of its routes, and rows of the tables as they were.

    python -m clickstream_assets_tests.stores.postgres.contract

writes the file of this version, in `contracts/`. That of a released version stays as it is: the tables of the next one
are held to it, since an API of before goes on while the database is migrated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from flask.testing import FlaskClient
from psycopg import sql

from clickstream_assets.api.database import _Connection
from clickstream_assets.settings import DatabaseRole, Settings
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets.stores.postgres.metadata import METADATA
from clickstream_assets.stores.postgres.migrate import newest_revision
from clickstream_assets_tests.api.conftest import PATHS, clients_of, publish
from clickstream_assets_tests.databases import fresh_database, private_server
from clickstream_assets_tests.stores.postgres.test_roles import IN_PATHS

FOLDER = Path(__file__).parent / "contracts"
_SAMPLES = {"integer": "1", "number": "1", "boolean": "true", "string": "p1"}
_FORMATS = {"date": "2024-05-08", "date-time": "2024-05-08T12:00:00Z"}


class Contract(msgspec.Struct, frozen=True):
    """What the API of a version reads.

    Attributes:
        version: The product's.
        revision: That of its tables.
        statements: Each that its routes run, as they write it, with one that was run.
        rows: Rows of each table that has any, as CSV with a header.
    """

    version: str
    revision: str
    statements: dict[str, str]
    rows: dict[str, str]

    @property
    def path(self) -> Path:
        """Its file."""
        return FOLDER / f"{self.version}.json"

    def write(self) -> None:
        """Write its file."""
        self.path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")


def contracts() -> dict[str, Contract]:
    """Return the contracts that there are, by the product's version."""
    found = [msgspec.json.decode(path.read_bytes(), type=Contract) for path in sorted(FOLDER.glob("*.json"))]
    return {contract.version: contract for contract in found}


def record(settings: Settings) -> Contract:
    """Record what this version's API reads in a database that has its tables, and no rows."""
    publish(settings)
    with recorded() as statements:
        for client in clients_of(settings):
            for address in addresses(client):
                client.get(address)
    return Contract(version("clickstream-assets"), newest_revision(), statements, rows_of(settings))


def addresses(client: FlaskClient) -> Iterator[str]:
    """Yield an address for each route that is read, and for each of its parameters and their choices."""
    paths: Mapping[str, Any] = client.application.spec["paths"]  # type: ignore[attr-defined]
    # Live events are Elasticsearch's.
    for path in (path for path in PATHS if path != "/real-time-events"):
        address = path.format(**IN_PATHS)
        yield address
        for parameter in paths.get(path, {}).get("get", {}).get("parameters", ()):
            if parameter["in"] == "query":
                yield from (
                    f"{address}?{parameter['name']}={value}" for value in samples(parameter["schema"])
                )


def samples(schema: Mapping[str, Any]) -> list[str]:
    """Return values that a parameter may have: all of a choice, or one."""
    if "enum" in schema:
        return [str(value) for value in schema["enum"]]
    kinds = schema.get("type", "string")
    kind = kinds if isinstance(kinds, str) else kinds[0]
    return [_FORMATS.get(schema.get("format", ""), _SAMPLES.get(kind, "p1"))]


@contextmanager
def recorded() -> Iterator[dict[str, str]]:
    """Record the statements that the API runs, each once, with the values of its first time."""
    found: dict[str, str] = {}
    execute = psycopg.Cursor.execute

    def record_and_execute(self: Any, query: Any, params: Any = None, **options: Any) -> Any:
        if isinstance(self.connection, _Connection) and query is not None:
            text = query.as_string(self) if isinstance(query, sql.Composable) else query
            text = text.decode() if isinstance(text, bytes) else text
            if not text.startswith("BEGIN"):
                with_values = psycopg.ClientCursor(self.connection).mogrify(query, params)
                found.setdefault(without_days(text), with_values)
        return execute(self, query, params, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(psycopg.Cursor, "execute", record_and_execute)
        yield found


def without_days(text: str) -> str:
    """Return a statement without today's date, by which it would be another one tomorrow."""
    return re.sub(rf"{date.today():%Y}-\d\d-\d\d", "today", text)


def rows_of(settings: Settings) -> dict[str, str]:
    """Return the rows of each table that has any, as CSV."""
    found = {}
    with connect(settings) as connection, connection.cursor() as cursor:
        for table in sorted(METADATA.tables):
            statement = sql.SQL("COPY {} TO STDOUT (FORMAT csv, HEADER)").format(sql.Identifier(table))
            with cursor.copy(statement) as copy:
                text = b"".join(bytes(part) for part in copy).decode()
            if text.count("\n") > 1:
                found[table] = text
    return found


def fill(settings: Settings, contract: Contract) -> None:
    """Write the rows of a contract into tables of its revision."""
    with connect(settings, role=DatabaseRole.OWNER) as connection, connection.cursor() as cursor:
        for table, text in contract.rows.items():
            columns = text.partition("\n")[0].split(",")
            statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv, HEADER)").format(
                sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
            )
            with cursor.copy(statement) as copy:
                copy.write(text)


def answers(settings: Settings, contract: Contract, role: DatabaseRole) -> dict[str, Any]:
    """Return what the statements of a contract answer: columns with their types, and rows; or what is wrong."""
    found: dict[str, Any] = {}
    with connect(settings, autocommit=True, role=role) as connection:
        connection.execute("SET default_transaction_read_only = on")
        for name, statement in contract.statements.items():
            try:
                cursor = connection.execute(statement.encode())
            except psycopg.Error as error:
                found[name] = str(error.diag.message_primary)
                continue
            columns = [(column.name, column.type_code) for column in cursor.description or ()]
            found[name] = columns, sorted(cursor.fetchall(), key=repr)
    return found


def main() -> None:
    """Write the contract of this version."""
    with private_server() as server, fresh_database(server.settings) as settings:
        record(settings).write()


if __name__ == "__main__":
    main()
