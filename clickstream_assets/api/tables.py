"""The lists of one served table each: sessions, carts, days, hours, conversion, windows and alerts.

The catalogue says what a list can be filtered and sorted by; only what is peculiar to a route is said here.
"""

from apiflask import APIBlueprint

from clickstream_assets import catalogue
from clickstream_assets.api.listing import Filter, listing
from clickstream_assets.api.parameters import Choice, Flag
from clickstream_assets.keys import Scope

sessions = APIBlueprint("sessions", __name__, tag="Sessions")
carts = APIBlueprint("carts", __name__, url_prefix="/api", tag="Carts")
days = APIBlueprint("days", __name__, url_prefix="/api", tag="Days")
funnel = APIBlueprint("funnel", __name__, url_prefix="/api", tag="Conversion")
rejected = APIBlueprint("rejected", __name__, url_prefix="/api", tag="Rejected records")
windows = APIBlueprint("windows", __name__, url_prefix="/api", tag="Windows")

listing(
    sessions,
    "/sessions",
    catalogue.SESSIONS,
    "Session",
    """List sessions, those with the most events first.

    Bots' sessions are left out unless `include_bots` is true; equals are ordered by session id.
    """,
    order=["total_events DESC"],
    filters={
        "include_bots": Filter(
            "is_bot",
            Flag(load_default=False, metadata={"description": "Whether bots' sessions are listed too"}),
            meanings={False: False, True: None},
        )
    },
    scope=Scope.PERSONAL,
)

listing(
    carts,
    "/carts",
    catalogue.CARTS,
    "Cart",
    "List carts, those with the latest activity first; equals are ordered by cart id.",
    order=["last_activity_at DESC"],
    scope=Scope.PERSONAL,
)

listing(
    days,
    "/days",
    catalogue.DAILY_SUMMARY,
    "Day",
    "List days with events, the newest first, with their figures.",
    order=["report_date DESC"],
    limit=100,
    scope=Scope.READ,
)

listing(
    days,
    "/hours",
    catalogue.HOURLY_SUMMARY,
    "Hour",
    """List the hours of a day in which anything happened, the latest first.

    Hours are counted from the day's begin by the shop's clock, of which a day can have 23 to 25.
    """,
    order=["hour_start DESC"],
    limit=100,
    newest_day=True,
    scope=Scope.READ,
)

listing(
    funnel,
    "/funnel",
    catalogue.FUNNEL,
    "FunnelStep",
    "List the steps from view to purchase, in order; the newest day first, then by dimension and value.",
    order=["report_date DESC", "dimension", "value", "step_number"],
    limit=100,
    newest_day=True,
    scope=Scope.READ,
)

listing(
    funnel,
    "/attribution",
    catalogue.CAMPAIGN_ATTRIBUTION,
    "CampaignDay",
    "List campaigns' shares of orders and revenue; the newest day first, then by model, the highest revenue first.",
    order=["report_date DESC", "model", "revenue DESC"],
    limit=100,
    newest_day=True,
    scope=Scope.READ,
)

listing(
    funnel,
    "/cohorts",
    catalogue.COHORT_RETENTION,
    "CohortWeek",
    "List how many of the users who were first seen in a week come back, week by week; the newest cohort first.",
    limit=100,
    scope=Scope.READ,
)

listing(
    windows,
    "/windows",
    catalogue.PRODUCT_WINDOWS,
    "Window",
    """List sliding windows, the latest first: what happened to a product in each.

    Equals are ordered by start, the latest first, and then by product id.
    """,
    filters={
        "state": Filter(
            "is_final",
            Choice(
                "open",
                "closed",
                metadata={
                    "description": "Only open windows, which events may still change, or only closed ones"
                },
            ),
            meanings={"open": False, "closed": True},
        )
    },
    scope=Scope.READ,
)

listing(
    windows,
    "/alerts",
    catalogue.FLASH_SALE_ALERTS,
    "Alert",
    "List flash-sale alerts, those that began last first; equals are ordered by alert id.",
    order=["first_window_start DESC"],
    with_more=True,
    with_names=True,
    scope=Scope.READ,
)

listing(
    rejected,
    "/rejected",
    catalogue.REJECTED_COUNTS,
    "RejectedHour",
    """List how many records were rejected, by hour of arrival, rule and field; the newest hour first.

    A few of them are samples; `clickstream rejected list` shows all.
    """,
    order=["hour DESC"],
    limit=100,
    scope=Scope.READ,
)

listing(
    rejected,
    "/rejected/samples",
    catalogue.REJECTED_SAMPLES,
    "RejectedSample",
    """List samples of rejected records, those that came last first: the value that breaks the rule, and where it is.

    A value is what a sender put into the field, and can be of a person; with `REJECTED_SAMPLES=0` there are none. The
    newest of each day, rule and field are kept, for 14 days. `clickstream rejected list` shows the whole record.
    """,
    order=["kafka_time DESC"],
    limit=100,
    scope=Scope.PERSONAL,
)
