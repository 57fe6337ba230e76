"""The decorator of all assets: group, kinds, owner, freshness, days, columns, explained errors and row counts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import wraps
from inspect import getdoc
from typing import Any, TypeAlias

import dagster as dg

from clickstream_assets.catalogue import TABLES, Table
from clickstream_assets.defs.code_links import code_link
from clickstream_assets.defs.dagster_private import PRIORITY_TAG
from clickstream_assets.defs.partitions import daily, days_of
from clickstream_assets.defs.steps import SOON, Retry, step
from clickstream_assets.settings import load_settings

Metadata: TypeAlias = Mapping[str, Any]
"""Values by their names; of a daily asset one may be `ByDay`."""
LAKE_VERSION = "lake_version"
"""Metadata of what is in the lake: the version of its first table, by which a lake of an earlier time is known."""
OWNERS = ["team:clickstream"]
_SETTINGS = load_settings()


def _within(window: timedelta) -> dg.FreshnessPolicy:
    return dg.FreshnessPolicy.time_window(fail_window=window, warn_window=0.9 * window)


FRESH_DAILY = _within(timedelta(hours=_SETTINGS.freshness_models_hours))
"""Freshness of what is made once a day, or takes long, and is good for a day."""
_FRESH_AS_INGEST = _within(timedelta(minutes=_SETTINGS.freshness_ingest_minutes))
FRESH_AS_TABLES = _within(timedelta(minutes=_SETTINGS.freshness_tables_minutes))
_FRESHNESS = {
    "raw": _FRESH_AS_INGEST,
    "windows": _FRESH_AS_INGEST,
    "sessions": FRESH_AS_TABLES,
    "segments": FRESH_AS_TABLES,
    "reports": FRESH_AS_TABLES,
    "products": FRESH_AS_TABLES,
    "serving": FRESH_AS_TABLES,
    "models": FRESH_DAILY,
    "predictions": FRESH_DAILY,
    "experiments": FRESH_DAILY,
}
"""Freshness of the assets of each group; Dagster says of one that is not brought up to date in time that it is overdue.
"""
PARTITION_ROW_COUNT = "dagster/partition_row_count"
URGENT = {PRIORITY_TAG: "1"}
"""Tags of the steps between new events and new recommendations; all other steps of a run can wait for these."""
LAST = {PRIORITY_TAG: "-1"}
"""Tags of steps that all others of a run come before."""


@dataclass(frozen=True)
class ByDay:
    """A value of metadata that each day of a run has for itself; a day that is not among them has none."""

    values: Mapping[date, Any]


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
            **place_of(table, kinds),
            "grain": table.grain,
            "key": ", ".join(table.key),
            "tables": ", ".join(each.name for each in tables),
        }
        if others:
            places = [place_of(other, kinds) for other in others]
            metadata["other_places"] = ", ".join(
                place.get("dagster/uri") or place["dagster/table_name"] for place in places
            )
    return dg.AssetSpec(
        name or tables[0].name,
        deps=list(deps),
        kinds=set(kinds),
        owners=OWNERS,
        metadata=metadata | more.pop("metadata", {}),
        **more,
    )


def place_of(table: Table, kinds: Collection[str]) -> dict[str, str]:
    """Return the metadata that say where a table is, as the settings have it: a path, or a database and its table.

    Args:
        table: the table.
        kinds: what its asset is kept in; a table that the lake and PostgreSQL have is in both.
    """
    place = {}
    if "delta" in kinds:
        place = {
            "dagster/uri": f"{_SETTINGS.lake}/{table.name}",
            "dagster/table_name": table.name,
            "dagster/storage_kind": "delta",
        }
    if "postgres" in kinds:
        place["dagster/table_name"] = in_postgres(table.served_name)
    if "elasticsearch" in kinds:
        place["dagster/table_name"] = _SETTINGS.elasticsearch_alias
    for kind in ("postgres", "elasticsearch"):
        if kind in kinds:
            place.setdefault("dagster/storage_kind", kind)
    return place


def in_postgres(table: str) -> str:
    """Return the name of a table with that of its database."""
    return f"{_SETTINGS.postgres_db}.{table}"


def tables_in_lake(spec: dg.AssetSpec) -> list[Table]:
    """Return the tables of an asset that the lake has."""
    if "delta" not in spec.kinds:
        return []
    return [TABLES[name] for name in spec.metadata["tables"].split(", ")]


def table_asset(
    *tables: Table,
    is_daily: bool = False,
    op_tags: Mapping[str, str] | None = None,
    retry: Retry = SOON,
    **spec: Any,
) -> Callable[[Callable[..., Metadata]], dg.AssetsDefinition]:
    """Make an asset of a function that writes tables and returns metadata.

    The function's name is the asset's, its docstring the description. `spec` are arguments of `table_spec`, the others
    those of `table_assets`.
    """

    def decorate(body: Callable[..., Metadata]) -> dg.AssetsDefinition:
        name = body.__name__

        @wraps(body)
        def reported(**given: Any) -> dict[str, Metadata]:
            return {name: body(**given)}

        described = table_spec(*tables, name=name, description=getdoc(body), **spec)
        return table_assets(described, is_daily=is_daily, op_tags=op_tags, retry=retry)(reported)

    return decorate


def table_assets(
    *specs: dg.AssetSpec,
    is_daily: bool = False,
    op_tags: Mapping[str, str] | None = None,
    retry: Retry = SOON,
) -> Callable[[Callable[..., Mapping[str, Metadata]]], dg.AssetsDefinition]:
    """Make assets of one function that writes their tables and returns metadata by the assets' names.

    Their group is the folder under `defs` that the function is in; from it follows when they are overdue, unless their
    spec says it. They link to the function's code. The number of rows is added to the metadata of what
    is in the lake, of which the function has to ask for `lake`.

    Args:
        specs: made by `table_spec`.
        is_daily: Whether they have a partition per day; a run takes a day, or several at once. The function has to ask
            for `context`.
        op_tags: tags of their step.
        retry: how often, and when, the step is tried again.
    """

    def decorate(body: Callable[..., Mapping[str, Metadata]]) -> dg.AssetsDefinition:
        group = body.__module__.split(".")[2]
        described = [
            spec.replace_attributes(
                freshness_policy=spec.freshness_policy or _FRESHNESS.get(group),
                metadata={**spec.metadata, **code_link(body, _SETTINGS)},
            )
            for spec in specs
        ]

        def results(reported: Mapping[str, Metadata], given: Mapping[str, Any]) -> list[dg.MaterializeResult]:
            made: list[dg.MaterializeResult] = []
            for spec in specs:
                metadata: Metadata = {**_row_counts(spec, given, is_daily), **reported[spec.key.path[-1]]}
                if is_daily:
                    metadata = _report_days(given["context"], spec.key, metadata)
                made.append(dg.MaterializeResult(asset_key=spec.key, metadata=metadata))
            return made

        return dg.multi_asset(
            name=body.__name__,
            specs=described,
            group_name=group,
            partitions_def=daily() if is_daily else None,
            backfill_policy=dg.BackfillPolicy.single_run() if is_daily else None,
            op_tags=op_tags,
        )(step(body, results, retry))

    return decorate


def _row_counts(spec: dg.AssetSpec, given: Mapping[str, Any], is_daily: bool) -> dict[str, Any]:
    """Return the rows of an asset's first table: all of them, and of a daily asset those of each day of the run."""
    tables = tables_in_lake(spec)
    if not tables:
        return {}
    snapshot = given["lake"].snapshot(tables[0])
    counts = {"dagster/row_count": snapshot.rows, LAKE_VERSION: snapshot.version}
    if is_daily:
        per_day = snapshot.rows_by(str(tables[0].day))
        counts[PARTITION_ROW_COUNT] = ByDay({day: per_day.get(day, 0) for day in days_of(given["context"])})
    return counts


def _report_days(context: dg.AssetExecutionContext, asset: dg.AssetKey, metadata: Metadata) -> Metadata:
    """Report to Dagster what is each day's own, and the days beside the run's partitions; return what is all days'."""
    shared = {name: value for name, value in metadata.items() if not isinstance(value, ByDay)}
    by_day = {name: value.values for name, value in metadata.items() if isinstance(value, ByDay)}
    partitions = set(context.partition_keys)
    for day in days_of(context):
        own = {name: values[day] for name, values in by_day.items() if day in values}
        if str(day) in partitions:
            context.add_asset_metadata(own, asset_key=asset, partition_key=str(day))
        else:
            context.log_event(dg.AssetMaterialization(asset, partition=str(day), metadata=shared | own))
    return shared


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
