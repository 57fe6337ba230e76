"""The tables that a day is reported from, the report, and its mail; a day at a time."""

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta

import dagster as dg
from pydantic import Field

from clickstream_assets.analytics.funnel import funnel as compute_funnel
from clickstream_assets.analytics.persons import (
    EVENT_COLUMNS,
    SESSION_COLUMNS,
    between,
    persons_events,
)
from clickstream_assets.analytics.products import category_conversion as compute_category_conversion
from clickstream_assets.analytics.products import product_performance as compute_product_performance
from clickstream_assets.analytics.summary import daily_summary as compute_daily_summary
from clickstream_assets.catalogue import (
    CATEGORY_CONVERSION,
    CUSTOMER_SEGMENTS,
    DAILY_REPORT,
    DAILY_SUMMARY,
    EVENTS,
    FUNNEL,
    PRODUCT_PERFORMANCE,
    SESSIONS,
    USER_SEGMENTS,
    Table,
)
from clickstream_assets.defs.failures import explained_errors
from clickstream_assets.defs.partitions import daily, days_of, portions, row_counts
from clickstream_assets.defs.plots import bar_plot
from clickstream_assets.defs.resources import LakeResource, SettingsResource
from clickstream_assets.defs.scope import events_version
from clickstream_assets.defs.tables import FRESHNESS, OWNERS, describe
from clickstream_assets.engine import DataFrame
from clickstream_assets.reports.build import LONGEST_COMPARISON, outdated_days, report_rows, update_reports
from clickstream_assets.reports.mail import mailer, recipients
from clickstream_assets.reports.text import render_text
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres.reports import mail_once, published_report

PLOTTED_DAYS = 30
PLOTTED_PRODUCTS = 20
# Greylisting and a full mailbox's quota take minutes; after an hour of trying somebody has to look.
MAIL_RETRIES = 6
MAIL_RETRY_SECONDS = 600

# A bot's session can have started up to two days before the day's events.
SESSIONS_BEFORE = dg.AssetDep("sessions", partition_mapping=dg.TimeWindowPartitionMapping(start_offset=-2))


def _events_and_sessions(
    context: dg.AssetExecutionContext, lake: Lake, *more: str
) -> tuple[DataFrame, DataFrame]:
    """Of the events EVENT_COLUMNS, and `more`."""
    version = events_version(context.instance, context.run_id)
    events = lake.read(EVENTS, version, columns=(*EVENT_COLUMNS, *more))
    return events, lake.read(SESSIONS, columns=SESSION_COLUMNS)


def _replace_days(
    context: dg.AssetExecutionContext,
    lake: Lake,
    table: Table,
    compute: Callable[[date, date], DataFrame],
    more: Iterable[date] = (),
) -> None:
    """Compute the run's days, and `more`."""
    ranges = [days_of(context)]
    for day in more:
        first, last = ranges[-1]
        if len(ranges) > 1 and day - last == timedelta(days=1):
            ranges[-1] = (first, day)
        elif not ranges[0][0] <= day <= ranges[0][1]:
            ranges.append((day, day))
    with explained_errors():
        for first, last in ranges:
            for start, end in portions(lake, first, last):
                lake.replace(table, compute(start, end), days=(start, end))


def _materialized(
    context: dg.AssetExecutionContext,
    lake: Lake,
    table: Table,
    plot: str,
    bars: Callable[[list[dict]], dict[str, float]],
    days: int = 1,
) -> dg.MaterializeResult:
    """Count the rows, and plot those of the run's last `days` days."""
    first, last = days_of(context)
    rows = between(lake.read(table), "report_date", last - timedelta(days=days - 1), last)
    plotted = bars(
        sorted(lake.engine.to_arrow(rows).to_pylist(), key=lambda row: [row[c] for c in table.key])
    )
    title = f"{plot}, {last}" if days == 1 else f"{plot}, to {last}"
    return dg.MaterializeResult(
        metadata={**row_counts(lake, table, first, last), "plot": bar_plot(title, plotted)}
    )


