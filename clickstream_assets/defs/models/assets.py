"""From shoppers' events to an evaluated model: sums of days, and what is trained and judged on TRAINING_DAYS of them.

A refresh replaces the sums of its days. All others have no days, and are replaced whole.
"""

import dagster as dg

from clickstream_assets.catalogue import (
    CONSENT_DAYS,
    INTERACTION_DAYS,
    INTERACTIONS,
    ITEM_FACTORS,
    MODEL_EVALUATION,
    POPULAR_PRODUCTS,
    USER_FACTORS,
)
from clickstream_assets.defs.assets import FRESH_AS_TABLES, URGENT, Metadata, table_asset
from clickstream_assets.defs.models.training import EVENTS_BATCH, TRAINED_ON, TrainingData, events_batch
from clickstream_assets.defs.plots import text_table
from clickstream_assets.defs.resources import PostgresResource
from clickstream_assets.defs.runs import metadata_value
from clickstream_assets.defs.scope import replace_days_from_shopper_events, run_batch
from clickstream_assets.recommender import als
from clickstream_assets.recommender.algorithms import TrainingSet
from clickstream_assets.recommender.evaluation import evaluation_table, judge
from clickstream_assets.recommender.interactions import consent_days
from clickstream_assets.recommender.interactions import interaction_days as sum_up_days
from clickstream_assets.recommender.interactions import interactions as add_up_days
from clickstream_assets.recommender.parameters import EventWeights, Parameters
from clickstream_assets.recommender.popularity import latest_categories
from clickstream_assets.recommender.popularity import popular_products as rank_popular_products
from clickstream_assets.recommender.ranking import Products
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake


@table_asset(
    *(INTERACTION_DAYS, CONSENT_DAYS),
    deps=["shopper_events"],
    is_daily=True,
    op_tags=URGENT,
    freshness_policy=FRESH_AS_TABLES,
)
def interaction_days(context: dg.AssetExecutionContext, lake: Lake) -> Metadata:
    """One row per day, person and product that met: how often. And who stated on a day what they agree to.

    What is trained on adds them up, so that no training reads all events.
    """
    replace_days_from_shopper_events(context, lake, CONSENT_DAYS, consent_days)
    replace_days_from_shopper_events(context, lake, INTERACTION_DAYS, sum_up_days)
    return {EVENTS_BATCH: run_batch(context, lake)}


@table_asset(INTERACTIONS, deps=["interaction_days"], op_tags=URGENT)
def interactions(context: dg.AssetExecutionContext, settings: Settings, lake: Lake) -> Metadata:
    """One row per person and product that met within TRAINING_DAYS: how often, and how much it says of taste.

    Shoppers who refused consent are left out, whenever they stated it. All that is trained in this run is of the same
    versions of the tables of days, which a refresh may replace meanwhile.
    """
    batch = events_batch(context.instance)
    data = TrainingData.newest(lake, settings.training_days)
    lake.replace(INTERACTIONS, add_up_days(data.interaction_days(lake), EventWeights.of(settings)))
    return {EVENTS_BATCH: batch, TRAINED_ON: data.metadata}


@table_asset(POPULAR_PRODUCTS, deps=["product_performance", "interactions"], op_tags=URGENT)
def popular_products(context: dg.AssetExecutionContext, settings: Settings, lake: Lake) -> Metadata:
    """One row per product, by how much shoppers met it: the baseline, and what new shoppers are shown."""
    categories = latest_categories(TrainingData.of_run(context, lake, settings).product_days(lake))
    popular = rank_popular_products(lake.read(INTERACTIONS), categories, settings.trend_days)
    lake.replace(POPULAR_PRODUCTS, popular)
    return {}


@table_asset(ITEM_FACTORS, USER_FACTORS, deps=["interactions", "popular_products"], op_tags=URGENT)
def als_model(context: dg.AssetExecutionContext, settings: Settings, lake: Lake) -> Metadata:
    """Factors of users and products by alternating least squares on implicit feedback.

    Trained by `implicit` on DuckDB's engine and by Spark's MLlib on Spark's, into the same two tables. Lists are made
    of the products' factors, by which `AlsModel.scores` solves each user's anew (recommender/als.py). The same data,
    settings and engine give the same factors and the same model version.
    """
    parameters = Parameters.of(settings)
    made = context.instance.get_latest_materialization_event(dg.AssetKey(INTERACTIONS.name))
    batch = metadata_value(made, EVENTS_BATCH)
    engine = lake.engine
    products = Products.of(engine.to_arrow(lake.read(POPULAR_PRODUCTS)))
    if len(products):
        data = TrainingSet.of(engine, lake.read(INTERACTIONS), parameters, products)
        factors = als.train(engine, data.interactions, products, parameters)
    else:
        factors = als.Factors(USER_FACTORS.arrow.empty_table(), ITEM_FACTORS.arrow.empty_table())
    lake.replace(USER_FACTORS, engine.from_arrow(factors.user_factors))
    lake.replace(ITEM_FACTORS, engine.from_arrow(factors.item_factors))
    return {
        "model_version": f"{batch}-{parameters.fingerprint}-{engine.name}",
        EVENTS_BATCH: batch,
        "users": factors.user_factors.num_rows,
        "products": factors.item_factors.num_rows,
    }


@table_asset(MODEL_EVALUATION, deps=["interaction_days", "shopper_events", "als_model"], op_tags=URGENT)
def model_evaluation(
    context: dg.AssetExecutionContext, settings: Settings, lake: Lake, postgres: PostgresResource
) -> Metadata:
    """Every algorithm, trained on the past and ranked on the future against all products; and which to publish.

    A personal algorithm is chosen only if it surely beats popularity on the same split; what is being served
    stays unless something is better.
    """
    model = context.instance.get_latest_materialization_event(dg.AssetKey("als_model"))
    data = TrainingData.of_run(context, lake, settings)
    evaluations, choice = judge(
        lake.engine,
        data.interaction_days(lake),
        data.shopper_events(lake),
        Parameters.of(settings),
        settings.evaluation_test_fraction,
        settings.evaluation_k,
        serving=postgres.serving_algorithm(),
        weights=EventWeights.of(settings),
        product_days=data.product_days(lake),
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
