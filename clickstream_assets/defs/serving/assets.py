"""What the API and the shop's own programs read: PostgreSQL tables, each publication in one transaction."""

from collections.abc import Iterator
from datetime import date
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from clickstream_assets.analytics.customers import first_changed
from clickstream_assets.catalogue import (
    CAMPAIGN_ATTRIBUTION,
    CARTS,
    CATEGORY_CONVERSION,
    COHORT_RETENTION,
    CUSTOMER_SEGMENT_DAYS,
    CUSTOMER_SEGMENTS,
    DAILY_REPORT,
    DAILY_SUMMARY,
    FUNNEL,
    INTERACTIONS,
    ITEM_FACTORS,
    MET_PRODUCTS,
    MODEL_EVALUATION,
    POPULAR_PRODUCTS,
    PRODUCT_PERFORMANCE,
    PRODUCT_RECOMMENDATIONS,
    PUBLISHED_MODELS,
    SERVED_MODELS,
    SESSIONS,
    USER_SEGMENTS,
    Table,
)
from clickstream_assets.defs.failures import explained_errors
from clickstream_assets.defs.partitions import daily, days_of, portions
from clickstream_assets.defs.resources import LakeResource, PostgresResource, SettingsResource
from clickstream_assets.defs.runs import metadata_value
from clickstream_assets.defs.tables import FIRST, FRESHNESS, OWNERS, describe
from clickstream_assets.engine import DataFrame, Engine, functions_of
from clickstream_assets.recommender import als
from clickstream_assets.recommender.algorithms import restore
from clickstream_assets.recommender.evaluation import chosen_algorithm
from clickstream_assets.recommender.ranking import Model, Products
from clickstream_assets.recommender.selection import met_products, recommend
from clickstream_assets.stores.lake import Lake, conform
from clickstream_assets.stores.postgres.publishing import Publication, Published, Scope

DAILY_TABLES = (
    SESSIONS,
    USER_SEGMENTS,
    PRODUCT_PERFORMANCE,
    CATEGORY_CONVERSION,
    DAILY_SUMMARY,
    FUNNEL,
    CAMPAIGN_ATTRIBUTION,
    DAILY_REPORT,
)
# Of 20 rows a user, at some 150 bytes a row: 600 MB.
USERS_PER_PORTION = 200_000
SHOPPER_TABLES = (CARTS, CUSTOMER_SEGMENT_DAYS, COHORT_RETENTION)
"""Published whole; customer_segments, of which there are many days, from the first day that has changed."""


def _rows_of_days(lake: Lake, table: Table, first: date, last: date) -> Iterator[pa.RecordBatch]:
    (column,) = table.partition_by
    for start, end in portions(lake, first, last, table):
        rows = lake.read(table)
        F, _ = functions_of(rows)
        days = (F.col(column) >= F.lit(start)) & (F.col(column) <= F.lit(end))
        yield from conform(lake.engine.to_arrow(rows.where(days)), table).to_batches()


def _days_of_reports(lake: Lake, publication: Publication, first: date, last: date) -> tuple[date, date]:
    """The days to publish the reports of: these, up to or from others that are not published as the lake has them."""
    columns = ("report_date", "generated_at", "made_from")
    reports = lake.engine.to_arrow(lake.read(DAILY_REPORT, columns=columns)).to_pylist()
    made = {row["report_date"]: row for row in reports}
    there = {row["report_date"]: row for row in publication.read(DAILY_REPORT, columns).to_pylist()}
    days = {day for day in made.keys() | there.keys() if made.get(day) != there.get(day)} | {first, last}
    return min(days), max(days)


def _changes(published: Published) -> dict[str, int]:
    return {
        "rows": published.rows,
        "inserted": published.inserted,
        "updated": published.updated,
        "deleted": published.deleted,
    }