@dg.asset(
    deps=["events", SESSIONS_BEFORE],
    partitions_def=daily(),
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="reports",
    kinds={"delta"},
    owners=OWNERS,
    freshness_policy=FRESHNESS,
    metadata=describe(PRODUCT_PERFORMANCE),
)
def product_performance(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
    """One row per product and UTC day, ranked by views. No bots."""
    the_lake = lake.get()
    _replace_days(
        context,
        the_lake,
        PRODUCT_PERFORMANCE,
        lambda first, last: compute_product_performance(
            persons_events(*_events_and_sessions(context, the_lake), first, last)
        ),
    )

    def most_viewed(rows: list[dict]) -> dict[str, float]:
        ranked = sorted(rows, key=lambda row: row["rank"])[:PLOTTED_PRODUCTS]
        return {row["product_id"]: row["view_count"] for row in ranked}

    return _materialized(context, the_lake, PRODUCT_PERFORMANCE, "Views of the most viewed", most_viewed)


@dg.asset(
    deps=["events", SESSIONS_BEFORE],
    partitions_def=daily(),
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="reports",
    kinds={"delta"},
    owners=OWNERS,
    freshness_policy=FRESHNESS,
    metadata=describe(CATEGORY_CONVERSION),
)
def category_conversion(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
    """One row per product category and UTC day: views, purchases and their rate. No bots."""
    the_lake = lake.get()
    _replace_days(
        context,
        the_lake,
        CATEGORY_CONVERSION,
        lambda first, last: compute_category_conversion(
            persons_events(*_events_and_sessions(context, the_lake), first, last)
        ),
    )
    return _materialized(
        context,
        the_lake,
        CATEGORY_CONVERSION,
        "Purchases per hundred views",
        lambda rows: {row["category"]: float(row["conversion_rate"]) for row in rows},
    )


@dg.asset(
    deps=["events", SESSIONS_BEFORE],
    partitions_def=daily(),
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="reports",
    kinds={"delta"},
    owners=OWNERS,
    freshness_policy=FRESHNESS,
    metadata=describe(DAILY_SUMMARY),
)
def daily_summary(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
    """One row per UTC day with events: users, sessions, orders, revenue. Bots are counted apart."""
    the_lake = lake.get()
    _replace_days(
        context,
        the_lake,
        DAILY_SUMMARY,
        lambda first, last: compute_daily_summary(
            *_events_and_sessions(context, the_lake, "currency"), first, last
        ),
    )
    return _materialized(
        context,
        the_lake,
        DAILY_SUMMARY,
        "Events",
        lambda rows: {row["report_date"].isoformat(): row["total_events"] for row in rows},
        days=PLOTTED_DAYS,
    )


@dg.asset(
    deps=[
        "events",
        "user_segments",
        # Those of the day before; they have no partitions.
        "customer_segments",
        # The last steps can lie after the day's midnight.
        dg.AssetDep(
            "sessions", partition_mapping=dg.TimeWindowPartitionMapping(start_offset=-2, end_offset=1)
        ),
    ],
    partitions_def=daily(),
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="reports",
    kinds={"delta"},
    owners=OWNERS,
    freshness_policy=FRESHNESS,
    metadata=describe(FUNNEL),
)
def funnel(
    context: dg.AssetExecutionContext, settings: SettingsResource, lake: LakeResource
) -> dg.MaterializeResult:
    """From view to cart to purchase within FUNNEL_WINDOW_MINUTES: users per step, overall, by category and segment.

    A late purchase changes the customers' segments of all later days, so these days' funnels are made again with it.
    """
    window = timedelta(minutes=settings.get().funnel_window_minutes)
    the_lake = lake.get()
    _replace_days(
        context,
        the_lake,
        FUNNEL,
        lambda first, last: compute_funnel(
            *_events_and_sessions(context, the_lake),
            the_lake.read(USER_SEGMENTS),
            between(the_lake.read(CUSTOMER_SEGMENTS), "report_date", first - timedelta(days=1), last),
            first,
            last,
            window,
        ),
        more=outdated_days(the_lake),
    )

    def overall(rows: list[dict]) -> dict[str, float]:
        steps = sorted(rows, key=lambda row: row["step_number"])
        return {row["step"]: row["users"] for row in steps if row["dimension"] == "overall"}

    return _materialized(context, the_lake, FUNNEL, "Users who came to each step", overall)


# A report compares with the day before and the week before.
_WEEK_BEFORE = dg.TimeWindowPartitionMapping(start_offset=-LONGEST_COMPARISON.days)


@dg.asset(
    deps=[
        dg.AssetDep("daily_summary", partition_mapping=_WEEK_BEFORE),
        "product_performance",
        "category_conversion",
        "funnel",
        "user_segments",
        "carts",
        "customer_segments",
        "campaign_attribution",
    ],
    partitions_def=daily(),
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="reports",
    kinds={"delta"},
    owners=OWNERS,
    freshness_policy=FRESHNESS,
    metadata=describe(DAILY_REPORT),
)
def daily_report(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
    """One report per UTC day, as JSON; the API and the mail make text and HTML of it.

    The reports of other days that the run's days change are made again, where they exist: those that compare with
    them, and those whose carts and customer segments are no longer what they were made from.
    """
    the_lake = lake.get()
    first, last = days_of(context)
    with explained_errors():
        changed = update_reports(the_lake, first, last, datetime.now(UTC))
        newest = report_rows(the_lake, last, last)
    return dg.MaterializeResult(
        metadata={
            **row_counts(the_lake, DAILY_REPORT, first, last),
            "changed_days": [day.isoformat() for day in changed],
            "report": dg.MetadataValue.md(f"```\n{render_text(newest[last])}\n```"),
        }
    )


class MailConfig(dg.Config):
    """What a run of `report_mail` mails."""

    every_day: bool = Field(
        False, description="Mail the report of every day of the run, instead of the newest one alone."
    )


@dg.asset(
    deps=["published_days"],
    partitions_def=daily(),
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="reports",
    kinds={"postgres"},
    owners=OWNERS,
    freshness_policy=FRESHNESS,
    metadata={"dagster/table_name": "report_mails"},
)
def report_mail(
    context: dg.AssetExecutionContext, config: MailConfig, settings: SettingsResource
) -> dg.MaterializeResult:
    """The newest day's published report, mailed to each of REPORT_TO once; without SMTP_HOST to nobody."""
    limits = settings.get()
    first, last = days_of(context)
    if not limits.smtp_host:
        return dg.MaterializeResult(metadata={"mailed": "no: SMTP_HOST is not set"})
    begin = first if config.every_day else last
    days = [begin + timedelta(days=offset) for offset in range((last - begin).days + 1)]
    with explained_errors(max_retries=MAIL_RETRIES, seconds=MAIL_RETRY_SECONDS):
        reports = {day: published_report(limits, day) for day in days}
        mails = [(day, recipient) for day in days for recipient in recipients(limits)]
        with mailer(limits) as server:
            mailed = mail_once(limits, mails, lambda day, recipient: server.send(reports[day], recipient))
    sent = [f"{day} to {recipient}" for day, recipient in mailed.now]
    had = [f"{day} to {recipient}, on {at:%Y-%m-%d}" for (day, recipient), at in mailed.before.items()]
    return dg.MaterializeResult(metadata={"mailed": sent, "mailed_before": had})
