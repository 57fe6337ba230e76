"""The speed layer in a run: the same streaming query as `clickstream stream`, over what is in the topic now."""

from collections.abc import Mapping

from clickstream_assets.catalogue import FLASH_SALE_ALERTS, PRODUCT_WINDOWS
from clickstream_assets.defs.assets import Metadata, table_assets, table_spec
from clickstream_assets.defs.windows.owned import left_to
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake
from clickstream_assets.streaming.owner import OwnedError
from clickstream_assets.streaming.process import run_available
from clickstream_assets.streaming.source import streaming_session
from clickstream_assets.streaming.status import metadata


@table_assets(
    *(
        table_spec(
            table,
            deps=[dep],
            kinds={"spark", "delta", "postgres"},
            description=description,
        )
        for table, dep, description in (
            (
                PRODUCT_WINDOWS,
                "clickstream_events",
                "Views, carts and purchases of each product in sliding windows, straight from Kafka, without bots. "
                "Open windows change; one that the watermark has closed does not.",
            ),
            (
                FLASH_SALE_ALERTS,
                PRODUCT_WINDOWS.name,
                "Products that are viewed much and bought little: an alert per product and episode, opened, kept up "
                "to date and resolved. Also in Elasticsearch, for Kibana.",
            ),
        )
    )
)
def product_windows(
    settings: Settings,
    lake: Lake,  # noqa: ARG001
) -> Mapping[str, Metadata]:
    """Go on from the query's checkpoint to the end of the topic, then update the copies.

    These are windows and alerts in the lake, and alerts in Elasticsearch; where that is away, the next run updates it.
    While `clickstream stream` runs there is nothing to do here: it brings them up to date.
    """
    try:
        outcome = run_available(settings, lambda: streaming_session(settings))
    except OwnedError as error:
        return dict.fromkeys(
            (PRODUCT_WINDOWS.name, FLASH_SALE_ALERTS.name), left_to(error, PRODUCT_WINDOWS, settings)
        )
    values = metadata(outcome.status, outcome.open_alerts)
    values |= {"changed_windows": outcome.changed_windows}
    in_elasticsearch = {
        "index": settings.elasticsearch_alerts_index,
        "elasticsearch": f"waits: {outcome.alerts_wait}" if outcome.alerts_wait else "up to date",
    }
    return {PRODUCT_WINDOWS.name: values, FLASH_SALE_ALERTS.name: values | in_elasticsearch}
