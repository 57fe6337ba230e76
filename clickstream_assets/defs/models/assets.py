"""From events to a judged model: interactions, factors, popularity, and the evaluation that chooses.

Not partitioned: a model learns from all days. Each asset is replaced whole.
"""

import dagster as dg

from clickstream_assets.analytics.sessions import without_bots
from clickstream_assets.catalogue import (
    EVENTS,
    INTERACTIONS,
    ITEM_FACTORS,
    MODEL_EVALUATION,
    POPULAR_PRODUCTS,
    SESSIONS,
    USER_FACTORS,
)
from clickstream_assets.defs.failures import explained_errors
from clickstream_assets.defs.resources import LakeResource, PostgresResource, SettingsResource
from clickstream_assets.defs.runs import metadata_value
from clickstream_assets.defs.tables import FIRST, FRESHNESS, OWNERS, describe
from clickstream_assets.engine import DataFrame
from clickstream_assets.recommender import als
from clickstream_assets.recommender.evaluation import evaluation_table, judge
from clickstream_assets.recommender.interactions import interactions as compute_interactions
from clickstream_assets.recommender.popularity import popular_products as rank_popular_products
from clickstream_assets.recommender.ranking import Products
from clickstream_assets.stores.lake import Lake


def shoppers_events(lake: Lake, version: int | None = None) -> DataFrame:
    """All events, without bots'."""
    return without_bots(lake.read(EVENTS, version), lake.read(SESSIONS))


@dg.asset(
    deps=["events", "sessions"],
    group_name="models",
    kinds={"delta"},
    owners=OWNERS,
    freshness_policy=FRESHNESS,
    op_tags=FIRST,
    metadata=describe(INTERACTIONS),
)
def interactions(lake: LakeResource) -> dg.MaterializeResult:
    """One row per user and product that met: how often, and how much it says of taste. No bots.

    Shoppers who refused consent are left out.
    """
    the_lake = lake.get()
    with explained_errors():
        events = the_lake.snapshot(EVENTS)
        the_lake.replace(INTERACTIONS, compute_interactions(shoppers_events(the_lake, events.version)))
    return dg.MaterializeResult(
        metadata={
            "events_batch": events.batch,
            "events_version": events.version,
            "dagster/row_count": the_lake.snapshot(INTERACTIONS).rows,
        }
    )


@dg.asset(
    deps=["events", interactions],
    group_name="models",
    kinds={"delta"},
    owners=OWNERS,
    freshness_policy=FRESHNESS,
    op_tags=FIRST,
    metadata=describe(POPULAR_PRODUCTS),
)
def popular_products(lake: LakeResource) -> dg.MaterializeResult:
    """One row per product, by how much shoppers met it: the baseline, and what new shoppers are shown."""
    the_lake = lake.get()
    with explained_errors():
        rows = rank_popular_products(the_lake.read(INTERACTIONS), the_lake.read(EVENTS))
        the_lake.replace(POPULAR_PRODUCTS, rows)
    return dg.MaterializeResult(metadata={"dagster/row_count": the_lake.snapshot(POPULAR_PRODUCTS).rows})


@dg.asset(
    deps=[interactions, popular_products],
    group_name="models",
    kinds={"delta"},
    owners=OWNERS,
    freshness_policy=FRESHNESS,
    op_tags=FIRST,
    metadata=describe(ITEM_FACTORS, USER_FACTORS),
)
def als_model(
    context: dg.AssetExecutionContext, settings: SettingsResource, lake: LakeResource
) -> dg.MaterializeResult:
    """Factors of users and products by alternating least squares on implicit feedback.

    Trained by `implicit` on DuckDB's engine and by Spark's MLlib on Spark's, into the same two tables. The same
    data, settings and engine give the same factors and the same model version.
    """
    the_lake = lake.get()
    parameters = als.Parameters.of(settings.get())
    trained_on = context.instance.get_latest_materialization_event(dg.AssetKey(INTERACTIONS.name))
    batch = metadata_value(trained_on, "events_batch")
    with explained_errors():
        engine = the_lake.engine
        products = Products.of(engine.to_arrow(the_lake.read(POPULAR_PRODUCTS)))
        if len(products):
            factors = als.train(engine, the_lake.read(INTERACTIONS), products, parameters)
        else:
            factors = als.Factors(USER_FACTORS.arrow.empty_table(), ITEM_FACTORS.arrow.empty_table())
        the_lake.replace(USER_FACTORS, engine.from_arrow(factors.user_factors))
        the_lake.replace(ITEM_FACTORS, engine.from_arrow(factors.item_factors))
    return dg.MaterializeResult(
        metadata={
            "model_version": f"{batch}-{parameters.fingerprint}-{engine.name}",
            "events_batch": batch,
            "users": factors.user_factors.num_rows,
            "products": factors.item_factors.num_rows,
            "dagster/row_count": factors.item_factors.num_rows,
        }
    )


@dg.asset(
    deps=["events", "sessions", als_model],
    group_name="models",
    kinds={"delta"},
    owners=OWNERS,
    freshness_policy=FRESHNESS,
    op_tags=FIRST,
    metadata=describe(MODEL_EVALUATION),
)
def model_evaluation(
    context: dg.AssetExecutionContext,
    settings: SettingsResource,
    lake: LakeResource,
    postgres: PostgresResource,
) -> dg.MaterializeResult:
    """Every algorithm, trained on the past and ranked on the future against all products; and which to publish.

    A personal algorithm is chosen only if it surely beats popularity on the same split; what is being served
    stays unless something is better.
    """
    limits = settings.get()
    the_lake = lake.get()
    model = context.instance.get_latest_materialization_event(dg.AssetKey("als_model"))
    with explained_errors():
        evaluations, choice = judge(
            the_lake.engine,
            shoppers_events(the_lake),
            als.Parameters.of(limits),
            limits.evaluation_test_fraction,
            limits.evaluation_k,
            serving=postgres.serving_algorithm(),
        )
        table = evaluation_table(evaluations, choice, str(metadata_value(model, "model_version")))
        the_lake.replace(MODEL_EVALUATION, the_lake.engine.from_arrow(table))
    figures = [
        f"| {row['algorithm']} | {row['ndcg']:.4f} | {row['map']:.4f} | {row['precision']:.4f} | {row['recall']:.4f} "
        f"| {row['coverage']:.3f} | {row['seconds']:.1f} | {'yes' if row['chosen'] else ''} |"
        for row in table.to_pylist()
    ]
    header = [
        "| algorithm | nDCG | MAP | precision | recall | coverage | seconds | chosen |",
        "|---" * 8 + "|",
    ]
    return dg.MaterializeResult(
        metadata={
            "chosen": choice.algorithm,
            "reason": choice.reason,
            "evaluation": dg.MetadataValue.md("\n".join([*header, *figures])),
            **{f"ndcg_{row['algorithm']}": row["ndcg"] for row in table.to_pylist()},
            "dagster/row_count": table.num_rows,
        }
    )
