"""From shoppers' events to an evaluated model: sums of days, and what is trained and judged on TRAINING_DAYS of them.

A refresh replaces the sums of its days. All others have no days, and are replaced whole.
"""

import json

import dagster as dg
import pyarrow as pa

from clickstream_assets.analytics.consent import consent_days
from clickstream_assets.catalogue import (
    CONSENT_DAYS,
    INTERACTION_DAYS,
    INTERACTIONS,
    ITEM_FACTORS,
    MODEL_EVALUATION,
    MODEL_LOOKS,
    MODEL_PARAMETERS,
    POPULAR_PRODUCTS,
    USER_FACTORS,
)
from clickstream_assets.defs.assets import FRESH_AS_TABLES, URGENT, Metadata, table_asset
from clickstream_assets.defs.models.training import (
    EVENTS_BATCH,
    TRAINED_ON,
    TrainingData,
    events_batch,
    newest_parameters,
)
from clickstream_assets.defs.plots import text_table
from clickstream_assets.defs.resources import PostgresResource
from clickstream_assets.defs.runs import metadata_value
from clickstream_assets.defs.scope import replace_days_from_shopper_events, run_batch
from clickstream_assets.recommender import als, repurchases
from clickstream_assets.recommender.algorithms import TrainingSet
from clickstream_assets.recommender.evaluation import (
    BASELINE,
    SERVED,
    TARGETS,
    Contender,
    choose,
    evaluation_table,
    is_judged,
    judge,
    nobody,
)
from clickstream_assets.recommender.gate import News, next_look, significance
from clickstream_assets.recommender.interactions import NotEnoughInteractions, split_by_time
from clickstream_assets.recommender.interactions import interaction_days as sum_up_days
from clickstream_assets.recommender.interactions import interactions as add_up_days
from clickstream_assets.recommender.parameters import EventWeights, Parameters
from clickstream_assets.recommender.popularity import latest_categories, with_trends
from clickstream_assets.recommender.popularity import popular_products as rank_popular_products
from clickstream_assets.recommender.ranking import Products
from clickstream_assets.recommender.search import folds_by_time, remembered, search_row
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake, conform


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


@table_asset(MODEL_PARAMETERS, deps=["interactions", "shopper_events", "product_performance"], op_tags=URGENT)
def model_parameters(context: dg.AssetExecutionContext, settings: Settings, lake: Lake) -> Metadata:
    """Parameters found by a small search inside the training part, remembered for SEARCH_DAYS; one row per search.

    What the models are judged by afterwards is not looked at. A shop's first training takes those of the settings, so
    that its first recommendations do not wait for a search; the next one searches.
    """
    data = TrainingData.of_run(context, lake, settings)
    engine, start = lake.engine, Parameters.of(settings)
    searches = engine.to_arrow(lake.read(MODEL_PARAMETERS)).to_pylist()
    row = remembered(searches, start, data.last_day, data.rows, settings.search_days)
    is_first = context.instance.get_latest_materialization_event(dg.AssetKey("als_model")) is None
    is_new = row is None and data.last_day is not None and settings.search_days > 0 and not is_first
    if is_new and data.last_day:
        days, events = data.interaction_days(lake), data.shopper_events(lake)
        fraction = settings.evaluation_test_fraction
        try:
            past, _ = split_by_time(engine, days, events, fraction)
            weights = EventWeights.of(settings)
            folds = folds_by_time(engine, past, events, data.product_days(lake), start, weights, fraction)
        except NotEnoughInteractions:
            folds = []
        row = search_row(
            folds, start, settings.search_trials, settings.evaluation_k, data.last_day, data.rows
        )
        searches = [other for other in searches if any(other[n] != row[n] for n in MODEL_PARAMETERS.key)]
        searches.append(row)
    lake.replace(
        MODEL_PARAMETERS, engine.from_arrow(pa.Table.from_pylist(searches, schema=MODEL_PARAMETERS.arrow))
    )
    found = row or {"parameters": start.as_json, "ndcg_before": 0.0, "ndcg": 0.0, "users": 0}
    return {
        "searched": is_new,
        "parameters": json.loads(found["parameters"]),
        "ndcg_before": found["ndcg_before"],
        "ndcg": found["ndcg"],
        "users": found["users"],
    }


