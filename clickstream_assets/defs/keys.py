"""The check that every table's key is one: no two rows have the same."""

from collections.abc import Callable

import dagster as dg

from clickstream_assets.catalogue import Table
from clickstream_assets.defs.resources import LakeResource
from clickstream_assets.defs.scope import Days, rows_of
from clickstream_assets.engine import functions_of

SAMPLES = 5


def keys_are_unique(
    table: Table, days: Callable[[dg.AssetCheckExecutionContext], Days] = lambda _: None
) -> dg.AssetChecksDefinition:
    """Make the blocking check of a table, for the asset of its name.

    `days` tells which days of the table a run may have changed (default: all); the others have been looked at before.
    """

    @dg.asset_check(
        asset=table.name,
        name="keys_are_unique",
        description=f"No two rows have the same {', '.join(table.key)}.",
        blocking=True,
    )
    def check(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> dg.AssetCheckResult:
        the_lake = lake.get()
        its_days = days(context)
        rows = rows_of(the_lake, table, its_days) if its_days else the_lake.read(table)
        F, _ = functions_of(rows)
        twice = (
            rows.groupBy(*table.key)
            .agg(F.count(F.lit(1)).cast("long").alias("rows"))
            .where(F.col("rows") > 1)
        )
        samples = the_lake.engine.to_arrow(twice.limit(SAMPLES)).to_pylist()
        return dg.AssetCheckResult(
            passed=not samples,
            metadata={
                "expected": "1 row per key",
                "actual": "1 row per key" if not samples else f"{samples[0]['rows']} rows of one key",
                "sample_keys": [{name: str(row[name]) for name in table.key} for row in samples],
            },
        )

    return check
