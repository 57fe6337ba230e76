"""Counts of rejected records by hour, rule and field, and a check that warns of more than usual."""

from dataclasses import asdict

import dagster as dg

from clickstream_assets.catalogue import (
    EVENTS,
    RECORD_DAYS,
    REJECTED_COUNTS,
    REJECTED_EVENTS,
    REJECTED_SAMPLES,
)
from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.defs.assets import LAST, Metadata, table_asset
from clickstream_assets.defs.checks import SAMPLES, table_check
from clickstream_assets.defs.plots import bar_plot, text_table
from clickstream_assets.defs.put_back import STAMP
from clickstream_assets.defs.resources import PostgresResource
from clickstream_assets.ingest import record_counts
from clickstream_assets.ingest.record_counts import Share, left_out_shares, rejected_shares
from clickstream_assets.ingest.rejected_samples import update_samples
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake


@table_asset(
    REJECTED_COUNTS,
    RECORD_DAYS,
    REJECTED_SAMPLES,
    deps=[REJECTED_EVENTS.name, "events", "duplicate_events", "conflicting_events"],
    kinds={"postgres"},
    op_tags=LAST,
)
def rejected_counts(settings: Settings, lake: Lake, postgres: PostgresResource) -> Metadata:
    """One row per hour of arrival, rule and field: how many records were rejected, or taken without the field.

    Of the last 90 days, for `GET /api/rejected`. The lake's `record_counts` has all hours, and counts each ingest batch
    once. With them go `record_days`, what became of the records of each day, for `GET /api/records`, and
    `rejected_samples`, a few of the rejected ones, for `GET /api/rejected/samples`.
    """
    clock = ShopClock(settings.shop_time_zone)
    record_counts.update_record_counts(lake, clock)
    rows = record_counts.rejected_counts(lake)
    samples = update_samples(lake, settings)
    with postgres.publication() as publication:
        changes = asdict(publication.publish(REJECTED_COUNTS, rows))
        publication.publish(RECORD_DAYS, record_counts.record_days(lake, clock))
        publication.publish(REJECTED_SAMPLES, samples)
        stamp = publication.renew_stamp(REJECTED_COUNTS.name)
    lately = record_counts.shares(lake)
    shares = [share for share in lately if share.rejected and not share.is_left_out]
    return {
        STAMP: stamp,
        "changes": changes,
        "dagster/row_count": changes["rows"],
        "samples": samples.num_rows,
        "rejected_in_24_hours": sum(share.rejected for share in shares),
        "fields_left_out_in_24_hours": sum(share.rejected for share in lately if share.is_left_out),
        "rejected_by_rule": bar_plot(
            "Rejected records of the last 24 hours, by rule",
            "records",
            {share.name: share.rejected for share in sorted(shares, key=lambda share: -share.rejected)},
        ),
    }


@table_check(REJECTED_EVENTS, deps=[REJECTED_COUNTS.name])
def rejected_shares_are_usual(lake: Lake) -> dg.AssetCheckResult:
    """No rule is broken by a larger share of the last 24 hours' records than of the week's before.

    Warns where that is hardly chance (one in a million), and at least ten records and twice the usual share. A rule
    that was not broken in the week before has a usual share of 0; if no record came then, 5 % is taken as usual.
    """
    return _verdict(rejected_shares(lake), "rejected", "`clickstream rejected list --rule {rule}` shows them")


@table_check(EVENTS, deps=[REJECTED_COUNTS.name])
def left_out_shares_are_usual(lake: Lake) -> dg.AssetCheckResult:
    """No field is left out of a larger share of the last 24 hours' events than of the week's before.

    Warns as `rejected_shares_are_usual` does.
    """
    return _verdict(left_out_shares(lake), "left out", "`field_problems` of `events` has the values")


def _verdict(shares: list[Share], what: str, where: str) -> dg.AssetCheckResult:
    unusual = [share for share in shares if share.is_unusual]
    return dg.AssetCheckResult(
        passed=not unusual,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(_in_words(share, where) for share in unusual[:SAMPLES]) or None,
        metadata={
            "expected": "each rule broken about as often as in the 7 days before",
            "actual": ", ".join(share.name for share in unusual) + " more often"
            if unusual
            else "as expected",
            "shares": text_table(
                [
                    "rule",
                    f"{what}, 24 hours",
                    "of 100",
                    f"{what}, 7 days before",
                    "of 100",
                    "chance",
                    "unusual",
                ],
                [
                    (
                        *(share.name, share.rejected, share.percent, share.rejected_before),
                        *(
                            "-" if share.percent_before is None else share.percent_before,
                            f"{share.chance:.2g}",
                        ),
                        "yes" if share.is_unusual else "",
                    )
                    for share in shares
                ],
            ),
        },
    )


def _in_words(share: Share, where: str) -> str:
    before = (
        f"before {share.percent_before} %"
        if share.percent_before is not None
        else "and nothing to compare with"
    )
    return (
        f"{share.name}: {share.rejected:,} of {share.received:,} records in 24 hours, {share.percent} %, {before}. "
        + where.format(rule=share.rule)
    )
