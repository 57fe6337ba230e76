"""Whether stream and batch agree, and whether the alerts are those of the windows."""

import dagster as dg

from clickstream_assets.catalogue import PRODUCT_WINDOWS
from clickstream_assets.defs.resources import LakeResource, SettingsResource
from clickstream_assets.engine import functions_of
from clickstream_assets.streaming.agreement import Reason, compare, compare_alerts

# Of event time. Each run compares, and what is older was compared by the runs before.
DAYS_COMPARED = 2
SHOWN = 20


@dg.asset_check(asset="product_windows", blocking=True)
def window_keys_are_unique(lake: LakeResource) -> dg.AssetCheckResult:
    """No product is twice in a window."""
    the_lake = lake.get()
    windows = the_lake.read(PRODUCT_WINDOWS)
    F, _ = functions_of(windows)
    twice = windows.groupBy(*PRODUCT_WINDOWS.key).agg(F.count(F.lit(1)).alias("rows"))
    keys = the_lake.engine.to_arrow(twice.where(F.col("rows") > 1).limit(5).select(*PRODUCT_WINDOWS.key))
    return dg.AssetCheckResult(
        passed=not keys.num_rows, metadata={"sample_keys": [str(key) for key in keys.to_pylist()]}
    )


@dg.asset_check(asset="product_windows")
def stream_agrees_with_batch(settings: SettingsResource, lake: LakeResource) -> dg.AssetCheckResult:
    """Closed windows of the last days, counted again from `events`, are those of the stream.

    Events that came later than WATERMARK_DELAY are on the batch side only, by design, and repetitions that came
    later than the stream remembers on the stream's; what differs for any other reason fails the check. Where windows
    are closed and none could be compared, it warns.
    """
    agreement = compare(settings.get(), lake.get(), DAYS_COMPARED)
    if agreement.waiting:
        return dg.AssetCheckResult(
            passed=agreement.closed_until is None,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"nothing was compared: {agreement.waiting}",
            metadata={"compared": 0},
        )
    header = ["| window | product | stream | batch | late | repeated | reason |", "|---" * 7 + "|"]
    rows = [
        f"| {d.window_start:%Y-%m-%d %H:%M} | {d.product_id} | {d.streamed} | {d.batch} | {d.late} | {d.repeated} "
        f"| {d.reason} |"
        for d in agreement.differences[:SHOWN]
    ]
    return dg.AssetCheckResult(
        passed=agreement.holds,
        description=f"{agreement.compared} windows, closed up to {agreement.closed_until}, were compared",
        metadata={
            "compared": agreement.compared,
            "equal": agreement.compared - len(agreement.differences),
            **{reason.name.lower(): agreement.count(reason) for reason in Reason},
            "differences": dg.MetadataValue.md("\n".join([*header, *rows])),
        },
    )


@dg.asset_check(asset="flash_sale_alerts")
def alerts_follow_from_windows(settings: SettingsResource) -> dg.AssetCheckResult:
    """The alerts are those that the windows give when all of them are looked at again."""
    agreement = compare_alerts(settings.get())
    return dg.AssetCheckResult(
        passed=not agreement.wrong,
        metadata={
            "expected": agreement.expected,
            "actual": agreement.actual,
            "sample_alert_ids": agreement.wrong[:5],
        },
    )
