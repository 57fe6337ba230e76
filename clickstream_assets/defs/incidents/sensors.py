"""The sensor that finds incidents and has people notified, of each once."""

from __future__ import annotations

import threading
import time

import dagster as dg

from clickstream_assets.defs.incidents.delivery import addresses, deliver
from clickstream_assets.defs.incidents.keeping import keep, kept
from clickstream_assets.defs.incidents.problems import Look, find_problems
from clickstream_assets.defs.incidents.record import Record, is_silenced
from clickstream_assets.settings import Settings, load_settings

_looking = threading.Lock()


@dg.sensor(
    minimum_interval_seconds=load_settings().incident_sensor_seconds,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Finds what is wrong, and tells people by mail and webhook: that it is, and when it is over.",
)
def incidents(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Compare what is wrong now with the record of incidents, and send what somebody was not notified of.

    The record is no cursor, which would be kept only after the evaluation: a message is kept before it is sent, and
    that it was taken right after. Whatever ends the evaluation in between, the message is sent again under the same
    id.
    """
    if context.repository_def is None:
        raise dg.DagsterInvariantViolationError("the sensor needs its code location")
    if not _looking.acquire(blocking=False):
        return dg.SkipReason("the last look is still under way")
    try:
        settings = load_settings()
        record = kept(context.instance)
        look = Look(context.instance, context.repository_def, settings, incidents.name)
        problems, unknown = find_problems(look)
        now = time.time()
        record.take_in(problems, unknown, now, settings)
        record.use_routes(addresses(settings))
        record.compose(now, settings)

        def save() -> None:
            record.forget_settled()
            keep(context.instance, record)

        save()
        deliver(settings, record, save)
    finally:
        _looking.release()
    for error in unknown.values():
        raise error
    return dg.SkipReason(_status(record, now, settings))


def _status(record: Record, now: float, settings: Settings) -> str:
    """Return a line on what is open, and on whom could not be notified."""
    opened = [
        incident.problem.name + (" (silenced)" if is_silenced(incident.problem, now, settings) else "")
        for incident in record.open()
    ]
    parts = [f"open: {', '.join(opened)}" if opened else "nothing is wrong"]
    parts += [f"{name} waits: {r.last_error}" for name, r in record.routes.items() if r.last_error]
    if not record.routes:
        parts.append("nobody is told: set INCIDENT_TO or INCIDENT_WEBHOOK_URLS")
    return "; ".join(parts)
