"""The speed layer in a run: the same streaming query as `clickstream stream`, over what is in the topic now."""

from collections.abc import Iterator

import dagster as dg

from clickstream_assets.catalogue import FLASH_SALE_ALERTS, PRODUCT_WINDOWS
from clickstream_assets.defs.failures import explained_errors
from clickstream_assets.defs.resources import LakeResource, SettingsResource
from clickstream_assets.defs.tables import FRESHNESS, OWNERS, describe
from clickstream_assets.streaming.owner import OwnedError
from clickstream_assets.streaming.process import run_available
from clickstream_assets.streaming.report import metadata
from clickstream_assets.streaming.source import streaming_session


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            table.name,
            deps=deps,
            group_name="windows",
            kinds={"spark", "delta", "postgres"},
            owners=OWNERS,
            freshness_policy=FRESHNESS,
            metadata=describe(table),
            description=description,
            skippable=True,
        )
        for table, deps, description in (
            (
                PRODUCT_WINDOWS,
                ["clickstream_events"],
                "Views, carts and purchases of each product in sliding windows, straight from Kafka, without bots. "
                "Open windows change, closed ones are final.",
            ),
            (
                FLASH_SALE_ALERTS,
                [PRODUCT_WINDOWS.name],
                "Products that are viewed much and bought little: an alert per product and episode, opened, kept up "
                "to date and resolved. Also in Elasticsearch, for Kibana.",
            ),
        )
    ],
    name="product_windows",
)
def product_windows(
    context: dg.AssetExecutionContext, settings: SettingsResource, lake: LakeResource
) -> Iterator[dg.MaterializeResult]:
    """Go on from the query's checkpoint to the end of the topic, then bring the copies along.

    Of windows and alerts in the lake, and of alerts in Elasticsearch; where that is away, they wait for the next run.
    While `clickstream stream` runs there is nothing to do here: it reports its own materializations.
    """
    limits = settings.get()
    try:
        with explained_errors():
            outcome = run_available(limits, lambda: streaming_session(limits))
    except OwnedError as error:
        context.log.info(f"{error}; it brings the windows up to date")
        return
    values = metadata(outcome.status, outcome.latency_seconds, outcome.open_alerts)
    in_elasticsearch = {
        "index": limits.elasticsearch_alerts_index,
        "elasticsearch": f"waits: {outcome.alerts_wait}" if outcome.alerts_wait else "up to date",
    }
    for table in (PRODUCT_WINDOWS, FLASH_SALE_ALERTS):
        yield dg.MaterializeResult(
            asset_key=table.name,
            metadata={
                **values,
                "changed_windows": outcome.changed_windows,
                "dagster/row_count": lake.get().snapshot(table).rows,
                **(in_elasticsearch if table is FLASH_SALE_ALERTS else {}),
            },
        )
