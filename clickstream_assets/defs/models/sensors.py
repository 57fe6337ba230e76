"""The sensor that has models trained when there is enough new, or something new and the last training is old.

A refresh only sums its days up; what a training costs grows with TRAINING_DAYS, and not with how often events come.
"""

from __future__ import annotations

import time

import dagster as dg
from dagster import DagsterRunStatus

from clickstream_assets.catalogue import INTERACTION_DAYS
from clickstream_assets.defs.jobs import train
from clickstream_assets.defs.models.due import verdict_now
from clickstream_assets.defs.runs import look_until_due, under_way, wait_after_failures
from clickstream_assets.settings import Settings, load_settings

REASON_TAG = "clickstream/reason"
"""Tag of a run of `train`: why it was due."""


@dg.sensor(
    name="untrained_interactions",
    job=train,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts a run of train when there is enough new to train on, or something new and models are old.",
)
def untrained_interactions(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Compare what `interaction_days` reports with what was trained on, each time after a refresh that succeeded.

    Keeps no cursor: what is served says what it was trained on.
    """
    settings = load_settings()
    return look_until_due(lambda: _look(context.instance, settings))


def _look(instance: dg.DagsterInstance, settings: Settings) -> dg.SensorResult:
    verdict = verdict_now(instance, settings)
    if not verdict.is_due:
        return dg.SensorResult(skip_reason=verdict.reason)
    if run_id := under_way(instance, train.name):
        return dg.SensorResult(skip_reason=f"run {run_id} is under way; {verdict.reason}")
    # The categories of products are made after the sums; and a run that failed is made up for by another.
    made = instance.get_latest_materialization_event(dg.AssetKey(INTERACTION_DAYS.name))
    run = instance.get_run_by_id(made.run_id) if made else None
    if run and run.status != DagsterRunStatus.SUCCESS:
        state = "failed" if run.is_finished else "is under way"
        return dg.SensorResult(skip_reason=f"run {run.run_id}, which sums days up, {state}; {verdict.reason}")
    if wait := wait_after_failures(instance, train.name, time.time()):
        return dg.SensorResult(skip_reason=f"the last run failed; trying again in {wait:.0f} s")
    return dg.SensorResult(run_requests=[dg.RunRequest(tags={REASON_TAG: verdict.reason})])