@dg.asset(
    deps=[table.name for table in DAILY_TABLES],
    partitions_def=daily(),
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="serving",
    kinds={"postgres"},
    owners=OWNERS,
    freshness_policy=FRESHNESS,
    metadata=describe(*DAILY_TABLES),
)
def published_days(
    context: dg.AssetExecutionContext, lake: LakeResource, postgres: PostgresResource
) -> dg.MaterializeResult:
    """The days' rows of PostgreSQL's `clickstream_sessions` and of the tables that have the lake's names, equal to it.

    All tables and all days of a run change in one transaction, and with them the funnels and reports of other days
    that were made again. Rows that stay the same are not touched; how many changed is in the metadata.
    """
    the_lake = lake.get()
    first, last = days_of(context)
    changes = {}
    with explained_errors(), postgres.publication() as publication:
        reported = _days_of_reports(the_lake, publication, first, last)
        for table in DAILY_TABLES:
            (day,) = table.partition_by
            start, end = first, last
            if table in (FUNNEL, DAILY_REPORT):
                # What late events did to customers and carts changes these of later days too.
                start, end = reported
            rows = _rows_of_days(the_lake, table, start, end)
            changes[table.served_name] = _changes(publication.publish(table, rows, Scope(day, start, end)))
    return dg.MaterializeResult(
        metadata={
            "changes": changes,
            "dagster/partition_row_count": sum(change["rows"] for change in changes.values()),
        }
    )


@dg.asset(
    deps=["carts", "customer_segments", "cohort_retention"],
    group_name="serving",
    kinds={"postgres"},
    owners=OWNERS,
    freshness_policy=FRESHNESS,
    metadata=describe(*(CARTS, CUSTOMER_SEGMENTS, *SHOPPER_TABLES[1:])),
)
def published_shoppers(lake: LakeResource, postgres: PostgresResource) -> dg.MaterializeResult:
    """PostgreSQL's `carts`, `customer_segments` and `cohort_retention`, equal to the lake's.

    All change in one transaction. Of the customers' days those are published that are not made from what the
    published ones were made from, so a publication that failed is made up for by the next.
    """
    the_lake = lake.get()
    engine = the_lake.engine
    changes = {}
    with explained_errors():
        rows = {table: conform(engine.to_arrow(the_lake.read(table)), table) for table in SHOPPER_TABLES}
        days = rows[CUSTOMER_SEGMENT_DAYS]
        with postgres.publication() as publication:
            before = publication.read(CUSTOMER_SEGMENT_DAYS)
            changed = first_changed(before, days)
            if changed:
                last = max([*before["report_date"].to_pylist(), *days["report_date"].to_pylist()])
                customers = _rows_of_days(the_lake, CUSTOMER_SEGMENTS, changed, last)
                changes[CUSTOMER_SEGMENTS.name] = _changes(
                    publication.publish(CUSTOMER_SEGMENTS, customers, Scope("report_date", changed, last))
                )
            for table, its_rows in rows.items():
                changes[table.served_name] = _changes(publication.publish(table, its_rows))
    return dg.MaterializeResult(
        metadata={
            "changes": changes,
            "customers_from": str(changed) if changed else "no day has changed",
            "dagster/row_count": sum(change["rows"] for change in changes.values()),
        }
    )


def _lists(
    engine: Engine, model: Model, interactions: DataFrame, n: int, model_version: str, users: list[int]
) -> Iterator[pa.RecordBatch]:
    """Rank for some users after others; all lists at once would be n rows of text per user in memory.

    Adds to `users`, for each portion, how many of them have a list.
    """
    ids = pc.unique(engine.to_arrow(interactions.select("user_id").distinct())["user_id"])
    ids = ids.take(pc.sort_indices(ids))
    F, _ = functions_of(interactions)
    for start in range(0, len(ids), USERS_PER_PORTION):
        first, last = ids[start].as_py(), ids[min(start + USERS_PER_PORTION, len(ids)) - 1].as_py()
        of_portion = interactions.where(F.col("user_id").between(first, last))
        ranked = recommend(engine, model, of_portion, n, model_version)
        rows = conform(engine.to_arrow(ranked), PRODUCT_RECOMMENDATIONS)
        engine.release(ranked)
        users.append(len(rows["user_id"].unique()))
        yield from rows.to_batches()


