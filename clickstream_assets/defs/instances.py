"""Dagster's instance, as commands open it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from dagster import DagsterError, DagsterInstance
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import SQLAlchemyError

from clickstream_assets.errors import InputError
from clickstream_assets.settings import Settings, SettingsError


@contextmanager
def dagsters_instance(settings: Settings) -> Iterator[DagsterInstance]:
    """Open the instance that DAGSTER_HOME names, and make its tables if they are missing.

    Raises:
        SettingsError: DAGSTER_HOME is not set.
        InputError: its storage cannot be read.
    """
    if settings.dagster_home is None:
        raise SettingsError("DAGSTER_HOME is not set; set it to the folder of Dagster's dagster.yaml")
    try:
        with _attempts_unsaid():
            instance = DagsterInstance.from_config(str(settings.dagster_home))
    except (DagsterError, DagsterPostgresException, SQLAlchemyError) as error:
        raise InputError(
            f"DAGSTER_HOME={settings.dagster_home}: Dagster's storage cannot be read ({_reason(error)}); start its "
            "database, or set DAGSTER_HOME to where its dagster.yaml is"
        ) from error
    with instance:
        yield instance


@contextmanager
def _attempts_unsaid() -> Iterator[None]:
    """Keep Dagster from logging each of its six attempts to connect, of four lines: the error says it once."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _reason(error: BaseException) -> str:
    """Return the first line of the cause of all: Dagster's own says that it has tried too often."""
    while error.__cause__:
        error = error.__cause__
    return str(error).strip().partition("\n")[0]
