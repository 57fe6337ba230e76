"""PostgreSQL's tables, for the API and the shop's own programs; each publication is one transaction."""

import time
from dataclasses import asdict
from datetime import UTC, date, datetime

import dagster as dg
import pyarrow as pa

from clickstream_assets.analytics.consent import refusals
from clickstream_assets.analytics.identity import IdentityRules, identities
from clickstream_assets.catalogue import (
    CARTS,
    COHORT_RETENTION,
    CONSENT_DAYS,
    CUSTOMER_SEGMENT_DAYS,
    CUSTOMER_SEGMENTS,
    DAILY_REPORT,
    FUNNEL,
    IDENTITIES,
    IDENTITY_TIES,
    INTERACTIONS,
    MODEL_EVALUATION,
    PRODUCT_RECOMMENDATIONS,
    PRODUCT_WINDOWS,
    PRODUCTS,
    PROFILING_REFUSALS,
    PUBLISHED_MODELS,
    PUBLISHED_PARTS,
    SERVED_TABLES,
    USER_SEGMENTS,
)
from clickstream_assets.defs.assets import (
    FRESH_DAILY,
    LAST,
    PARTITION_ROW_COUNT,
    URGENT,
    ByDay,
    Metadata,
    table_asset,
)
from clickstream_assets.defs.models.training import TRAINED_AT, TRAINED_ON, TrainingData
from clickstream_assets.defs.partitions import Days, days_of
from clickstream_assets.defs.products.assets import PRODUCTS_VERSION
from clickstream_assets.defs.put_back import STAMP, reported_stamp
from clickstream_assets.defs.resources import PostgresResource
from clickstream_assets.defs.runs import metadata_value
from clickstream_assets.defs.scope import NO_DAY, is_asked_for_by_a_person
from clickstream_assets.defs.serving.experiment_lists import publish_experiment_lists
from clickstream_assets.defs.serving.lists import Learnt, MadeFrom
from clickstream_assets.defs.serving.parts import publish_days
from clickstream_assets.defs.serving.served import refuse_if_put_back, serve
from clickstream_assets.ingest.experiments import declared_experiments
from clickstream_assets.recommender.evaluation import chosen_row
from clickstream_assets.recommender.parameters import Parameters
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake, conform
from clickstream_assets.stores.postgres.publishing import Publication, Published, Scope

DAILY_TABLES = tuple(
    t for t in SERVED_TABLES if t.day and t not in (PRODUCT_WINDOWS, CARTS, CUSTOMER_SEGMENTS)
)
"""Tables of daily assets. The stream writes its windows itself, and carts and customers go on from day to day."""
SHOPPER_TABLES = (CUSTOMER_SEGMENT_DAYS, COHORT_RETENTION)
"""Published whole; of carts and of customer_segments the days that have changed."""


def _days_of_reports(lake: Lake, publication: Publication, days: Days) -> Days:
    """Return the days to publish the reports of: these, and others whose published report is not the lake's."""
    columns = ("report_date", "generated_at", "made_from")
    reports = lake.engine.to_arrow(lake.read(DAILY_REPORT, columns=columns)).to_pylist()
    made = {row["report_date"]: row for row in reports}
    there = {row["report_date"]: row for row in publication.read(DAILY_REPORT, columns).to_pylist()}
    return Days.of([*days, *(day for day in made.keys() | there.keys() if made.get(day) != there.get(day))])


def _all_days(lake: Lake, days: Days) -> Days:
    """Return these days and all others that a daily table has rows of."""
    return Days.of([*days, *(day for t in DAILY_TABLES for day in lake.snapshot(t).rows_by(str(t.day)))])


