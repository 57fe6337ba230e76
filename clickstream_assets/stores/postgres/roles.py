"""Roles in PostgreSQL with the rights that a process needs and no more: the API's, the pipeline's and Dagster's.

The owner, POSTGRES_USER, makes the tables and these roles. The API reads what it serves. The pipeline changes rows and
no tables. Dagster has another database, which is its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from clickstream_assets.settings import DatabaseRole, Login, Settings
from clickstream_assets.stores.postgres.connection import PostgresError, PostgresProblem, connect, explained

NOT_READ_BY_THE_API = (
    "erased_places",
    "notified_alerts",
    "published_parts",
    "report_mails",
    "stream_batches",
    "stream_progress",
)
"""Tables that the pipeline keeps for itself: to whom reports were mailed, and how far it has come."""
# Any number will do, as long as nobody else takes it: "clickrol" in ASCII.
_ADVISORY_LOCK = 0x636C69636B726F6C

_OF_THE_API = """\
GRANT CONNECT ON DATABASE {database} TO {role};
GRANT USAGE ON SCHEMA public TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
REVOKE SELECT ON {kept} FROM {role};
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {role};
"""
_OF_THE_PIPELINE = """\
GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {role};
GRANT USAGE ON SCHEMA public TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {role};
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role};
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO {role};
"""
# Which migrations there were is the owner's to say.
_OF_BOTH = """\
REVOKE INSERT, UPDATE, DELETE ON clickstream_schema_version FROM {role};
"""
# A sequence of a column goes with its table.
_OTHERS_RELATIONS = """\
SELECT relname, relkind = 'S' FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S')
AND relowner = current_user::regrole
AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid
                AND deptype IN ('a', 'i'))
