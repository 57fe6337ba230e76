"""The gate before publication."""

import dagster as dg

from clickstream_assets.catalogue import MODEL_EVALUATION
from clickstream_assets.defs.assets import URGENT
from clickstream_assets.defs.checks import table_check
from clickstream_assets.recommender.evaluation import GateError, chosen_algorithm
from clickstream_assets.stores.lake import Lake


@table_check(MODEL_EVALUATION, is_blocking=True, op_tags=URGENT)
def chosen_is_not_worse_than_popularity(lake: Lake) -> dg.AssetCheckResult:
    """Exactly one algorithm is chosen, and it ranks the future at least as well as popularity does.

    Publication asks the same again: this check blocks only runs that it is part of.
    """
    rows = lake.engine.to_arrow(lake.read(MODEL_EVALUATION)).to_pylist()
    ndcg = {row["algorithm"]: row["ndcg"] for row in rows}
    try:
        chosen = chosen_algorithm(rows)
    except GateError as error:
        return dg.AssetCheckResult(passed=False, description=str(error), metadata={"ndcg": ndcg})
    return dg.AssetCheckResult(
        passed=True,
        metadata={"chosen": chosen, "expected_at_least": ndcg["popularity"], "actual": ndcg[chosen]},
    )