@table_asset(
    *DAILY_TABLES,
    PUBLISHED_PARTS,
    deps=[table.name for table in DAILY_TABLES],
    is_daily=True,
    kinds={"postgres"},
)
def published_days(
    context: dg.AssetExecutionContext, settings: Settings, lake: Lake, postgres: PostgresResource
) -> Metadata:
    """The days' rows of PostgreSQL's `clickstream_sessions` and of the tables that have the lake's names, equal to it.

    All tables and all days of a run change in one transaction, and with them the funnels and reports of other days
    that were made again. Days that the lake has as they were published are left alone, and rows that stay the same are
    not written; how many changed is in the metadata. A run that a person starts compares all rows of its days. All days
    are published where the database is not as the last publication left it, as when it was put back to an earlier time.
    """
    days = days_of(context)
    changes: dict[date, dict[str, Published]] = {
        day: {table.served_name: Published() for table in DAILY_TABLES} for day in days
    }
    is_whole = is_asked_for_by_a_person(context)
    with postgres.publication() as publication:
        if publication.stamp("published_days") != reported_stamp(context.instance, "published_days"):
            days = _all_days(lake, days)
        reported = _days_of_reports(lake, publication, days)
        for table in DAILY_TABLES:
            # What late events did to customers and carts changes these of later days too.
            its_days = reported if table in (FUNNEL, DAILY_REPORT) else days
            published = publish_days(lake, settings, publication, table, its_days, is_whole=is_whole)
            for day in filter(changes.__contains__, published):
                changes[day][table.served_name] = published[day]
        stamp = publication.renew_stamp("published_days")
    rows_of_day = {day: sum(its.rows for its in of_day.values()) for day, of_day in changes.items()}
    return {
        STAMP: stamp,
        "changes": ByDay(
            {day: {name: asdict(its) for name, its in of_day.items()} for day, of_day in changes.items()}
        ),
        PARTITION_ROW_COUNT: ByDay(rows_of_day),
    }


@table_asset(
    *(CARTS, CUSTOMER_SEGMENTS, CUSTOMER_SEGMENT_DAYS, COHORT_RETENTION, IDENTITIES, PROFILING_REFUSALS),
    deps=["carts", "customer_segments", "cohort_retention", "identity_ties", "interaction_days"],
    kinds={"postgres"},
)
def published_shoppers(settings: Settings, lake: Lake, postgres: PostgresResource) -> Metadata:
    """PostgreSQL's `carts`, `customer_segments` and `cohort_retention`, equal to the lake's; whose ids are whose, and
    who refused to be profiled, of whom nothing else stays that says what they are like.

    All change in one transaction. Of customers and carts the days are published that the lake has written since they
    were last published, so a publication that failed is made up for by the next.
    """
    changes = {}
    rows = {table: lake.read(table) for table in SHOPPER_TABLES}
    rows[IDENTITIES] = identities(lake.read(IDENTITY_TIES), IdentityRules.of(settings))
    refused = lake.batches(PROFILING_REFUSALS, refusals(lake.read(CONSENT_DAYS)))
    with postgres.publication() as publication:
        published, agreed_on = publication.publish_refusals(refused)
        changes[PROFILING_REFUSALS.name] = asdict(published)
        customers = publish_days(lake, settings, publication, CUSTOMER_SEGMENTS)
        changes[CUSTOMER_SEGMENTS.name] = asdict(sum(customers.values(), Published()))
        for table in (USER_SEGMENTS, CUSTOMER_SEGMENTS) if agreed_on else ():
            # A day whose rows are the same in the lake is not published otherwise.
            since = [day for day in lake.snapshot(table).rows_by(str(table.day)) if day >= agreed_on]
            publish_days(lake, settings, publication, table, sorted(since), is_whole=True)
        carts = publish_days(lake, settings, publication, CARTS)
        changes[CARTS.name] = asdict(sum(carts.values(), Published()))
        for table, its_rows in rows.items():
            changes[table.served_name] = asdict(publication.publish(table, lake.batches(table, its_rows)))
        stamp = publication.renew_stamp("published_shoppers")
    return {
        STAMP: stamp,
        "changes": changes,
        "customers_from": str(min(customers, default=NO_DAY)),
        "dagster/row_count": sum(change["rows"] for change in changes.values()),
    }


@table_asset(PRODUCTS, deps=["products"], kinds={"postgres"}, op_tags=LAST)
def published_products(context: dg.AssetExecutionContext, lake: Lake, postgres: PostgresResource) -> Metadata:
    """PostgreSQL's `products`, equal to the lake's; left alone while the lake has the version that was published."""
    version = lake.version(PRODUCTS)
    reported = context.instance.get_latest_materialization_event(dg.AssetKey("published_products"))
    is_there = metadata_value(reported, PRODUCTS_VERSION) == version
    with postgres.publication() as publication:
        stamp = publication.stamp("published_products")
        if is_asked_for_by_a_person(context) or not is_there or stamp != metadata_value(reported, STAMP):
            changes = publication.publish(PRODUCTS, lake.batches(PRODUCTS, lake.read(PRODUCTS, version)))
            stamp = publication.renew_stamp("published_products")
        else:
            changes = Published(rows=lake.snapshot(PRODUCTS, version=version).rows)
    return {
        STAMP: stamp,
        PRODUCTS_VERSION: version,
        "changes": asdict(changes),
        "dagster/row_count": changes.rows,
    }


