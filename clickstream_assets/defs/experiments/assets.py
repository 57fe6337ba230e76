"""Experiments on recommendations: exposures as they come, and what came of them by arm."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from clickstream_assets.analytics import experiments as counting
from clickstream_assets.analytics.consent import profiled
from clickstream_assets.analytics.identity import WITHOUT_END, IdentityRules
from clickstream_assets.analytics.measures import count
from clickstream_assets.catalogue import (
    CONSENT_DAYS,
    EXPERIMENT_EXPOSURES,
    EXPERIMENT_RESULTS,
    IDENTITY_TIES,
    RAW_EXPOSURES,
    REJECTED_EXPOSURES,
    SHOPPER_EVENTS,
)
from clickstream_assets.defs.assets import Metadata, table_asset
from clickstream_assets.defs.plots import text_table
from clickstream_assets.defs.put_back import STAMP
from clickstream_assets.defs.resources import PostgresResource
from clickstream_assets.engine import DataFrame, functions_of
from clickstream_assets.ingest.classification import land_records
from clickstream_assets.ingest.erased_places import leave_out_erased
from clickstream_assets.ingest.erasure import OF_EXPOSURES
from clickstream_assets.ingest.experiments import declared_experiments
from clickstream_assets.ingest.exposures import exposures_topic, update_exposures
from clickstream_assets.recommender.experiment_results import Counted, result_rows
from clickstream_assets.recommender.experiments import Experiment
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake, conform
from clickstream_assets.stores.postgres.pseudonyms import pseudonyms_of

MADE_FROM = "made_from"
"""Metadata of `experiment_results`: what they were made from, as `sources` has it."""
RESULTS_VERSION = "experiment_results_version"
"""Metadata of `published_experiments`: the version of the results that PostgreSQL has."""
_SOURCES = (EXPERIMENT_EXPOSURES, SHOPPER_EVENTS, IDENTITY_TIES, CONSENT_DAYS)
_EVENT_COLUMNS = ("event_type", "event_time", "event_date", "user_id", "product_id", "price", "quantity")
# A shop's day can begin half a day and more before UTC's.
_A_DAY = timedelta(days=1)
# In which late events still come, and results are made again of experiments that are over.
_SETTLES = timedelta(days=7)


def sources(settings: Settings, lake: Lake) -> str:
    """Return what results are made from now: what is declared, and the versions of tables.

    Of these none where all experiments are over for so long that what comes now is hardly of them.
    """
    experiments = declared_experiments(settings)
    now = datetime.now(UTC)
    is_open = any(each.end is None or now < each.end + each.window + _SETTLES for each in experiments)
    versions = [str(max(0, lake.version(table))) for table in _SOURCES] if is_open else []
    return "\n".join([" ".join(versions), *(each.model_dump_json() for each in experiments)])


@table_asset(EXPERIMENT_EXPOSURES, RAW_EXPOSURES, REJECTED_EXPOSURES, deps=[])
def experiment_exposures(settings: Settings, lake: Lake) -> Metadata:
    """One row per answer that was part of an experiment: whom it was for, the arm, and the products in it.

    Records of KAFKA_EXPOSURES_TOPIC are in `raw_exposures` once, by partition and offset, and each batch of them is
    taken in once. What is no exposure is in `rejected_exposures`.
    """
    records = 0
    if topic := exposures_topic(settings):
        records = land_records(lake, topic, settings, RAW_EXPOSURES).records
    leave_out_erased(lake, settings, OF_EXPOSURES)
    names = partial(pseudonyms_of, settings) if settings.pseudonyms else None
    return {"records": records, "rejected_records": update_exposures(lake, names)}


@table_asset(
    EXPERIMENT_RESULTS,
    deps=["experiment_exposures", "shopper_events", "identity_ties", "interaction_days"],
)
def experiment_results(settings: Settings, lake: Lake) -> Metadata:
    """One row per arm of each declared experiment: persons, clicks, conversion and revenue, and which arm is better.

    A person counts once, in the arm of the first exposure, by what they did in the window after it. Who refused to be
    profiled is left out. The decision holds however often it is looked at.
    """
    made_from = sources(settings, lake)
    rows = [
        row
        for experiment in declared_experiments(settings)
        for row in result_rows(experiment, counted_in_lake(experiment, settings, lake))
    ]
    lake.replace_rows(EXPERIMENT_RESULTS, pa.Table.from_pylist(rows, schema=EXPERIMENT_RESULTS.arrow))
    names = ("experiment", "arm", "units", "judged_units", "click_through", "conversion", "revenue_per_unit")
    shown = [[_shown(row[name]) for name in (*names, "p_value", "decision")] for row in rows]
    return {MADE_FROM: made_from, "results": text_table([*names, "p_value", "decision"], shown)}


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)


def counted_in_lake(experiment: Experiment, settings: Settings, lake: Lake) -> Counted:
    """Count what came of an experiment, from the tables of the lake."""
    engine = lake.engine
    exposures = lake.read(EXPERIMENT_EXPOSURES)
    F, _ = functions_of(exposures)
    its = exposures.where(
        (F.col("experiment") == F.lit(experiment.name))
        & (F.col("exposed_at") >= F.lit(experiment.start))
        & (F.col("exposed_at") < F.lit(experiment.end or WITHOUT_END))
    )
    ties = lake.read(IDENTITY_TIES) if lake.snapshot(IDENTITY_TIES).rows else None
    persons = counting.exposures_of_persons(its, ties, IdentityRules.of(settings))
    as_users = persons.withColumnRenamed("person", "user_id")
    agreed = engine.persist(
        profiled(as_users, lake.read(CONSENT_DAYS)).withColumnRenamed("user_id", "person")
    )
    found = engine.to_arrow(
        agreed.groupBy("arm").agg(count(F).alias("exposures"), F.min("exposed_at").alias("first"))
    )
    first = pc.min(found["first"]).as_py()
    if first is None:
        engine.release(agreed)
        return Counted([], [], [], None)
    units = engine.persist(counting.units(agreed, experiment.window_hours))
    sizes = engine.to_arrow(counting.sizes(units)).to_pylist()
    events = engine.persist(_events(experiment, lake, first))
    as_of = engine.to_arrow(events.agg(F.max("event_time").alias("newest")))["newest"][0].as_py()
    outcomes = []
    if as_of is not None:
        outcomes = engine.to_arrow(counting.outcomes(units, agreed, events, as_of)).to_pylist()
    for each in (events, units, agreed):
        engine.release(each)
    return Counted(found.to_pylist(), sizes, outcomes, as_of)


def _events(experiment: Experiment, lake: Lake, first: datetime) -> DataFrame:
    """Return the events of all windows, and those after them that say that these are over."""
    last = date.max if experiment.end is None else (experiment.end + experiment.window + 2 * _A_DAY).date()
    there = lake.snapshot(SHOPPER_EVENTS).rows_by("event_date")
    days = [day for day in there if (first - _A_DAY).date() <= day <= last]
    return lake.read(SHOPPER_EVENTS, columns=_EVENT_COLUMNS, days=days)


@table_asset(EXPERIMENT_RESULTS, deps=["experiment_results"], kinds={"postgres"})
def published_experiments(lake: Lake, postgres: PostgresResource) -> Metadata:
    """PostgreSQL's `experiment_results`, equal to the lake's."""
    version = lake.version(EXPERIMENT_RESULTS)
    rows = conform(lake.engine.to_arrow(lake.read(EXPERIMENT_RESULTS, version)), EXPERIMENT_RESULTS)
    with postgres.publication() as publication:
        changes = asdict(publication.publish(EXPERIMENT_RESULTS, rows))
        stamp = publication.renew_stamp("published_experiments")
    return {STAMP: stamp, RESULTS_VERSION: version, "changes": changes, "dagster/row_count": rows.num_rows}
