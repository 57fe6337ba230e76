"""From events to an evaluated model: interactions, factors, popularity, and the evaluation that chooses.

Not partitioned: a model learns from all days. Each asset is replaced whole.
"""

import dagster as dg

from clickstream_assets.catalogue import (
    EVENTS,
    INTERACTIONS,
    ITEM_FACTORS,
    MODEL_EVALUATION,
    POPULAR_PRODUCTS,
    SHOPPER_EVENTS,
    USER_FACTORS,
)
from clickstream_assets.defs.assets import URGENT, Metadata, table_asset
from clickstream_assets.defs.plots import text_table
from clickstream_assets.defs.resources import PostgresResource
from clickstream_assets.defs.runs import metadata_value
from clickstream_assets.recommender import als
from clickstream_assets.recommender.evaluation import evaluation_table, judge
from clickstream_assets.recommender.interactions import interactions as compute_interactions
from clickstream_assets.recommender.popularity import popular_products as rank_popular_products
from clickstream_assets.recommender.ranking import Products
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake


@table_asset(INTERACTIONS, deps=["events", "shopper_events"], op_tags=URGENT)
def interactions(lake: Lake) -> Metadata:
    """One row per person and product that met: how often, and how much it says of taste.

    Shoppers who refused consent are left out.
    """
    events = lake.snapshot(EVENTS)
    lake.replace(INTERACTIONS, compute_interactions(lake.read(SHOPPER_EVENTS)))
    return {"events_batch": events.batch}


@table_asset(POPULAR_PRODUCTS, deps=["shopper_events", "interactions"], op_tags=URGENT)
def popular_products(lake: Lake) -> Metadata:
    """One row per product, by how much shoppers met it: the baseline, and what new shoppers are shown."""
    lake.replace(POPULAR_PRODUCTS, rank_popular_products(lake.read(INTERACTIONS), lake.read(SHOPPER_EVENTS)))
    return {}


@table_asset(ITEM_FACTORS, USER_FACTORS, deps=["interactions", "popular_products"], op_tags=URGENT)
def als_model(context: dg.AssetExecutionContext, settings: Settings, lake: Lake) -> Metadata:
    """Factors of users and products by alternating least squares on implicit feedback.

    Trained by `implicit` on DuckDB's engine and by Spark's MLlib on Spark's, into the same two tables. The same
    data, settings and engine give the same factors and the same model version.
    """
    parameters = als.Parameters.of(settings)
    trained_on = context.instance.get_latest_materialization_event(dg.AssetKey(INTERACTIONS.name))
    batch = metadata_value(trained_on, "events_batch")
    engine = lake.engine
    products = Products.of(engine.to_arrow(lake.read(POPULAR_PRODUCTS)))
    if len(products):
        factors = als.train(engine, lake.read(INTERACTIONS), products, parameters)
    else:
        factors = als.Factors(USER_FACTORS.arrow.empty_table(), ITEM_FACTORS.arrow.empty_table())
    lake.replace(USER_FACTORS, engine.from_arrow(factors.user_factors))
    lake.replace(ITEM_FACTORS, engine.from_arrow(factors.item_factors))
    return {
        "model_version": f"{batch}-{parameters.fingerprint}-{engine.name}",
        "events_batch": batch,
        "users": factors.user_factors.num_rows,
        "products": factors.item_factors.num_rows,
    }


@table_asset(MODEL_EVALUATION, deps=["shopper_events", "als_model"], op_tags=URGENT)
def model_evaluation(
    context: dg.AssetExecutionContext, settings: Settings, lake: Lake, postgres: PostgresResource
) -> Metadata:
    """Every algorithm, trained on the past and ranked on the future against all products; and which to publish.

    A personal algorithm is chosen only if it surely beats popularity on the same split; what is being served
    stays unless something is better.
    """
    model = context.instance.get_latest_materialization_event(dg.AssetKey("als_model"))
    evaluations, choice = judge(
        lake.engine,
        lake.read(SHOPPER_EVENTS),
        als.Parameters.of(settings),
        settings.evaluation_test_fraction,
        settings.evaluation_k,
        serving=postgres.serving_algorithm(),
    )
    table = evaluation_table(evaluations, choice, str(metadata_value(model, "model_version")))
    lake.replace(MODEL_EVALUATION, lake.engine.from_arrow(table))
    figures = ("ndcg", "map", "precision", "recall", "coverage", "seconds")
    return {
        "chosen": choice.algorithm,
        "reason": choice.reason,
        "evaluation": text_table(
            ["algorithm", *figures, "chosen"],
            [
                (row["algorithm"], *(f"{row[name]:.4f}" for name in figures), "yes" if row["chosen"] else "")
                for row in table.to_pylist()
            ],
        ),
        **{f"ndcg_{row['algorithm']}": row["ndcg"] for row in table.to_pylist()},
    }
