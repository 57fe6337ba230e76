"""Input of the assets on carts and customers: shoppers' cart events of all time, and the data's own clock."""

from datetime import UTC, datetime, timedelta

from clickstream_assets.analytics.customers import CUSTOMER_EVENTS
from clickstream_assets.analytics.windows import counted_time
from clickstream_assets.catalogue import EVENTS, SHOPPER_EVENTS
from clickstream_assets.engine import DataFrame, functions_of
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.stores.lake import Lake, Snapshot


def cart_events(lake: Lake) -> DataFrame:
    """Return shoppers' additions to carts, removals, purchases and refunds of all time."""
    rows = lake.read(SHOPPER_EVENTS)
    F, _ = functions_of(rows)
    return rows.where(F.col("event_type").isin(*CUSTOMER_EVENTS))


def newest_time(lake: Lake, events: Snapshot, rules: ValidationRules) -> datetime:
    """Return the time of the newest event, of whatever type and user; 1970 where there is none.

    A shopper's clock can be fast: an event is no newer than its arrival, as for the streams.
    """
    days = events.rows_by("event_date")
    if not days:
        return datetime.fromtimestamp(0, UTC)
    rows = lake.read(EVENTS, events.version)
    F, _ = functions_of(rows)
    # So far back can the newest be, as no event is further ahead of its arrival.
    ahead = timedelta(microseconds=rules.max_clock_skew)
    since = rules.clock.day_of(rules.clock.begin(max(days)) - ahead)
    newest = rows.where(F.col("event_date") >= F.lit(since)).agg(F.max(counted_time(F)).alias("newest"))
    return lake.engine.to_arrow(newest)["newest"][0].as_py().astimezone(UTC)