@dg.asset(
    deps=["interactions", "popular_products", "als_model", "model_evaluation"],
    group_name="serving",
    kinds={"postgres"},
    owners=OWNERS,
    freshness_policy=FRESHNESS,
    op_tags=FIRST,
    metadata=describe(PRODUCT_RECOMMENDATIONS),
)
def product_recommendations(
    context: dg.AssetExecutionContext,
    settings: SettingsResource,
    lake: LakeResource,
    postgres: PostgresResource,
) -> dg.MaterializeResult:
    """Each user's products, ranked, with score, reason and model version; and the popular products.

    By the algorithm that the evaluation chose, which is verified once more here. Recommendations, what each user
    has met already, popular products, evaluation and the model's own record change in one transaction.
    """
    limits = settings.get()
    the_lake = lake.get()
    engine = the_lake.engine
    model_event = context.instance.get_latest_materialization_event(dg.AssetKey("als_model"))
    model_version = str(metadata_value(model_event, "model_version"))
    with explained_errors():
        evaluation = conform(engine.to_arrow(the_lake.read(MODEL_EVALUATION)), MODEL_EVALUATION)
        algorithm = chosen_algorithm(evaluation.to_pylist())
        popular = conform(engine.to_arrow(the_lake.read(POPULAR_PRODUCTS)), POPULAR_PRODUCTS)
        interactions = the_lake.read(INTERACTIONS)
        model = restore(
            algorithm,
            engine,
            interactions,
            Products.of(popular),
            engine.to_arrow(the_lake.read(ITEM_FACTORS)),
            als.Parameters.of(limits),
        )
        met = conform(engine.to_arrow(met_products(interactions)), MET_PRODUCTS)
        (chosen,) = [row for row in evaluation.to_pylist() if row["chosen"]]
        (baseline,) = [row for row in evaluation.to_pylist() if row["algorithm"] == "popularity"]
        record: dict[str, Any] = {
            "model_version": model_version,
            "algorithm": algorithm,
            "reason": chosen["reason"],
            "metric_name": f"ndcg@{chosen['k']}",
            "metric": chosen["ndcg"],
            "baseline_metric": baseline["ndcg"],
            "trained_on": f"events batch {metadata_value(model_event, 'events_batch')}",
        }
        users: list[int] = []
        lists = _lists(engine, model, interactions, limits.recommendations_per_user, model_version, users)
        with postgres.publication() as publication:
            changes = _changes(publication.publish(PRODUCT_RECOMMENDATIONS, lists))
            record |= {"users": sum(users), "rows": changes["rows"]}
            publication.publish(MET_PRODUCTS, met)
            publication.publish(POPULAR_PRODUCTS, popular)
            # Of these two, earlier versions stay: they are the history of what was served, and why.
            this_version = Scope("model_version", model_version)
            publication.publish(MODEL_EVALUATION, evaluation, this_version)
            record_rows = pa.Table.from_pylist([record], schema=PUBLISHED_MODELS.arrow)
            publication.publish(PUBLISHED_MODELS, record_rows, this_version)
            served = [{"answers": "recommendations", "model_version": model_version}]
            served_rows = pa.Table.from_pylist(served, schema=SERVED_MODELS.arrow)
            publication.publish(SERVED_MODELS, served_rows)
    return dg.MaterializeResult(
        metadata={
            "algorithm": algorithm,
            "reason": chosen["reason"],
            "model_version": model_version,
            "users": sum(users),
            "changes": changes,
            "dagster/row_count": changes["rows"],
        }
    )
