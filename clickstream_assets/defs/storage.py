"""Dagster's PostgreSQL storage, with connections that are kept open."""

from __future__ import annotations

import json
import os
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import create_pg_engine, get_token_provider_from_config, pg_url_from_config
from sqlalchemy import event

from clickstream_assets.defs.dagster_private import (
    ConfigurableClassData,
    remember_columns,
    use_engine,
    write_in_batches,
)
from clickstream_assets.settings import DatabaseRole, DatabaseSettings, load_database_settings

if TYPE_CHECKING:
    from dagster_postgres.auth import PgTokenProvider
    from sqlalchemy import Engine


EVENTS_PER_BATCH = 1000


class PooledPostgresStorage(DagsterPostgresStorage):
    """`DagsterPostgresStorage`, all of whose instances in a process share one pool of connections.

    The base class opens a connection for each query, and each event of a run is a query: 9 ms of processor time
    every time, on either side. That was a third of all that a small run takes. Events that come together, as those
    that a run over many days plans and reports for each day and asset, are written together. And no event waits until
    it is on disk: PostgreSQL writes in order, so that a publication that is on disk has all events before it there too,
    and a run whose last events a crash of PostgreSQL takes is asked for again as any that did not end.
    """

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,
        inst_data: ConfigurableClassData | None = None,
        token_provider: PgTokenProvider | None = None,
    ) -> None:
        super().__init__(postgres_url, should_autocreate_tables, inst_data, token_provider)
        use_engine(self, _pool(postgres_url, token_provider))
        remember_columns(self)
        # Dagster's only switch for it.
        os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", str(EVENTS_PER_BATCH))
        write_in_batches(self)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:
        """Make it from what dagster.yaml says, as Dagster does; what that leaves out is as the settings say.

        Raises:
            SettingsError: one of them cannot be used.
        """
        if not config_value.get("postgres_url") and "postgres_db" not in config_value:
            config_value = {**config_value, "postgres_db": _database(load_database_settings())}
        return cls(
            postgres_url=pg_url_from_config(config_value),
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
            inst_data=inst_data,
            token_provider=_token_provider(json.dumps(config_value, sort_keys=True)),
        )


def _database(settings: DatabaseSettings) -> dict[str, Any]:
    """Return what `postgres_db` in dagster.yaml would be."""
    login = settings.login(DatabaseRole.DAGSTER)
    return {
        "hostname": settings.postgres_host,
        "port": settings.postgres_port,
        "username": login.user,
        "password": login.password.get_secret_value(),
        "db_name": settings.dagster_postgres_db,
    }


@cache
def _token_provider(config: str) -> PgTokenProvider | None:
    # One per configuration: the pool is that of its provider, and a provider keeps its token until it expires.
    return get_token_provider_from_config(json.loads(config))


@cache
def _pool(url: str, token_provider: PgTokenProvider | None) -> Engine:
    engine = create_pg_engine(
        url,
        token_provider,
        isolation_level="AUTOCOMMIT",
        # Nobody waits for a connection; what is beyond the size is closed after use.
        pool_size=2,
        max_overflow=-1,
        # The server may have been started again since.
        pool_pre_ping=True,
    )
    event.listen(engine, "connect", _commit_without_waiting)
    return engine


def _commit_without_waiting(connection: Any, _: object) -> None:
    # No `options` of the connection, which poolers such as PgBouncer refuse.
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit TO off")
    connection.commit()
