"""The decorator of checks, and the checks of every table of the lake: unique keys, no nulls, allowed values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import dagster as dg

from clickstream_assets.catalogue import PRODUCT_WINDOWS, SESSIONS, Column, Table
from clickstream_assets.defs.assets import LAST, tables_in_lake
from clickstream_assets.defs.scope import Passed, replaced_days, rows_of, run_days
from clickstream_assets.defs.steps import step
from clickstream_assets.engine import DataFrame, functions_of
from clickstream_assets.stores.lake import Lake

SAMPLES = 5
_KEY_CHECKS = {SESSIONS.name: "session_ids_are_unique", PRODUCT_WINDOWS.name: "window_keys_are_unique"}
"""Names of checks of keys that are not `keys_are_unique`."""


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
        op_tags: tags of its step; unless given, one that nothing waits for comes after all others of its run.
    """
    # Readers wait for what is published.
    tags = LAST if op_tags is None and not is_blocking else op_tags

    def decorate(body: Callable[..., dg.AssetCheckResult]) -> dg.AssetChecksDefinition:
        check = dg.asset_check(
            asset=table.name,
            name=body.__name__,
            additional_deps=list(deps),
            blocking=is_blocking,
            op_tags=tags,
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
    finders: dict[dg.AssetCheckKey, tuple[Table, Callable[[Lake, _Look], dict[str, Any]]]] = {}
    specs = []
    for spec in asset.specs:
        for number, table in enumerate(tables_in_lake(spec)):
            prefix = f"{table.name}_" if number else ""
            found = {
                f"{prefix}values_are_allowed": (
                    _find_violations,
                    "Columns hold only what the catalogue allows.",
                )
            }
            if not _is_ingested(table):
                name = _KEY_CHECKS.get(table.name, f"{prefix}keys_are_unique")
                found[name] = (_find_repeated_keys, f"No two rows have the same {', '.join(table.key)}.")
            for name, (find, description) in found.items():
                made = dg.AssetCheckSpec(name, asset=spec.key, description=description, blocking=True)
                specs.append(made)
                finders[made.key] = (table, find)
    if not specs:
        return

    def check(context: dg.AssetCheckExecutionContext, lake: Lake) -> list[dg.AssetCheckResult]:
        looked: dict[str, _Look] = {}
        results = []
        for key in sorted(context.selected_asset_check_keys):
            table, find = finders[key]
            if table.name not in looked:
                looked[table.name] = _look(
                    context, lake, table, key, is_daily=asset.partitions_def is not None
                )
            metadata = find(lake, looked[table.name])
            results.append(
                dg.AssetCheckResult(
                    asset_key=key.asset_key,
                    check_name=key.name,
                    passed=not metadata["sample_keys"],
                    metadata=metadata | looked[table.name].progress,
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
    """Return whether a table's rows come in batches; `counts_close` and `event_ids_are_unique` check its keys."""
    return "batch" in table.by_name


class _Look(NamedTuple):
    """The rows of a table that a run may have changed, and how many there are: one query for all its checks."""

    table: Table
    rows: DataFrame
    row_count: int
    key_count: int
    violations: int
    progress: dict[str, Any]


def _look(
    context: dg.AssetCheckExecutionContext,
    lake: Lake,
    table: Table,
    check: dg.AssetCheckKey,
    *,
    is_daily: bool,
) -> _Look:
    progress: dict[str, Any] = {}
    per_key: tuple[str, ...] = ()
    if _is_ingested(table):
        newest = lake.snapshot(table).batch
        passed = Passed.of(context, check, newest)
        progress = passed.progress(newest)
        rows = lake.read(table, batches=(passed.batch + 1, newest))
    else:
        days = run_days(context) if is_daily else replaced_days(context, check.asset_key.path[-1])
        rows = rows_of(lake, table, days)
        per_key = table.key
    F, _ = functions_of(rows)
    counted = rows.groupBy(*per_key).agg(
        F.count(F.lit(1)).cast("long").alias("rows_of_key"),
        F.expr(f"sum(CASE WHEN {_violation(table)} THEN 1 ELSE 0 END)").alias("violations"),
    )
    totals = counted.agg(
        *(
            F.coalesce(F.sum(column), F.lit(0)).cast("long").alias(column)
            for column in ("rows_of_key", "violations")
        ),
        F.count(F.lit(1)).cast("long").alias("keys"),
    )
    (total,) = lake.engine.to_arrow(totals).to_pylist()
    return _Look(table, rows, total["rows_of_key"], total["keys"], total["violations"], progress)


def _find_repeated_keys(lake: Lake, look: _Look) -> dict[str, Any]:
    repeated = []
    if look.row_count != look.key_count:
        F, _ = functions_of(look.rows)
        per_key = look.rows.groupBy(*look.table.key).agg(F.count(F.lit(1)).alias("rows_of_key"))
        repeated = lake.engine.to_arrow(per_key.where(F.col("rows_of_key") > 1).limit(SAMPLES)).to_pylist()
    return {
        "expected": look.row_count,
        "actual": look.key_count,
        "sample_keys": [_key(look.table, row) for row in repeated],
    }


def _find_violations(lake: Lake, look: _Look) -> dict[str, Any]:
    broken = []
    if look.violations:
        F, _ = functions_of(look.rows)
        rows = look.rows.where(F.expr(_violation(look.table)))
        broken = lake.engine.to_arrow(rows.limit(SAMPLES)).to_pylist()
    return {
        "expected": "0 violations",
        "actual": f"{look.violations} violations",
        "sample_keys": [
            _key(look.table, row)
            | {
                "violation": ", ".join(
                    f"{c.name} is {row[c.name]}" for c in look.table.columns if _breaks(c, row)
                )
            }
            for row in broken
        ],
    }


def _breaks(column: Column, row: Mapping[str, Any]) -> bool:
    value = row[column.name]
    return not column.nullable if value is None else value not in (column.values or (value,))


def _violation(table: Table) -> str:
    """Return the SQL condition of a row with a null, or a value, that its column must not have."""
    conditions = [f"`{column.name}` IS NULL" for column in table.columns if not column.nullable]
    for column in table.columns:
        if column.values:
            values = ", ".join(f"'{value}'" for value in column.values)
            conditions.append(f"`{column.name}` NOT IN ({values})")
    return " OR ".join(conditions)


def _key(table: Table, row: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(row[name]) for name in table.key}
