"""The sensor that has models trained when there is enough new, or something new and the last training is old.

A refresh only sums its days up; what a training costs grows with TRAINING_DAYS, and not with how often events come.
"""

from __future__ import annotations

import time

import dagster as dg

from clickstream_assets.catalogue import INTERACTION_DAYS, PRODUCT_PERFORMANCE
from clickstream_assets.defs.jobs import train
from clickstream_assets.defs.models.due import verdict_now
from clickstream_assets.defs.runs import blocking_checks, look_until_due, under_way, wait_after_failures
from clickstream_assets.settings import Settings, load_settings

REASON_TAG = "clickstream/reason"
"""Tag of a run of `train`: why it was due."""
_INTERACTION_DAYS = dg.AssetKey(INTERACTION_DAYS.name)
_PRODUCT_PERFORMANCE = dg.AssetKey(PRODUCT_PERFORMANCE.name)


@dg.sensor(
    name="untrained_interactions",
    job=train,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts a run of train when there is enough new to train on, or something new and models are old.",
)
def untrained_interactions(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Compare what `interaction_days` reports with what was trained on, when a refresh has made what is trained on.

    The rest of the refresh is not waited for. Keeps no cursor: what is served says what it was trained on.
    """
    settings = load_settings()
    return look_until_due(lambda: _look(context, settings))


def _look(context: dg.SensorEvaluationContext, settings: Settings) -> dg.SensorResult:
    instance = context.instance
    verdict = verdict_now(instance, settings)
    if not verdict.is_due:
        return dg.SensorResult(skip_reason=verdict.reason)
    if run_id := under_way(instance, train.name):
        return dg.SensorResult(skip_reason=f"run {run_id} is under way; {verdict.reason}")
    if missing := _missing(context):
        return dg.SensorResult(skip_reason=f"{missing}; {verdict.reason}")
    if wait := wait_after_failures(instance, train.name, time.time()):
        return dg.SensorResult(skip_reason=f"the last run failed; trying again in {wait:.0f} s")
    return dg.SensorResult(run_requests=[dg.RunRequest(tags={REASON_TAG: verdict.reason})])


def _missing(context: dg.SensorEvaluationContext) -> str | None:
    """Return what the run that made `interaction_days` has not done yet of what is trained on."""
    (made,) = context.instance.fetch_materializations(_INTERACTION_DAYS, limit=1).records
    for check, passed in blocking_checks(context, _INTERACTION_DAYS, made.storage_id).items():
        if not passed:
            verdict = "has not been carried out yet" if passed is None else "failed"
            return f"check {check} of {INTERACTION_DAYS.name} {verdict}"
    categories = context.instance.get_latest_materialization_event(_PRODUCT_PERFORMANCE)
    run = context.instance.get_run_by_id(made.run_id)
    has_categories = categories is not None and categories.run_id == made.run_id
    if run and not run.is_finished and not has_categories:
        return f"run {run.run_id} is still to make {PRODUCT_PERFORMANCE.name}"
    return None
