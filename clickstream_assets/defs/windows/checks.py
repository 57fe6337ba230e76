"""Whether stream and batch agree, and whether the alerts are those of the windows."""

from collections import defaultdict

import dagster as dg

from clickstream_assets.analytics.schema import FLASH_SALE_ALERTS, PRODUCT_WINDOWS
from clickstream_assets.engine import functions_of
from clickstream_assets.resources.lake import LakeResource
from clickstream_assets.resources.settings import SettingsResource
from clickstream_assets.streaming.agreement import Reason, compare
from clickstream_assets.streaming.alerts import AlertRules, Window, find_alerts
from clickstream_assets.streaming.store import progress_of

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

    Events that came later than WATERMARK_DELAY are on the batch side only, by design; what differs for any other
    reason fails the check.
    """
    limits = settings.get()
    agreement = compare(limits, lake.get(), progress_of(limits), DAYS_COMPARED)
    if agreement.waiting:
        return dg.AssetCheckResult(passed=True, metadata={"compared": 0, "waiting": agreement.waiting})
    header = ["| window | product | stream | batch | late | reason |", "|---" * 6 + "|"]
    rows = [
        f"| {d.window_start:%Y-%m-%d %H:%M} | {d.product_id} | {d.streamed} | {d.batch} | {d.late} | {d.reason} |"
        for d in agreement.differences[:SHOWN]
    ]
    return dg.AssetCheckResult(
        passed=not agreement.count(Reason.LOST),
        metadata={
            "compared": agreement.compared,
            "equal": agreement.compared - len(agreement.differences),
            **{reason.name.lower(): agreement.count(reason) for reason in Reason},
            "differences": dg.MetadataValue.md("\n".join([*header, *rows])),
        },
    )


@dg.asset_check(asset="flash_sale_alerts")
def alerts_follow_from_windows(settings: SettingsResource, lake: LakeResource) -> dg.AssetCheckResult:
    """The alerts are those that the windows give when all of them are looked at again."""
    limits = settings.get()
    the_lake = lake.get()
    rules = AlertRules.of(limits)
    windows = the_lake.read(PRODUCT_WINDOWS)
    F, _ = functions_of(windows)
    over = windows.where((F.col("views") > rules.views) & (F.col("purchases") < rules.purchases))
    columns = ["product_id", "window_start", "window_end", "views", "purchases", "product_category"]
    by_product: dict[str, list[Window]] = defaultdict(list)
    for product_id, *fields in map(dict.values, the_lake.engine.to_arrow(over.select(*columns)).to_pylist()):
        by_product[product_id].append(Window(*fields))
    # Without the windows under the threshold, what is usual is another; it is left out on both sides.
    compared = ("alert_id", "views", "purchases", "first_window_start", "last_window_end", "windows")
    expected = {
        _values(alert._asdict(), compared)
        for product_id, found in by_product.items()
        for alert in find_alerts(product_id, found, rules, None)
    }
    kept = the_lake.engine.to_arrow(the_lake.read(FLASH_SALE_ALERTS)).to_pylist()
    actual = {_values(alert, compared) for alert in kept}
    wrong = sorted(values[0] for values in expected ^ actual)
    return dg.AssetCheckResult(
        passed=not wrong,
        metadata={"expected": len(expected), "actual": len(actual), "sample_alert_ids": wrong[:5]},
    )


def _values(alert: dict[str, object], names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(alert[name]) for name in names)