@table_asset(
    POPULAR_PRODUCTS, deps=["product_performance", "interactions", "model_parameters"], op_tags=URGENT
)
def popular_products(context: dg.AssetExecutionContext, settings: Settings, lake: Lake) -> Metadata:
    """One row per product, by how much shoppers met it, how trendy it is, and how many buyers come back for it.

    What new shoppers are shown; how much the trend counts in that is chosen by new shoppers (`model_parameters`).
    """
    data = TrainingData.of_run(context, lake, settings)
    engine, met = lake.engine, lake.read(INTERACTIONS)
    categories = latest_categories(data.product_days(lake))
    exponent = newest_parameters(lake, settings, data)[1]
    popular = with_trends(
        engine.to_arrow(rank_popular_products(met, categories, settings.trend_days)), exponent
    )
    rates = repurchases.train(engine, met, Products.of(popular)).rates
    popular = popular.append_column("repeat_rate", pa.array(rates))
    lake.replace(POPULAR_PRODUCTS, engine.from_arrow(conform(popular, POPULAR_PRODUCTS)))
    return {"fallback_exponent": exponent}


@table_asset(
    ITEM_FACTORS,
    USER_FACTORS,
    deps=["interactions", "popular_products", "model_parameters"],
    op_tags=URGENT,
)
def als_model(context: dg.AssetExecutionContext, settings: Settings, lake: Lake) -> Metadata:
    """Factors of users and products by alternating least squares on implicit feedback.

    Trained by `implicit` on DuckDB's engine and by Spark's MLlib on Spark's, into the same two tables. Lists are made
    of the products' factors, by which `AlsModel.scores` solves each user's anew (recommender/als.py). The same data,
    settings and engine give the same factors and the same model version.
    """
    parameters, _ = newest_parameters(lake, settings, TrainingData.of_run(context, lake, settings))
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


@table_asset(
    MODEL_EVALUATION,
    MODEL_LOOKS,
    deps=["interaction_days", "shopper_events", "als_model", "model_parameters"],
    op_tags=URGENT,
)
def model_evaluation(
    context: dg.AssetExecutionContext, settings: Settings, lake: Lake, postgres: PostgresResource
) -> Metadata:
    """Every algorithm, trained on the past and ranked on the future against all products; and which to publish.

    What is being served is judged on the same split, and stays unless another is surely better; how sure follows from
    how often that was asked before (`model_looks`).
    """
    model = context.instance.get_latest_materialization_event(dg.AssetKey("als_model"))
    data = TrainingData.of_run(context, lake, settings)
    engine = lake.engine
    parameters, _ = newest_parameters(lake, settings, data)
    serving = postgres.serving()
    served = None
    if serving and serving[0] != BASELINE and serving[0] in TARGETS["next"]:
        served = Contender(serving[0], Parameters.of(settings).read(serving[1]))
    looks = engine.to_arrow(lake.read(MODEL_LOOKS)).sort_by("look").to_pylist()
    look = None
    try:
        past, future = split_by_time(
            engine,
            data.interaction_days(lake),
            data.shopper_events(lake),
            settings.evaluation_test_fraction,
        )
        evaluations = judge(
            engine,
            past,
            future,
            parameters,
            settings.evaluation_k,
            EventWeights.of(settings),
            data.product_days(lake),
            served,
            most=settings.evaluation_persons,
        )
    except NotEnoughInteractions as error:
        found, choice = nobody(settings.evaluation_k, str(error))
    else:
        found = [evaluation for its in evaluations.values() for evaluation in its]
        news = News.since(engine, future, looks[-1]["judged_until"] if looks else None)
        look = next_look(looks[-1]["look"] if looks else 0, news.share)
        if not is_judged(evaluations["next"]):
            look = None
        name = None
        if served:
            name = served.algorithm if served.parameters == parameters else SERVED
        choice = choose(evaluations["next"], significance(look) if look else 0.0, name)
        if look and (not looks or look > looks[-1]["look"]):
            looks.append(
                {
                    "look": look,
                    "judged_until": news.until,
                    "significance": significance(look),
                    "served": serving[0] if serving else None,
                    "chosen": choice.algorithm,
                }
            )
    table = evaluation_table(
        found, {"next": choice}, str(metadata_value(model, "model_version")), settings.model_seed
    )
    lake.replace(MODEL_EVALUATION, engine.from_arrow(table))
    lake.replace(MODEL_LOOKS, engine.from_arrow(pa.Table.from_pylist(looks, schema=MODEL_LOOKS.arrow)))
    figures = ("share", "ndcg", "map", "precision", "recall", "coverage", "seconds")
    rows = table.to_pylist()
    return {
        "chosen": choice.algorithm,
        "reason": choice.reason,
        "look": look or 0,
        "evaluation": text_table(
            ["target", "algorithm", *figures, "chosen"],
            [
                (
                    row["target"],
                    row["algorithm"] + (" (served)" if row["is_served"] else ""),
                    *(f"{row[name]:.4f}" for name in figures),
                    "yes" if row["chosen"] else "",
                )
                for row in rows
            ],
        ),
        **{
            f"ndcg_{row['algorithm']}": row["ndcg"]
            for row in rows
            if row["target"] == "next" and not row["is_served"]
        },
    }
