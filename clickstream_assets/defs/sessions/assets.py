"""Sessions, a day at a time, and carts, which go on from day to day."""

from datetime import date, timedelta

import dagster as dg

from clickstream_assets.analytics.carts import CartRules
from clickstream_assets.analytics.persons import shopper_events as compute_shopper_events
from clickstream_assets.analytics.sessions import SESSION_DAYS
from clickstream_assets.analytics.sessions import sessions as compute_sessions
from clickstream_assets.catalogue import (
    CART_DAYS,
    CART_INPUTS,
    CART_STATES,
    CART_STEPS,
    CARTS,
    EVENTS,
    SESSION_INPUTS,
    SESSIONS,
    SHOPPER_CHANGES,
    SHOPPER_DAYS,
    SHOPPER_EVENTS,
    SHOPPER_INPUTS,
    SHOPPER_ORDERS,
    SHOPPER_REFUNDS,
)
from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.defs.assets import URGENT, ByDay, Metadata, table_asset
from clickstream_assets.defs.partitions import SESSIONS_BEFORE, days_of
from clickstream_assets.defs.plots import bar_plot
from clickstream_assets.defs.renewal import PersonRows, Sources, renew_days
from clickstream_assets.defs.scope import (
    EVENTS_VERSION,
    MONEY_VERSION,
    NO_DAY,
    REPLACED_FROM,
    TIES_VERSION,
    is_asked_for_by_a_person,
    reported_by_run,
)
from clickstream_assets.defs.sessions.carts import update_carts
from clickstream_assets.defs.shopper_days import newest_time, update_shopper_days
from clickstream_assets.defs.sums import counts_by, counts_by_day
from clickstream_assets.engine import DataFrame
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake


def rows_of_sessions(settings: Settings) -> PersonRows:
    """Return how `sessions` are made of events.

    `renew_days` reads these of `events`, with persons and in the shop's money (`Sources`): all of a day, or of the
    persons whom new events concern.
    """

    def compute(events: DataFrame, first: date, last: date) -> DataFrame:
        return compute_sessions(
            events,
            first,
            last,
            timedelta(minutes=settings.session_gap_minutes),
            settings.bot_views_per_minute,
            cut_at_midnight=settings.session_cut_at_midnight,
            cut_at_campaign=settings.session_cut_at_campaign,
            clock=ShopClock(settings.shop_time_zone),
        )

    return PersonRows(
        SESSIONS, SESSION_INPUTS, reach=(SESSION_DAYS, 1), reads=(SESSION_DAYS, 1), compute=compute
    )


def rows_of_shoppers(lake: Lake) -> PersonRows:
    """Return how `shopper_events` are made of events, read as for sessions, and of the sessions that tell bots."""

    def compute(events: DataFrame, first: date, last: date) -> DataFrame:
        return compute_shopper_events(events, lake.read(SESSIONS), first, last)

    return PersonRows(
        SHOPPER_EVENTS,
        SHOPPER_INPUTS,
        # The sessions of so many days before, with what these depend on.
        reach=(2 * SESSION_DAYS, 1),
        reads=(0, 0),
        compute=compute,
        made_with=(SESSION_INPUTS, SESSION_DAYS),
        changes=SHOPPER_CHANGES,
    )


@table_asset(
    SESSIONS,
    SESSION_INPUTS,
    deps=["events", "identity_ties", "exchange_rates"],
    is_daily=True,
    op_tags=URGENT,
)
def sessions(context: dg.AssetExecutionContext, settings: Settings, lake: Lake) -> Metadata:
    """One row per visit of a person, on the day it started and whole across midnight. Bots' are labelled.

    A day is replaced in one commit, so computing it again, in any order, gives the same table. Of a large day, a run
    that the sensor asked for computes only the persons whom new events concern; a run that a person starts, the whole.
    """
    sources = Sources.of(lake, settings)
    renew_days(
        sources, rows_of_sessions(settings), days_of(context), is_whole=is_asked_for_by_a_person(context)
    )
    steps = counts_by_day(lake, SESSIONS, days_of(context), "furthest_step", where="NOT is_bot")
    return {
        EVENTS_VERSION: sources.events.version,
        TIES_VERSION: sources.ties.version,
        MONEY_VERSION: sources.money_version,
        "sessions_by_step": ByDay(
            {
                day: bar_plot(
                    f"Sessions by their furthest step, {day}",
                    "sessions, without bots'",
                    {step: counts.get(step, 0) for step in SESSIONS.by_name["furthest_step"].values or ()},
                )
                for day, counts in steps.items()
            }
        ),
    }


@table_asset(
    *(SHOPPER_EVENTS, SHOPPER_INPUTS, SHOPPER_CHANGES, SHOPPER_DAYS, SHOPPER_ORDERS, SHOPPER_REFUNDS),
    deps=["events", "identity_ties", "exchange_rates", SESSIONS_BEFORE],
    is_daily=True,
    op_tags=URGENT,
)
def shopper_events(context: dg.AssetExecutionContext, settings: Settings, lake: Lake) -> Metadata:
    """One row per event of a person, by day: what all tables of business are made from.

    Whose an event is, whether a bot did it, and what it is worth in the shop's currency, is settled here, once for all
    of them. `shopper_days`, `shopper_orders` and `shopper_refunds` are what carts and customers, which depend on all
    days, have to know of each.
    """
    versions = (
        reported_by_run(context, SESSIONS.name, name)
        for name in (EVENTS_VERSION, TIES_VERSION, MONEY_VERSION)
    )
    sources = Sources.of(lake, settings, *versions)
    renew_days(sources, rows_of_shoppers(lake), days_of(context), is_whole=is_asked_for_by_a_person(context))
    update_shopper_days(lake)
    return {}


@table_asset(CARTS, CART_DAYS, CART_STEPS, CART_STATES, CART_INPUTS, deps=["events", "shopper_events"])
def carts(settings: Settings, lake: Lake) -> Metadata:
    """One row per cart of a person, across sessions: open, abandoned, emptied, converted or recovered.

    A late event repairs the carts it concerns: those of its person, from its day on. A cart is abandoned as of the
    newest event of all. `cart_days` counts what happened on each day: carts, of which a buyer can have several.
    """
    events = lake.snapshot(EVENTS)
    as_of = newest_time(lake, events, ValidationRules.of(settings))
    changed = update_carts(lake, CartRules.of(settings, as_of))
    # No other table of a refresh needs them.
    lake.engine.end_processes()
    counts = counts_by(lake, lake.read(CARTS, columns=("state", "last_activity_date")), "state")
    return {
        "as_of": dg.MetadataValue.timestamp(as_of),
        "events_batch": events.batch,
        REPLACED_FROM: str(changed) if changed else NO_DAY,
        "states": counts,
        "carts_by_state": bar_plot(f"Carts by state, as of {as_of:%Y-%m-%d %H:%M} UTC", "carts", counts),
    }
