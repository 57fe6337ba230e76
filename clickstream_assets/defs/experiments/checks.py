"""Checks of experiments: every exposure is accounted for, and the arms have the sizes that were declared."""

import dagster as dg

from clickstream_assets.analytics.experiment_statistics import MISMATCH
from clickstream_assets.catalogue import (
    ERASED_EXPOSURES,
    EXPERIMENT_EXPOSURES,
    EXPERIMENT_RESULTS,
    RAW_EXPOSURES,
    REJECTED_EXPOSURES,
)
from clickstream_assets.defs.checks import table_check
from clickstream_assets.stores.lake import Lake


@table_check(EXPERIMENT_EXPOSURES, is_blocking=True)
def exposures_close(lake: Lake) -> dg.AssetCheckResult:
    """Each record of the topic is an exposure, is rejected, or was erased."""
    raw, *found = (
        lake.snapshot(table).rows
        for table in (RAW_EXPOSURES, EXPERIMENT_EXPOSURES, REJECTED_EXPOSURES, ERASED_EXPOSURES)
    )
    named = dict(zip(("exposures", "rejected", "erased"), found, strict=True))
    return dg.AssetCheckResult(
        passed=raw == sum(found), metadata={"expected": raw, "actual": sum(found), **named}
    )


@table_check(EXPERIMENT_RESULTS)
def sizes_are_those_of_the_shares(lake: Lake) -> dg.AssetCheckResult:
    """The arms' numbers of persons differ from their shares by no more than chance (chi-square test, 0.1 %).

    Where they do, units are missing in an arm, or are in the wrong one: nothing that is found there can be believed.
    """
    rows = lake.rows(EXPERIMENT_RESULTS).to_pylist()
    wrong = sorted(
        {
            row["experiment"]
            for row in rows
            if row["sizes_p_value"] is not None and row["sizes_p_value"] < MISMATCH
        }
    )
    return dg.AssetCheckResult(
        passed=not wrong,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "wrong": wrong,
            "expected_at_least": MISMATCH,
            "actual": {row["experiment"]: row["sizes_p_value"] for row in rows},
            "sizes": {f"{row['experiment']}/{row['arm']}": row["units"] for row in rows},
            "shares": {f"{row['experiment']}/{row['arm']}": row["share"] for row in rows},
        },
    )