ORDER BY relname
"""


def prepare_roles(settings: Settings) -> list[str]:
    """Make the roles that the settings name, or give those that are there their password and their rights.

    After a migration, as the rights are on tables; those of later ones come by themselves. May be repeated, also at the
    same time. Where the owner may not make roles, those that an administrator has made get their rights all the same.

    Returns:
        What was done, a sentence for each role.

    Raises:
        PostgresError: a role is missing and the owner may not make it, or Dagster's database cannot be given to it.
    """
    logins = {
        role: settings.login(role)
        for role in (DatabaseRole.API, DatabaseRole.PIPELINE, DatabaseRole.DAGSTER)
        if settings.login(role).role is role
    }
    if not logins:
        return []
    done = []
    with explained(settings, DatabaseRole.OWNER), connect(settings, role=DatabaseRole.OWNER) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_ADVISORY_LOCK])
        for role, login in logins.items():
            made = _make(connection, login, settings)
            if role is not DatabaseRole.DAGSTER:
                _grant(connection, role, login.user, settings.postgres_db)
            done.append(f"{'made' if made else 'there is'} the role {login.user} ({login.setting}_USER)")
        # By default everybody may in a database from before PostgreSQL 15.
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    if dagster := logins.get(DatabaseRole.DAGSTER):
        _give_database(settings, dagster)
    return done


def _make(connection: psycopg.Connection, login: Login, settings: Settings) -> bool:
    """Make a role, or give it its password; return whether it was made."""
    found = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = %s", [login.user]).fetchone()
    if found and found[0]:
        raise PostgresError(
            PostgresProblem.NOT_ALLOWED,
            f"{login.setting}_USER={login.user} is a superuser, who may do everything; name another role",
        )
    # As the server keeps it, so that the password is in no log of statements.
    password = login.password.get_secret_value().encode()
    kept = connection.pgconn.encrypt_password(password, login.user.encode()) if password else b""
    options: Composed = SQL("LOGIN").format()
    if kept:
        options += SQL(" PASSWORD ") + Literal(kept.decode())
    statement = SQL("ALTER ROLE {} ") if found else SQL("CREATE ROLE {} ")
    try:
        with connection.transaction():
            connection.execute(statement.format(Identifier(login.user)) + options)
    except psycopg.errors.InsufficientPrivilege:
        if found:
            # It is an administrator's, with its password.
            return False
        raise PostgresError(
            PostgresProblem.NOT_ALLOWED,
            f"POSTGRES_USER={settings.postgres_user} may make no roles, and {login.setting}_USER={login.user} is "
            f"missing. As the server's administrator: ALTER ROLE {settings.postgres_user} CREATEROLE; or make the role "
            "yourself, with its password",
        ) from None
    return not found


def _grant(connection: psycopg.Connection, role: DatabaseRole, user: str, database: str) -> None:
    """Give a role its rights on the served tables, and take those that it no longer is to have."""
    names: dict[str, Composable] = {
        "role": Identifier(user),
        "database": Identifier(database),
        "kept": SQL(", ").join(map(Identifier, NOT_READ_BY_THE_API)),
    }
    statements = _OF_THE_API if role is DatabaseRole.API else _OF_THE_PIPELINE
    for statement in _statements(statements + _OF_BOTH):
        connection.execute(SQL(statement).format(**names))


def _statements(text: str) -> Iterable[Any]:
    return (statement for statement in text.split(";\n") if statement)


def _give_database(settings: Settings, dagster: Login) -> None:
    """Make Dagster's database its role's own, with what is in it, and nobody else's."""
    name, owner = settings.dagster_postgres_db, Identifier(settings.postgres_user)
    names = {"database": Identifier(name), "role": Identifier(dagster.user), "owner": owner}
    with (
        explained(settings, DatabaseRole.OWNER),
        connect(settings, role=DatabaseRole.OWNER, autocommit=True) as connection,
    ):
        found = connection.execute(
            "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", [name]
        ).fetchone()
        if found == (dagster.user,):
            return
        try:
            # Who gives something away has to be able to be the one who gets it.
            connection.execute(SQL("GRANT {role} TO {owner} WITH SET TRUE, INHERIT TRUE").format(**names))
            if found is None:
                connection.execute(SQL("CREATE DATABASE {database} OWNER {role}").format(**names))
            else:
                _give_relations(settings, names)
                connection.execute(SQL("ALTER DATABASE {database} OWNER TO {role}").format(**names))
            connection.execute(SQL("REVOKE ALL ON DATABASE {database} FROM PUBLIC").format(**names))
            connection.execute(SQL("REVOKE {role} FROM {owner} GRANTED BY {owner}").format(**names))
        except psycopg.errors.InsufficientPrivilege as error:
            raise PostgresError(
                PostgresProblem.NOT_ALLOWED,
                f"{error.diag.message_primary}: POSTGRES_USER={settings.postgres_user} cannot make "
                f"DAGSTER_POSTGRES_DB={name} a database of DAGSTER_POSTGRES_USER={dagster.user}. As the server's "
                f"administrator: ALTER ROLE {settings.postgres_user} CREATEROLE CREATEDB; or ALTER DATABASE {name} "
                f"OWNER TO {dagster.user}; and REVOKE ALL ON DATABASE {name} FROM PUBLIC",
            ) from None


def _give_relations(settings: Settings, names: dict[str, Identifier]) -> None:
    """Give Dagster's role the tables that the owner has made in that database; not REASSIGN, which gives databases."""
    there = settings.model_copy(update={"postgres_db": settings.dagster_postgres_db})
    with connect(there, role=DatabaseRole.OWNER) as connection:
        connection.execute(SQL("GRANT USAGE, CREATE ON SCHEMA public TO {role}").format(**names))
        for relation, is_sequence in connection.execute(_OTHERS_RELATIONS).fetchall():
            kind = SQL("SEQUENCE") if is_sequence else SQL("TABLE")
            statement = SQL("ALTER {} {} OWNER TO {}")
            connection.execute(statement.format(kind, Identifier(relation), names["role"]))
