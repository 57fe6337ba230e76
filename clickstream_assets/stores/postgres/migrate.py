"""Bring PostgreSQL's tables to the form that this version of the product writes and reads."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from psycopg import errors, sql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from clickstream_assets.settings import DatabaseRole, Settings
from clickstream_assets.stores.postgres.connection import PostgresError, PostgresProblem, connect, explained
from clickstream_assets.stores.postgres.metadata import METADATA, VERSION_TABLE
from clickstream_assets.stores.postgres.statements import each

MIGRATIONS = Path(__file__).parent / "migrations"
ADVISORY_LOCK = 0x636C69636B737472
"""Held by who migrates. Any number will do, as long as nobody else takes it: "clickstr" in ASCII."""


class Migration(NamedTuple):
    """Migration of a database: the revision that it was at (None: it had no tables of ours), and that it is at.

    `applied` names each migration that was run: `0002 Devices of sessions`.
    """

    before: str | None
    revision: str
    applied: list[str]


def migrate(settings: Settings, revision: str = "head", migrations: Path = MIGRATIONS) -> Migration:
    """Upgrade the database to a revision, the newest by default; two at once wait for each other.

    Returns:
        What was done.

    Raises:
        PostgresError: the database cannot be reached, a table that is not ours is in the way, another version of the
            product made the tables, or a lock was not to be had in MIGRATION_LOCK_SECONDS. Nothing was changed.
    """
    config = _config(migrations)
    _run(settings, config, lambda config: command.upgrade(config, revision))
    done = config.attributes
    applied = [f"{script.revision} {script.doc.rstrip('.')}" for script in done["applied"]]
    return Migration(done["before"], done["revision"], applied)


def newest_revision(migrations: Path = MIGRATIONS) -> str:
    """Return the revision that the tables of this version of the product are at."""
    head = ScriptDirectory.from_config(_config(migrations)).get_current_head()
    assert head
    return head


def remake(settings: Settings, revision: str, migrations: Path = MIGRATIONS) -> None:
    """Give a database without rows of ours the tables of a revision, which may be an older one than it has.

    Raises:
        PostgresError: as `migrate`.
    """
    owner = DatabaseRole.OWNER
    with explained(settings, owner), connect(settings, role=owner) as connection:
        if connection.execute("SELECT to_regclass(%s)", [VERSION_TABLE]).fetchone() != (None,):
            found = connection.execute(
                sql.SQL("SELECT version_num FROM {}").format(sql.Identifier(VERSION_TABLE))
            ).fetchone()
            if found == (revision,):
                return
            names = each("{}", [VERSION_TABLE, *METADATA.tables])
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(names))
    migrate(settings, revision, migrations)


def write_migration(
    settings: Settings, message: str, metadata: sa.MetaData = METADATA, migrations: Path = MIGRATIONS
) -> Path | None:
    """Write the migration from the newest revision to the tables as they are declared, by Alembic's autogenerate.

    It compares with a database of its own, which it makes on the settings' server and drops. It sees tables, columns
    with type, null and default, keys and indexes by name; not the order of columns, CHECK constraints, or an index's
    condition and direction.

    Args:
        settings: The server.
        message: Name of the migration, in words.
        metadata: The tables as they are to be.
        migrations: Folder of the environment and the revisions.

    Returns:
        The new file; None where there is nothing to change.

    Raises:
        PostgresError: the server cannot be reached, or the user may not create a database.
    """
    scratch = f"clickstream_migration_{uuid4().hex}"
    own = Settings(**{**settings.model_dump(), "postgres_db": scratch})
    owner = DatabaseRole.OWNER
    with explained(settings, owner), connect(settings, autocommit=True, role=owner) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(scratch)))
        try:
            newest = migrate(own, migrations=migrations).revision
            return _autogenerate(own, message, f"{int(newest) + 1:04}", metadata, migrations)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(scratch)))


def _autogenerate(
    settings: Settings, message: str, revision: str, metadata: sa.MetaData, migrations: Path
) -> Path | None:
    def leave_out_an_empty_one(*arguments: Any) -> None:
        directives = arguments[2]
        if directives[0].upgrade_ops.is_empty():
            directives.clear()

    config = _config(migrations)
    config.attributes["metadata"] = metadata
    written: list[Any] = []

    def revise(config: Config) -> None:
        script = command.revision(
            config,
            message,
            autogenerate=True,
            rev_id=revision,
            process_revision_directives=leave_out_an_empty_one,
        )
        written.append(script)

    _run(settings, config, revise)
    return Path(written[0].path) if written[0] else None


def _config(migrations: Path) -> Config:
    config = Config()
    for name, value in (("script_location", str(migrations)), ("file_template", "r%(rev)s_%(slug)s")):
        config.set_main_option(name, value.replace("%", "%%"))
    return config


def _run(settings: Settings, config: Config, run: Callable[[Config], object]) -> None:
    """Run a command of Alembic in one transaction; others who run one wait until it ends."""
    owner = DatabaseRole.OWNER
    engine = sa.create_engine(
        "postgresql+psycopg://", creator=lambda: connect(settings, role=owner), poolclass=NullPool
    )
    with explained(settings, owner):
        try:
            with engine.begin() as connection:
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
                # While it waits for a table, whoever wants to read that waits behind it.
                wait = f"{settings.migration_lock_seconds:g}s"
                connection.execute(sa.text("SELECT set_config('lock_timeout', :wait, true)"), {"wait": wait})
                config.attributes["connection"] = connection
                run(config)
        except DBAPIError as error:
            if isinstance(error.orig, errors.LockNotAvailable):
                raise _locked(settings, str(error.statement)) from error
            if error.orig is None:
                raise
            raise error.orig from error
        except CommandError as error:
            raise PostgresError(
                PostgresProblem.OTHER_VERSION,
                f"{error}, in POSTGRES_DB={settings.postgres_db}; install that version, or set POSTGRES_DB to another "
                "database",
            ) from error


def _locked(settings: Settings, statement: str) -> PostgresError:
    """Return the error for a statement that got no lock in time, with who has one on its tables, longest first."""
    query = (
        "SELECT relname, pid, application_name, state, extract(epoch FROM now() - xact_start)::bigint "
        "FROM pg_locks JOIN pg_class ON pg_class.oid = relation JOIN pg_stat_activity USING (pid) "
        "WHERE locktype = 'relation' AND granted AND pid <> pg_backend_pid() "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND relnamespace = current_schema()::regnamespace AND relkind = 'r' ORDER BY xact_start, relname"
    )
    with connect(settings) as connection:
        found = connection.execute(query).fetchall()
    words = set(re.findall(r"\w+", statement))
    holders = {
        pid: f"table {table} is held by process {pid} ({name or 'without a name'}, {state} for {seconds:,} s)"
        for table, pid, name, state, seconds in reversed(found)
        if table in words
    }
    who = "; ".join([*holders.values()][::-1]) or "whoever had it has ended by now"
    return PostgresError(
        PostgresProblem.BUSY,
        f"the migration of POSTGRES_DB={settings.postgres_db} got no lock in MIGRATION_LOCK_SECONDS="
        f"{settings.migration_lock_seconds:g}: {who}. Nothing was changed; let that end, or end it by `SELECT "
        "pg_terminate_backend(PID)`, and run `clickstream prepare` again",
    )