@table_asset(
    PRODUCT_RECOMMENDATIONS,
    deps=["interactions", "shopper_events", "popular_products", "als_model", "model_evaluation"],
    kinds={"postgres"},
    op_tags=URGENT,
    freshness_policy=FRESH_DAILY,
)
def product_recommendations(
    context: dg.AssetExecutionContext, settings: Settings, lake: Lake, postgres: PostgresResource
) -> Metadata:
    """Each user's products, ranked, with score, reason and model version; what is popular; and what goes together.

    By the algorithm that the evaluation chose, which is verified once more here. Recommendations, what each user
    has met and bought, popular and related products, evaluation and the model's own record change in one transaction.
    """
    engine = lake.engine
    evaluation = conform(engine.to_arrow(lake.read(MODEL_EVALUATION)), MODEL_EVALUATION)
    chosen = chosen_row(evaluation.to_pylist())
    algorithm = chosen["algorithm"]
    # What stays in service can have other parameters than what was trained beside it.
    parameters = Parameters.of(settings).read(chosen["parameters"])
    (baseline,) = [
        row
        for row in evaluation.to_pylist()
        if row["target"] == "next" and row["algorithm"] == "popularity" and not row["is_served"]
    ]
    # By the lake: Dagster's database can be of another time.
    model_version = chosen["model_version"]
    batch, _, _ = model_version.partition("-")
    made = context.instance.get_latest_materialization_event(dg.AssetKey(INTERACTIONS.name))
    trained_on = TrainingData.of(metadata_value(made, TRAINED_ON), lake, settings)
    trained_at = made.timestamp if made else time.time()
    made_from = MadeFrom.newest(lake, trained_on, with_factors=not chosen["is_served"])
    learnt = Learnt.of(lake, algorithm, parameters, made_from)
    judged = context.instance.get_latest_materialization_event(dg.AssetKey(MODEL_EVALUATION.name))
    with postgres.publication() as publication:
        refuse_if_put_back(publication, judged.timestamp if judged else None, model_version)
        changes = learnt.publish(publication, settings.recommendations_per_user, model_version)
        of_experiments = publish_experiment_lists(
            publication,
            declared_experiments(settings),
            learnt.data,
            evaluation.to_pylist(),
            lambda other, version: learnt.lists(other, settings.recommendations_per_user, version),
        )
        learnt.publish_histories(publication)
        record = {
            "model_version": model_version,
            "algorithm": algorithm,
            "parameters": parameters.as_json,
            "reason": chosen["reason"],
            "metric_name": f"ndcg@{chosen['k']}",
            "metric": chosen["ndcg"],
            "baseline_metric": baseline["ndcg"],
            "trained_on": f"events batch {batch}",
            "first_day": trained_on.first_day,
            "last_day": trained_on.last_day,
            "interactions": trained_on.rows,
            "users": changes.users,
            "rows": changes.lists.rows,
            "trained_at": datetime.fromtimestamp(trained_at, UTC),
            "buy_again": learnt.buy_again,
            "made_from": made_from.as_json,
        }
        # Of these two, earlier versions stay: they are the history of what was served, and why.
        this_version = Scope("model_version", model_version)
        publication.publish(MODEL_EVALUATION, evaluation, this_version)
        record_rows = pa.Table.from_pylist([record], schema=PUBLISHED_MODELS.arrow)
        publication.publish(PUBLISHED_MODELS, record_rows, this_version)
        serve(publication, "recommendations", model_version)
        stamp = publication.renew_stamp("product_recommendations")
    return {
        STAMP: stamp,
        "algorithm": algorithm,
        "reason": chosen["reason"],
        "model_version": model_version,
        TRAINED_ON: trained_on.metadata,
        TRAINED_AT: trained_at,
        "users": changes.users,
        "lists_of_experiments": of_experiments,
        "changes": asdict(changes.lists),
        "related_changes": asdict(changes.related),
        "dagster/row_count": changes.lists.rows,
    }
