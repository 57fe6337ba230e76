"""The live events in a run: the same streaming query as in `clickstream stream`, over what is in the topic now."""

from collections.abc import Iterator

import dagster as dg

from clickstream_assets.catalogue import LIVE_EVENTS
from clickstream_assets.defs.failures import explained_errors
from clickstream_assets.defs.resources import SettingsResource
from clickstream_assets.defs.tables import FRESHNESS, OWNERS, describe
from clickstream_assets.streaming.owner import OwnedError
from clickstream_assets.streaming.process import run_live_events
from clickstream_assets.streaming.report import metadata
from clickstream_assets.streaming.source import streaming_session


@dg.asset(
    deps=["clickstream_events"],
    group_name="windows",
    kinds={"spark", "elasticsearch"},
    owners=OWNERS,
    freshness_policy=FRESHNESS,
    metadata=describe(LIVE_EVENTS),
    output_required=False,
)
def live_events(
    context: dg.AssetExecutionContext, settings: SettingsResource
) -> Iterator[dg.MaterializeResult]:
    """Valid events in Elasticsearch, one document per event id: the first record of an id, straight from Kafka.

    An index per UTC day behind one alias. What Elasticsearch refuses is in rejected_events.
    """
    limits = settings.get()
    try:
        with explained_errors():
            status = run_live_events(limits, lambda: streaming_session(limits))
    except OwnedError as error:
        context.log.info(f"{error}; it brings the live events up to date")
        return
    yield dg.MaterializeResult(metadata=metadata(status) | {"alias": limits.elasticsearch_alias})
