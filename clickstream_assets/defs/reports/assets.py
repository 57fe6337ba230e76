"""The tables that a day is reported from, the report, and its mail; a day at a time."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import dagster as dg
from pydantic import Field

from clickstream_assets.analytics.funnel import (
    FUNNEL_DAYS_AFTER,
    funnel_groups,
    funnel_rows,
    groups_of_funnel,
)
from clickstream_assets.analytics.hours import hourly_summary as compute_hourly_summary
from clickstream_assets.analytics.persons import between
from clickstream_assets.analytics.products import CATEGORY_SUMS, category_rows, category_sums
from clickstream_assets.analytics.products import product_performance as compute_product_performance
from clickstream_assets.analytics.summary import daily_summary as compute_daily_summary
from clickstream_assets.catalogue import (
    CATEGORY_CONVERSION,
    CATEGORY_INPUTS,
    CUSTOMER_SEGMENT_DAYS,
    CUSTOMER_SEGMENTS,
    DAILY_REPORT,
    DAILY_SUMMARY,
    FUNNEL,
    FUNNEL_INPUTS,
    FUNNEL_STEPS,
    HOURLY_SUMMARY,
    PRODUCT_PERFORMANCE,
    SESSIONS,
    SHOPPER_EVENTS,
    USER_SEGMENTS,
    Table,
)
from clickstream_assets.catalogue.clock import ShopClock
from clickstream_assets.defs.assets import FRESH_DAILY, URGENT, ByDay, Metadata, in_postgres, table_asset
from clickstream_assets.defs.partitions import (
    SHOPPERS_AFTER,
    SUMMARIES_BEFORE,
    Days,
    days_of,
    replace_days,
)
from clickstream_assets.defs.person_sums import PersonSums, renew_sums
from clickstream_assets.defs.plots import bar_plot
from clickstream_assets.defs.reports.mail import mail_reports
from clickstream_assets.defs.reports.update import days_of_outdated_reports, report_rows, update_reports
from clickstream_assets.defs.scope import (
    is_asked_for_by_a_person,
    replace_days_from_shopper_events,
    rows_of,
    run_events,
)
from clickstream_assets.defs.steps import Retry
from clickstream_assets.engine import DataFrame, functions_of
from clickstream_assets.errors import InputError
from clickstream_assets.reports.text import render_text
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres.reports import NoReportError, published_report

FIGURES = {
    **{
        name: name
        for name in (
            "revenue",
            "net_revenue",
            "orders",
            "average_order_value",
            "sessions",
            "conversion_rate",
            "users",
        )
    },
    "buyers": "buyer_count",
}
"""Figures of a day that Dagster's UI plots over the days, and the columns of daily_summary that they are."""
ONE_DAY = timedelta(days=1)
PLOTTED_DAYS = 30
PLOTTED_PRODUCTS = 20
# Greylisting and a full mailbox's quota take minutes; after an hour of trying somebody has to look.
MAIL_RETRY = Retry(times=6, seconds=600)


def _number(value: Decimal | int | None) -> float | None:
    """Return a figure as Dagster's metadata have it: money and per cent as floats."""
    return float(value) if isinstance(value, Decimal) else value


def _plots(
    context: dg.AssetExecutionContext,
    lake: Lake,
    table: Table,
    plot: tuple[str, str, str],
    bars: Callable[[list[dict]], dict[str, float]],
    *,
    figures: Callable[[list[dict]], Mapping[str, float | None]] = lambda _: {},
    days: int = 1,
    where: str | None = None,
) -> Metadata:
    """Plot, for each of the run's days with rows, those of the `days` days up to it, and give the day's figures.

    Args:
        context, lake, table: of which days, from where.
        plot: its key, its title and the unit of its values.
        bars: makes the bars' names and values of rows in the key's order.
        figures: makes numbers by their names of a day's own rows, which Dagster's UI plots over the days.
        days: how many days it shows.
        where: SQL condition of the rows that are shown.
    """
    key, title, unit = plot
    run = days_of(context)
    rows = rows_of(
        lake, table, Days.of(day - timedelta(days=before) for day in run for before in range(days))
    )
    F, _ = functions_of(rows)
    by_day: dict[date, list[dict]] = {}
    for row in lake.engine.to_arrow(rows.where(F.expr(where)) if where else rows).to_pylist():
        by_day.setdefault(row["report_date"], []).append(row)
    plots: dict[date, dg.MarkdownMetadataValue] = {}
    numbers: dict[str, dict[date, float]] = {}
    for day in filter(by_day.__contains__, run):
        shown = [row for before in range(days) for row in by_day.get(day - timedelta(days=before), ())]
        shown.sort(key=lambda row: [row[column] for column in table.key])
        which = f"{title}, {day}" if days == 1 else f"{title}, {days} days to {day}"
        plots[day] = bar_plot(which, unit, bars(shown))
        for name, value in figures(by_day[day]).items():
            if value is not None:
                numbers.setdefault(name, {})[day] = value
    return {key: ByDay(plots), **{name: ByDay(values) for name, values in numbers.items()}}


