"""Keeps the record of incidents in Dagster's storage, beside the cursors of its daemons."""

from __future__ import annotations

import dagster as dg

from clickstream_assets.defs.dagster_private import keep_text, kept_text
from clickstream_assets.defs.incidents.record import Record

_KEY = "clickstream/incidents"


def kept(instance: dg.DagsterInstance) -> Record:
    """Return the record as it was kept last; an empty one before the first time."""
    text = kept_text(instance, _KEY)
    return Record.model_validate_json(text) if text else Record()


def keep(instance: dg.DagsterInstance, record: Record) -> None:
    """Keep the record."""
    keep_text(instance, _KEY, record.model_dump_json())
