"""Checks that stream and batch agree, and that the alerts are those of the windows."""

import dagster as dg

from clickstream_assets.catalogue import FLASH_SALE_ALERTS, PRODUCT_WINDOWS
from clickstream_assets.defs.checks import SAMPLES, table_check
from clickstream_assets.defs.plots import text_table
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake
from clickstream_assets.streaming.reconciliation import Reason, reconcile, reconcile_alerts

# Of event time. Each run compares, and what is older was compared by the runs before.
DAYS_COMPARED = 2
SHOWN = 20


@table_check(PRODUCT_WINDOWS)
def stream_agrees_with_batch(settings: Settings, lake: Lake) -> dg.AssetCheckResult:
    """Closed windows of the last days, counted again from `events`, are those of the stream.

    Events that came later than WATERMARK_DELAY are on the batch side only, by design, and repetitions that came
    later than the stream remembers on the stream's; what differs for any other reason fails the check. Where windows
    are closed and none could be compared, it warns.
    """
    reconciliation = reconcile(settings, lake, DAYS_COMPARED)
    if reconciliation.waiting:
        return dg.AssetCheckResult(
            passed=reconciliation.closed_until is None,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"nothing was compared: {reconciliation.waiting}",
            metadata={"compared": 0},
        )
    rows = [
        (f"{d.window_start:%Y-%m-%d %H:%M}", d.product_id, d.streamed, d.batch, d.late, d.repeated, d.reason)
        for d in reconciliation.differences[:SHOWN]
    ]
    return dg.AssetCheckResult(
        passed=reconciliation.holds,
        description=f"{reconciliation.compared} windows, closed up to {reconciliation.closed_until}, were compared",
        metadata={
            "compared": reconciliation.compared,
            "equal": reconciliation.compared - len(reconciliation.differences),
            **{reason.name.lower(): reconciliation.count(reason) for reason in Reason},
            "differences": text_table(
                ["window", "product", "stream", "batch", "late", "repeated", "reason"], rows
            ),
        },
    )


@table_check(FLASH_SALE_ALERTS)
def alerts_follow_from_windows(settings: Settings) -> dg.AssetCheckResult:
    """The alerts are those that the windows give when all of them are looked at again."""
    reconciliation = reconcile_alerts(settings)
    return dg.AssetCheckResult(
        passed=not reconciliation.wrong,
        metadata={
            "expected": reconciliation.expected,
            "actual": reconciliation.actual,
            "sample_alert_ids": reconciliation.wrong[:SAMPLES],
        },
    )