@table_asset(PRODUCT_PERFORMANCE, deps=["shopper_events"], is_daily=True, op_tags=URGENT)
def product_performance(context: dg.AssetExecutionContext, lake: Lake) -> Metadata:
    """One row per product and day, ranked by views."""
    replace_days_from_shopper_events(context, lake, PRODUCT_PERFORMANCE, compute_product_performance)

    def most_viewed(rows: list[dict]) -> dict[str, float]:
        ranked = sorted(rows, key=lambda row: row["rank"])
        return {row["product_id"]: row["view_count"] for row in ranked}

    return _plots(
        context,
        lake,
        PRODUCT_PERFORMANCE,
        ("most_viewed_products", "Most viewed products", "views"),
        most_viewed,
        where=f"rank <= {PLOTTED_PRODUCTS}",
    )


def sums_of_categories() -> PersonSums:
    """Return how `category_conversion` is summed up."""
    return PersonSums(
        CATEGORY_CONVERSION,
        CATEGORY_INPUTS,
        group=("report_date", "category"),
        sums=CATEGORY_SUMS,
        of_events=lambda events, first, last, by: category_sums(
            between(events, "event_date", first, last), by
        ),
        of_rows=lambda rows: rows,
        to_rows=category_rows,
    )


@table_asset(CATEGORY_CONVERSION, CATEGORY_INPUTS, deps=["shopper_events"], is_daily=True)
def category_conversion(context: dg.AssetExecutionContext, lake: Lake) -> Metadata:
    """One row per product category and day: views, purchases and their rate."""
    renew_sums(lake, sums_of_categories(), days_of(context), is_whole=is_asked_for_by_a_person(context))
    return _plots(
        context,
        lake,
        CATEGORY_CONVERSION,
        ("conversion_by_category", "Conversion by category", "purchases per hundred views"),
        lambda rows: {row["category"]: float(row["conversion_rate"]) for row in rows},
    )


@table_asset(DAILY_SUMMARY, deps=["events", "sessions", "shopper_events", "user_segments"], is_daily=True)
def daily_summary(context: dg.AssetExecutionContext, lake: Lake) -> Metadata:
    """One row per day with events: users, buyers, sessions, orders, revenue. Bots are counted apart.

    A buyer is a user with a purchase that day, whatever they did before.
    """
    replace_days(
        context,
        lake,
        DAILY_SUMMARY,
        lambda first, last: compute_daily_summary(
            lake.read(SHOPPER_EVENTS),
            lake.read(USER_SEGMENTS),
            run_events(context, lake),
            lake.read(SESSIONS),
            first,
            last,
        ),
    )
    return _plots(
        context,
        lake,
        DAILY_SUMMARY,
        ("events_by_day", "Events by day", "events, without bots'"),
        lambda rows: {row["report_date"].isoformat(): row["total_events"] for row in rows},
        figures=lambda rows: {name: _number(rows[0][column]) for name, column in FIGURES.items()},
        days=PLOTTED_DAYS,
    )


@table_asset(HOURLY_SUMMARY, deps=["sessions", "shopper_events"], is_daily=True)
def hourly_summary(context: dg.AssetExecutionContext, settings: Settings, lake: Lake) -> Metadata:
    """One row per hour of a day in which anything happened: events, users, sessions that started, orders, revenue.

    A day's hours add up to its daily summary, but for users: who is there for two hours is in both.
    """
    clock = ShopClock(settings.shop_time_zone)
    replace_days(
        context,
        lake,
        HOURLY_SUMMARY,
        lambda first, last: compute_hourly_summary(
            lake.read(SHOPPER_EVENTS), lake.read(SESSIONS), first, last, clock
        ),
    )
    return _plots(
        context,
        lake,
        HOURLY_SUMMARY,
        ("revenue_by_hour", "Revenue by hour (UTC)", "revenue, in the shop's currency"),
        lambda rows: {f"{row['hour_start']:%d %H:%M}": float(row["revenue"]) for row in rows},
    )


