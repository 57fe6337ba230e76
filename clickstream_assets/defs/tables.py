"""What every table asset says about itself, from the table's schema."""

from datetime import timedelta
from typing import Any

import dagster as dg

from clickstream_assets.catalogue import Table
from clickstream_assets.settings import load_settings

OWNERS = ["team:clickstream"]
_HOURS = load_settings().freshness_hours
FRESHNESS = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(hours=_HOURS), warn_window=timedelta(hours=_HOURS * 0.9)
)
"""All assets are brought up to date within a shop's day; what is not, Dagster calls stale."""

FIRST = {"dagster/priority": "1"}
"""Tags of the steps between new events and new recommendations: what else a run does can wait for these."""


def describe(*tables: Table) -> dict[str, Any]:
    """Return definition metadata: the columns, and for a single table its name and key."""
    (table, *others) = tables
    metadata: dict[str, Any] = {
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(
                    name=column.name,
                    type=str(column.type),
                    description=column.description,
                    constraints=dg.TableColumnConstraints(
                        nullable=column.nullable, unique=table.key == (column.name,)
                    ),
                )
                for column in table.columns
            ]
        ),
        "dagster/table_name": table.name,
        "grain": table.grain,
        "key": ", ".join(table.key),
    }
    if others:
        metadata["other_tables"] = ", ".join(other.name for other in others)
    return metadata
