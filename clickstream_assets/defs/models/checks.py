"""The gate before publication, and checks that models are trained on all that they are to be, and when they are to."""

import time
from datetime import timedelta

import dagster as dg

from clickstream_assets.catalogue import (
    INTERACTION_DAYS,
    INTERACTIONS,
    MODEL_EVALUATION,
    PRODUCT_RECOMMENDATIONS,
)
from clickstream_assets.defs.assets import URGENT
from clickstream_assets.defs.checks import table_check
from clickstream_assets.defs.jobs import train
from clickstream_assets.defs.models.due import Interactions, Rhythm, Training, due, put_back_at
from clickstream_assets.defs.models.training import TRAINED_ON, TrainingData
from clickstream_assets.defs.runs import metadata_value, under_way
from clickstream_assets.engine import DataFrame, functions_of
from clickstream_assets.recommender.evaluation import GateError, chosen_row
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake

# One that is due is begun within seconds, and tried again a few times within this.
PATIENCE = timedelta(hours=1)


@table_check(INTERACTIONS, is_blocking=True, op_tags=URGENT)
def interactions_hold_all_days(
    context: dg.AssetCheckExecutionContext, settings: Settings, lake: Lake
) -> dg.AssetCheckResult:
    """The views, additions to carts and purchases are those of the days, of all who may be profiled."""
    made = context.instance.get_latest_materialization_event(dg.AssetKey(INTERACTIONS.name))
    data = TrainingData.of(metadata_value(made, TRAINED_ON), lake, settings)
    expected, actual = (
        _totals(lake, rows) for rows in (data.interaction_days(lake), lake.read(INTERACTIONS))
    )
    return dg.AssetCheckResult(
        passed=expected == actual, metadata={"expected": expected, "actual": actual, **data.days}
    )


def _totals(lake: Lake, rows: DataFrame) -> dict[str, int]:
    F, _ = functions_of(rows)
    names = ("views", "add_to_carts", "purchases")
    totals = rows.agg(
        *(F.coalesce(F.sum(name), F.lit(0)).cast("long").alias(f"sum_{name}") for name in names)
    )
    (row,) = lake.engine.to_arrow(totals).to_pylist()
    return {name: row[f"sum_{name}"] for name in names}


@table_check(PRODUCT_RECOMMENDATIONS, deps=[INTERACTION_DAYS.name])
def training_keeps_up(context: dg.AssetCheckExecutionContext, settings: Settings) -> dg.AssetCheckResult:
    """No training has been due for an hour: not too much is new, and what is new is not too old.

    Not blocking, and carried out by each refresh: a training that does not come about carries nothing out. It passes
    while one is under way.
    """
    then = time.time() - PATIENCE.total_seconds()
    asked = dg.AssetRecordsFilter(asset_key=dg.AssetKey(INTERACTION_DAYS.name), before_timestamp=then)
    records = context.instance.fetch_materializations(asked, limit=1).records
    trained = Training.newest(context.instance)
    if not records or (trained and trained.at > records[0].timestamp):
        return dg.AssetCheckResult(passed=True, metadata={"actual": "trained on what there was an hour ago"})
    there = Interactions.of(records[0].event_log_entry)
    verdict = due(there, trained, put_back_at(context.instance), then, Rhythm.of(settings))
    is_late = verdict.is_due and not under_way(context.instance, train.name)
    return dg.AssetCheckResult(
        passed=not is_late,
        severity=dg.AssetCheckSeverity.WARN,
        description="Models were to be trained an hour ago. See the last runs of the job train, and the ticks of the "
        "sensor untrained_interactions."
        if is_late
        else None,
        metadata={"actual": verdict.reason},
    )


@table_check(MODEL_EVALUATION, is_blocking=True, op_tags=URGENT)
def chosen_is_not_worse_than_popularity(lake: Lake) -> dg.AssetCheckResult:
    """Exactly one algorithm is chosen, and it ranks the future at least as well as popularity does.

    Publication asks the same again: this check blocks only runs that it is part of.
    """
    rows = lake.engine.to_arrow(lake.read(MODEL_EVALUATION)).to_pylist()
    ndcg = {row["algorithm"]: row["ndcg"] for row in rows if row["target"] == "next"}
    try:
        chosen = chosen_row(rows)
    except GateError as error:
        return dg.AssetCheckResult(passed=False, description=str(error), metadata={"ndcg": ndcg})
    return dg.AssetCheckResult(
        passed=True,
        metadata={
            "chosen": chosen["algorithm"],
            "expected_at_least": ndcg["popularity"],
            "actual": chosen["ndcg"],
        },
    )