def sums_of_funnel(settings: Settings, lake: Lake) -> PersonSums:
    """Return how `funnel` is summed up: with the customers as of the day before, as they are now."""
    # Before the customers, which are replaced before them: it may be said too little of these, and not too much.
    inputs = {row["report_date"]: row for row in lake.rows(CUSTOMER_SEGMENT_DAYS).to_pylist()}
    customers = lake.read(CUSTOMER_SEGMENTS)
    rules = timedelta(minutes=settings.funnel_window_minutes), ShopClock(settings.shop_time_zone)

    def of_events(events: DataFrame, first: date, last: date, by: Sequence[str]) -> DataFrame:
        of_days = between(customers, "report_date", first - ONE_DAY, last)
        return funnel_groups(events, of_days, first, last, *rules, by)

    return PersonSums(
        FUNNEL,
        FUNNEL_INPUTS,
        group=("report_date", "dimension", "value"),
        sums=dict.fromkeys(FUNNEL_STEPS, "long"),
        of_events=of_events,
        of_rows=groups_of_funnel,
        to_rows=funnel_rows,
        days_after=FUNNEL_DAYS_AFTER,
        made_by=lambda day: [*rules, inputs.get(day - ONE_DAY)],
    )


# The customer segments are those of the day before; they have no partitions.
@table_asset(FUNNEL, FUNNEL_INPUTS, deps=["customer_segments", SHOPPERS_AFTER], is_daily=True)
def funnel(context: dg.AssetExecutionContext, settings: Settings, lake: Lake) -> Metadata:
    """From view to cart to purchase within FUNNEL_WINDOW_MINUTES: users per step, overall, by category and segment.

    The step `purchase` counts who came to it this way; buyers, who purchased whatever they did before, are in
    daily_summary. A late purchase changes the customers' segments of all later days, so these days' funnels are made
    again with it.
    """
    days = Days.of([*days_of(context), *days_of_outdated_reports(lake)])
    renew_sums(lake, sums_of_funnel(settings, lake), days, is_whole=is_asked_for_by_a_person(context))

    def overall(rows: list[dict]) -> dict[str, float]:
        steps = sorted(rows, key=lambda row: row["step_number"])
        return {row["step"]: row["users"] for row in steps}

    return _plots(
        context,
        lake,
        FUNNEL,
        ("users_by_step", "From view to purchase", "users, in order and in time from a view of that day"),
        overall,
        figures=lambda rows: {f"funnel_{step}": users for step, users in overall(rows).items()},
        where="dimension = 'overall'",
    )


@table_asset(
    DAILY_REPORT,
    deps=[
        SUMMARIES_BEFORE,
        "product_performance",
        "category_conversion",
        "funnel",
        "user_segments",
        "carts",
        "customer_segments",
        "campaign_attribution",
    ],
    is_daily=True,
    freshness_policy=FRESH_DAILY,
)
def daily_report(context: dg.AssetExecutionContext, settings: Settings, lake: Lake) -> Metadata:
    """One report per day, as JSON; the API and the mail make text and HTML of it.

    The reports of other days that the run's days change are made again, where they exist: those that compare with
    them, and those whose carts and customer segments are no longer what they were made from.
    """
    days = days_of(context)
    changed = update_reports(lake, days, datetime.now(UTC), ShopClock(settings.shop_time_zone))
    made = report_rows(lake, days.first, days.last)
    return {
        "changed_days": [day.isoformat() for day in changed],
        "report": ByDay(
            {
                day: dg.MetadataValue.md(f"```\n{render_text(report)}\n```")
                for day, report in made.items()
                if day in days
            }
        ),
    }


class MailConfig(dg.Config):
    """The choice of the reports that a run of `report_mail` mails."""

    days: list[str] = Field(
        default=[],
        description="Days whose reports are mailed, such as 2026-01-31 (default: the day before).",
    )


# Without partitions: no day lacks a mail that nobody asked for, and all days at once are no reason to mail them.
@table_asset(
    deps=["published_days"],
    kinds={"postgres"},
    freshness_policy=FRESH_DAILY,
    metadata={"dagster/table_name": in_postgres("report_mails"), "dagster/storage_kind": "postgres"},
    retry=MAIL_RETRY,
)
def report_mail(config: MailConfig, settings: Settings) -> Metadata:
    """The published report of the day before, mailed to each of REPORT_TO once; without SMTP_HOST to nobody."""
    if not settings.smtp_host:
        return {"mailed": "no: SMTP_HOST is not set"}
    if settings.incident_to and not settings.report_to:
        # The mail server is there for incidents alone.
        return {"mailed": "no: REPORT_TO is not set"}
    try:
        days = [date.fromisoformat(day) for day in config.days]
    except ValueError as error:
        raise InputError(f"days={config.days}: {error}; write each as 2026-01-31") from None
    try:
        asked = days or [ShopClock(settings.shop_time_zone).today() - timedelta(days=1)]
        reports = {day: published_report(settings, day) for day in asked}
    except NoReportError as error:
        if days:
            raise
        # A shop's first day has none before it.
        return {"mailed": f"no: {error}"}
    mailed = mail_reports(settings, reports)
    return {
        "mailed": [f"{day} to {recipient}" for day, recipient in mailed.now],
        "mailed_before": [
            f"{day} to {recipient}, on {at:%Y-%m-%d}" for (day, recipient), at in mailed.before.items()
        ],
    }
