"""The gate of predictions."""

import dagster as dg

from clickstream_assets.catalogue import PURCHASE_MODELS
from clickstream_assets.defs.checks import table_check
from clickstream_assets.stores.lake import Lake


@table_check(PURCHASE_MODELS, is_blocking=True)
def accepted_are_better_than_simple_rules(lake: Lake) -> dg.AssetCheckResult:
    """Each model that is used foretold what it had not seen better than the base rate and a simple rule."""
    rows = lake.engine.to_arrow(lake.read(PURCHASE_MODELS)).to_pylist()
    used = [row for row in rows if row["accepted"]]
    wrong = [
        row["predicted"]
        for row in used
        if row["model"] is None or not row["log_loss"] < min(row["base_log_loss"], row["rule_log_loss"])
    ]
    return dg.AssetCheckResult(
        passed=not wrong,
        metadata={
            "wrong": wrong,
            "expected_below": {
                row["predicted"]: min(row["base_log_loss"], row["rule_log_loss"]) for row in used
            },
            "actual": {row["predicted"]: row["log_loss"] for row in used},
        },
    )
