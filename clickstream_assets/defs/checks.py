"""How checks are made, and those that every table of the lake has: unique keys, and columns that hold what they may."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import dagster as dg

from clickstream_assets.catalogue import PRODUCT_WINDOWS, SESSIONS, Column, Table
from clickstream_assets.defs.assets import tables_in_lake
from clickstream_assets.defs.scope import Passed, replaced_days, rows_of, run_days
from clickstream_assets.defs.steps import step
from clickstream_assets.engine import DataFrame, functions_of
from clickstream_assets.stores.lake import Lake

SAMPLES = 5
_KEY_CHECKS = {SESSIONS.name: "session_ids_are_unique", PRODUCT_WINDOWS.name: "window_keys_are_unique"}
"""Names of checks of keys that are not `keys_are_unique`."""
Find: TypeAlias = Callable[[Lake, Table, DataFrame], dict[str, Any]]


def table_check(
    table: Table,
    *,
    is_blocking: bool = False,
    deps: Iterable[str] = (),
    op_tags: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., dg.AssetCheckResult]], dg.AssetChecksDefinition]:
    """Make a check of the asset of a table's name, named and described as the function.

    Args:
        table: the table.
        is_blocking: Whether nothing that depends on the asset is made in the same run after the check failed.
        deps: other assets that it reads.
        op_tags: tags of its step.
    """

    def decorate(body: Callable[..., dg.AssetCheckResult]) -> dg.AssetChecksDefinition:
        check = dg.asset_check(
            asset=table.name,
            name=body.__name__,
            additional_deps=list(deps),
            blocking=is_blocking,
            op_tags=op_tags,
        )
        return check(step(body))

    return decorate


def table_checks(assets: Iterable[object]) -> list[dg.AssetChecksDefinition]:
    """Make the blocking checks of the tables that assets have in the lake, from the catalogue: one step per asset.

    A check looks at the rows that its run may have changed; the others have been looked at before. They are, of a
    daily asset, the run's days; of one that says so, those from `replaced_from` on; of what is ingested, the batches
    since the check last passed, once a day all; and all rows of any other.
    """
    return [
        checks for asset in assets if isinstance(asset, dg.AssetsDefinition) for checks in _checks_of(asset)
    ]


def _checks_of(asset: dg.AssetsDefinition) -> Iterator[dg.AssetChecksDefinition]:
    finders: dict[dg.AssetCheckKey, tuple[Table, Find]] = {}
    specs = []
    for spec in asset.specs:
        for number, table in enumerate(tables_in_lake(spec)):
            prefix = f"{table.name}_" if number else ""
            found = {
                f"{prefix}values_are_allowed": (_find_values, "Columns hold only what the catalogue allows.")
            }
            if not _is_ingested(table):
                name = _KEY_CHECKS.get(table.name, f"{prefix}keys_are_unique")
                found[name] = (_find_repeated_keys, f"No two rows have the same {', '.join(table.key)}.")
            for name, (find, description) in found.items():
                check = dg.AssetCheckSpec(name, asset=spec.key, description=description, blocking=True)
                specs.append(check)
                finders[check.key] = (table, find)
    if not specs:
        return

    def check(context: dg.AssetCheckExecutionContext, lake: Lake) -> list[dg.AssetCheckResult]:
        results = []
        for key in sorted(context.selected_asset_check_keys):
            table, find = finders[key]
            progress: dict[str, Any] = {}
            if _is_ingested(table):
                newest = lake.snapshot(table).batch
                passed = Passed.of(context, key, newest)
                progress = passed.progress(newest)
                rows = lake.read(table, batches=(passed.batch + 1, newest))
            else:
                is_daily = asset.partitions_def is not None
                days = run_days(context) if is_daily else replaced_days(context, key.asset_key.path[-1])
                rows = rows_of(lake, table, days)
            metadata = find(lake, table, rows)
            results.append(
                dg.AssetCheckResult(
                    asset_key=key.asset_key,
                    check_name=key.name,
                    passed=not metadata["sample_keys"],
                    metadata=metadata | progress,
                )
            )
        return results

    yield dg.multi_asset_check(
        name=f"{asset.op.name}_table_checks",
        specs=specs,
        can_subset=True,
        # What depends on the asset waits for them.
        op_tags=asset.op.tags,
    )(step(check))


def _is_ingested(table: Table) -> bool:
    """Whether a table's rows come in batches: its keys are looked at by `counts_close` and `event_ids_are_unique`."""
    return "batch" in table.by_name


def _find_repeated_keys(lake: Lake, table: Table, rows: DataFrame) -> dict[str, Any]:
    F, _ = functions_of(rows)
    per_key = rows.groupBy(*table.key).agg(F.count(F.lit(1)).cast("long").alias("rows_of_key"))
    counted = per_key.agg(
        F.coalesce(F.sum("rows_of_key"), F.lit(0)).cast("long").alias("rows"),
        F.count(F.lit(1)).cast("long").alias("keys"),
    )
    (counts,) = lake.engine.to_arrow(counted).to_pylist()
    repeated = []
    if counts["rows"] != counts["keys"]:
        repeated = lake.engine.to_arrow(per_key.where(F.col("rows_of_key") > 1).limit(SAMPLES)).to_pylist()
    return {
        "expected": counts["rows"],
        "actual": counts["keys"],
        "sample_keys": [_key(table, row) for row in repeated],
    }


def _find_values(lake: Lake, table: Table, rows: DataFrame) -> dict[str, Any]:
    F, _ = functions_of(rows)
    constrained = {column.name: column for column in table.columns if not column.nullable or column.values}
    broken = rows.where(F.expr(" OR ".join(map(_violation, constrained.values()))))
    samples = lake.engine.to_arrow(
        broken.select(*dict.fromkeys((*table.key, *constrained))).limit(SAMPLES)
    ).to_pylist()
    number = 0
    if samples:
        counted = broken.agg(F.count(F.lit(1)).cast("long").alias("rows"))
        number = lake.engine.to_arrow(counted)["rows"][0].as_py()

    def violations(row: Mapping[str, Any]) -> str:
        wrong = [
            f"{name} is {row[name]}"
            for name, column in constrained.items()
            if (
                not column.nullable if row[name] is None else column.values and row[name] not in column.values
            )
        ]
        return ", ".join(wrong)

    return {
        "expected": "0 violations",
        "actual": f"{number} violations",
        "sample_keys": [_key(table, row) | {"violation": violations(row)} for row in samples],
    }


def _violation(column: Column) -> str:
    """Return the SQL condition of what a column must not hold."""
    conditions = [] if column.nullable else [f"`{column.name}` IS NULL"]
    if column.values:
        values = ", ".join(f"'{value}'" for value in column.values)
        conditions.append(f"`{column.name}` NOT IN ({values})")
    return " OR ".join(conditions)


def _key(table: Table, row: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(row[name]) for name in table.key}
