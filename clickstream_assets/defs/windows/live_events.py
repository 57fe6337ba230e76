"""The live events in a run: the same streaming query as in `clickstream stream`, over what is in the topic now."""

from clickstream_assets.catalogue import LIVE_EVENTS
from clickstream_assets.defs.assets import Metadata, table_asset
from clickstream_assets.defs.windows.owned import left_to
from clickstream_assets.settings import Settings
from clickstream_assets.streaming.owner import OwnedError
from clickstream_assets.streaming.process import run_live_events
from clickstream_assets.streaming.source import streaming_session
from clickstream_assets.streaming.status import metadata


@table_asset(LIVE_EVENTS, deps=["clickstream_events"], kinds={"spark", "elasticsearch"})
def live_events(settings: Settings) -> Metadata:
    """Valid events in Elasticsearch, one document per event id: the first record of an id, straight from Kafka.

    An index per day behind one alias. What Elasticsearch refuses is in rejected_events.
    """
    try:
        status = run_live_events(settings, lambda: streaming_session(settings))
    except OwnedError as error:
        return left_to(error, LIVE_EVENTS, settings)
    return metadata(status) | {"alias": settings.elasticsearch_alias}
