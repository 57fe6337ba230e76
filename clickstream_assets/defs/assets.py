"""The decorator of all assets: group, kinds, owner, freshness, days, columns, explained errors and row counts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import timedelta
from functools import wraps
from typing import Any, TypeAlias

import dagster as dg

from clickstream_assets.catalogue import TABLES, Table
from clickstream_assets.defs.dagster_private import PRIORITY_TAG
from clickstream_assets.defs.partitions import daily, days_of
from clickstream_assets.defs.steps import SOON, Retry, step
from clickstream_assets.settings import load_settings

Metadata: TypeAlias = Mapping[str, Any]
OWNERS = ["team:clickstream"]
_HOURS = load_settings().freshness_hours
FRESHNESS = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(hours=_HOURS), warn_window=timedelta(hours=_HOURS * 0.9)
)
"""All assets are brought up to date within a shop's day; what is not, Dagster calls stale."""
URGENT = {PRIORITY_TAG: "1"}
"""Tags of the steps between new events and new recommendations; all other steps of a run can wait for these."""


def table_spec(
    *tables: Table,
    name: str | None = None,
    deps: Iterable[dg.AssetDep | str],
    kinds: Collection[str] = ("delta",),
    **more: Any,
) -> dg.AssetSpec:
    """Describe an asset by its tables.

    Args:
        tables: the one that the asset shows, and others that it has.
        name: the asset's name (default: that of the first table).
        deps: what it reads.
        kinds: what it is kept in and made by; the lake is `delta`.
        more: further attributes of the spec.
    """
    metadata: dict[str, Any] = {}
    if tables:
        (table, *others) = tables
        metadata = {
            "dagster/column_schema": _column_schema(table),
            "dagster/table_name": table.name,
            "grain": table.grain,
            "key": ", ".join(table.key),
        }
        if others:
            metadata["other_tables"] = ", ".join(other.name for other in others)
    return dg.AssetSpec(
        name or tables[0].name,
        deps=list(deps),
        kinds=set(kinds),
        owners=OWNERS,
        freshness_policy=FRESHNESS,
        metadata=metadata | more.pop("metadata", {}),
        **more,
    )


def tables_in_lake(spec: dg.AssetSpec) -> list[Table]:
    """Return the tables of an asset that the lake has."""
    if "delta" not in spec.kinds:
        return []
    names = [spec.metadata["dagster/table_name"], *spec.metadata.get("other_tables", "").split(", ")]
    return [TABLES[name] for name in names if name]


def table_asset(
    *tables: Table,
    is_daily: bool = False,
    op_tags: Mapping[str, str] | None = None,
    retry: Retry = SOON,
    **spec: Any,
) -> Callable[[Callable[..., Metadata | None]], dg.AssetsDefinition]:
    """Make an asset of a function that writes tables and returns metadata, or None where it did nothing.

    The function's name is the asset's, its docstring the description. `spec` are arguments of `table_spec`, the others
    those of `table_assets`.
    """

    def decorate(body: Callable[..., Metadata | None]) -> dg.AssetsDefinition:
        name = body.__name__

        @wraps(body)
        def reported(**given: Any) -> dict[str, Metadata]:
            metadata = body(**given)
            return {} if metadata is None else {name: metadata}

        described = table_spec(*tables, name=name, description=body.__doc__, **spec)
        return table_assets(described, is_daily=is_daily, op_tags=op_tags, retry=retry)(reported)

    return decorate


def table_assets(
    *specs: dg.AssetSpec,
    is_daily: bool = False,
    op_tags: Mapping[str, str] | None = None,
    retry: Retry = SOON,
) -> Callable[[Callable[..., Mapping[str, Metadata]]], dg.AssetsDefinition]:
    """Make assets of one function that writes their tables and returns metadata by the assets' names.

    Their group is the folder under `defs` that the function is in. The number of rows is added to the metadata of what
    is in the lake, of which the function has to ask for `lake`.

    Args:
        specs: made by `table_spec`.
        is_daily: Whether they have a partition per day; a run takes a day, or several in a row at once.
        op_tags: tags of their step.
        retry: how often, and when, the step is tried again.
    """

    def decorate(body: Callable[..., Mapping[str, Metadata]]) -> dg.AssetsDefinition:
        def results(reported: Mapping[str, Metadata], given: Mapping[str, Any]) -> list[dg.MaterializeResult]:
            return [
                dg.MaterializeResult(
                    asset_key=spec.key,
                    metadata={**_row_counts(spec, given, is_daily), **reported[spec.key.path[-1]]},
                )
                for spec in specs
                if spec.key.path[-1] in reported
            ]

        return dg.multi_asset(
            name=body.__name__,
            specs=specs,
            group_name=body.__module__.split(".")[2],
            partitions_def=daily() if is_daily else None,
            backfill_policy=dg.BackfillPolicy.single_run() if is_daily else None,
            op_tags=op_tags,
        )(step(body, results, retry))

    return decorate


def _row_counts(spec: dg.AssetSpec, given: Mapping[str, Any], is_daily: bool) -> dict[str, int]:
    """Return the rows of an asset's first table: all of them, and of a daily asset those of the run."""
    tables = tables_in_lake(spec)
    if not tables:
        return {}
    snapshot = given["lake"].snapshot(tables[0])
    counts = {"dagster/row_count": snapshot.rows}
    if is_daily:
        first, last = days_of(given["context"])
        per_day = snapshot.rows_by(str(tables[0].day))
        counts["dagster/partition_row_count"] = sum(n for day, n in per_day.items() if first <= day <= last)
    return counts


def _column_schema(table: Table) -> dg.TableSchema:
    return dg.TableSchema(
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
    )
