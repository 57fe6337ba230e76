"""A day in figures: products, categories, the way to a purchase, the day as a whole, and its report.

The columns that the older projects' readers know come first. Rates are per cent with two decimals, rounded half to
even.
"""

from dataclasses import replace

from clickstream_assets.catalogue.table import (
    CREATED_AT,
    DATE,
    INT,
    LONG,
    MONEY_SUM,
    PERCENT,
    QUANTITY_SUM,
    STRING,
    STRINGS,
    TIMESTAMP,
    Column,
    Index,
    Served,
    Table,
)

FUNNEL_STEPS = ("view", "add_to_cart", "purchase")
FUNNEL_DIMENSIONS = ("overall", "category", "segment", "rfm")

_DAY = Column("report_date", DATE, "The shop's day")
_LISTED_DAY = replace(_DAY, filter="date", range=True)

PRODUCT_PERFORMANCE = Table(
    "product_performance",
    "one product on one day on which somebody met it",
    (
        _LISTED_DAY,
        Column("product_id", STRING, "The product"),
        Column("view_count", LONG, "Events of type view", sort=True),
        Column("rank", LONG, "Rank by views that day, from 1; ties by product_id", sort=True),
        Column(
            "product_category",
            STRING,
            "The category that its last event with one names",
            nullable=True,
            filter="category",
        ),
        Column("add_to_carts", LONG, "Events of type add_to_cart", sort=True),
        Column("purchases", LONG, "Events of type purchase", sort=True),
        Column("quantity", QUANTITY_SUM, "Units purchased", sort=True),
        Column("revenue", MONEY_SUM, "Sum of price times quantity of the purchases", sort=True),
        Column("refunds", MONEY_SUM, "Sum of price times quantity of the refunds", sort=True),
        Column("net_revenue", MONEY_SUM, "revenue less refunds", sort=True),
        Column("users", LONG, "Different users with any event of it", sort=True),
        Column("buyers", LONG, "Different users who purchased it", sort=True),
        Column("conversion_rate", PERCENT, "Purchases per hundred views; 0 without views", sort=True),
    ),
    key=("report_date", "product_id"),
    partition_by=("report_date",),
    served=Served(
        surrogate_key=True,
        order=("report_date", "product_id", "view_count", "rank", "created_at"),
        more=(CREATED_AT,),
        zero_defaults=True,
        indexes=(Index(("report_date", "rank"), name="report_date_rank"), Index(("product_id",))),
    ),
)


def _inputs(name: str, table: str) -> Table:
    return Table(
        name,
        f"one large day of {table}, and what it was made from",
        (
            _DAY,
            Column(
                "events",
                STRINGS,
                "Hash of the names of the files of shopper_events of the day, and of each day after it that it depends "
                "on; empty of a day without any",
            ),
            Column("rules", STRING, "Hash of what it was made by besides these events"),
            Column("files", STRING, f"Hash of the names of the files of {table} that have it so"),
        ),
        key=("report_date",),
    )


CATEGORY_CONVERSION = Table(
    "category_conversion",
    "one product category on one day on which it was viewed, put into a cart, purchased or sent back",
    (
        _LISTED_DAY,
        Column("category", STRING, "The category that the events name; unknown where none", filter=True),
        Column("views", LONG, "Events of type view", sort=True),
        Column("purchases", LONG, "Events of type purchase", sort=True),
        Column("conversion_rate", PERCENT, "Purchases per hundred views; 0 without views", sort=True),
        Column("add_to_carts", LONG, "Events of type add_to_cart", sort=True),
        Column("revenue", MONEY_SUM, "Sum of price times quantity of the purchases", sort=True),
        Column("refunds", MONEY_SUM, "Sum of price times quantity of the refunds", sort=True),
        Column("net_revenue", MONEY_SUM, "revenue less refunds", sort=True),
        Column("users", LONG, "Different users who viewed, put into a cart or purchased", sort=True),
    ),
    key=("report_date", "category"),
    partition_by=("report_date",),
    served=Served(
        surrogate_key=True,
        order=("report_date", "category", "views", "purchases", "conversion_rate", "created_at"),
        more=(CREATED_AT,),
        zero_defaults=True,
    ),
)

DAILY_SUMMARY = Table(
    "daily_summary",
    "one day with events",
    (
        _LISTED_DAY,
        Column("total_events", LONG, "Events, each once and without bots'"),
        Column("buyer_count", LONG, "Buyers: users who purchased that day, whatever they did before"),
        Column("window_shopper_count", LONG, "Users who were there and did not purchase"),
        Column("buyer_rate", PERCENT, "Buyers per hundred users; 0 without users"),
        Column("users", LONG, "Users: buyers and window shoppers"),
        Column("sessions", LONG, "Sessions that started that day"),
        Column("bounced_sessions", LONG, "Of these, those of a single event"),
        Column("bounce_rate", PERCENT, "Bounced per hundred sessions; 0 without sessions"),
        Column("views", LONG, "Events of type view"),
        Column("add_to_carts", LONG, "Events of type add_to_cart"),
        Column("purchases", LONG, "Events of type purchase: order lines"),
        Column(
            "orders",
            LONG,
            "Orders: a user's purchases with the same order id, or without one in the same minute",
        ),
        Column("revenue", MONEY_SUM, "Sum of price times quantity of the purchases"),
        Column("refunds", MONEY_SUM, "Sum of price times quantity of the refunds"),
        Column("net_revenue", MONEY_SUM, "revenue less refunds"),
        Column("average_order_value", MONEY_SUM, "Revenue per order; null without orders", nullable=True),
        Column("converted_sessions", LONG, "Sessions with a purchase"),
        Column("conversion_rate", PERCENT, "Converted per hundred sessions; 0 without sessions"),
        Column("bot_events", LONG, "Events that were left out as bots'"),
        Column("bot_sessions", LONG, "Sessions that were left out as bots'"),
        Column(
            "currencies",
            STRINGS,
            "The currencies that purchases were paid in, sorted; null where none is named",
            nullable=True,
        ),
        Column(
            "currency",
            STRING,
            "The shop's currency, which amounts are in; null where none of the day's names one",
            nullable=True,
        ),
        Column(
            "unconverted",
            LONG,
            "Purchases and refunds in a currency without an exchange rate: their amounts are in no sum",
        ),
    ),
    key=("report_date",),
    partition_by=("report_date",),
    served=Served(
        surrogate_key=True,
        stamp="generated_at",
        order=(
            *("report_date", "total_events", "buyer_count", "window_shopper_count", "buyer_rate"),
            "generated_at",
        ),
        zero_defaults=True,
    ),
)

HOURLY_SUMMARY = Table(
    "hourly_summary",
    "one hour of a day in which anything happened",
    (
        _LISTED_DAY,
        Column("hour_start", TIMESTAMP, "When the hour begins; hours are counted from the day's begin"),
        Column("total_events", LONG, "Events, each once and without bots'"),
        Column("users", LONG, "Different users with any event; who is there for two hours is in both"),
        Column("sessions", LONG, "Sessions that started"),
        Column("converted_sessions", LONG, "Of these, those with a purchase"),
        Column("conversion_rate", PERCENT, "Converted per hundred sessions that started; 0 without sessions"),
        Column("views", LONG, "Events of type view"),
        Column("add_to_carts", LONG, "Events of type add_to_cart"),
        Column("purchases", LONG, "Events of type purchase: order lines"),
        Column("orders", LONG, "Orders whose first purchase of the day was in this hour"),
        Column("revenue", MONEY_SUM, "Sum of price times quantity of the purchases"),
        Column("refunds", MONEY_SUM, "Sum of price times quantity of the refunds"),
        Column("net_revenue", MONEY_SUM, "revenue less refunds"),
    ),
    key=("report_date", "hour_start"),
    partition_by=("report_date",),
    served=Served(),
)

CATEGORY_INPUTS = _inputs("category_inputs", "category_conversion")

FUNNEL = Table(
    "funnel",
    "one step of the way from view to purchase, of the viewers of one day in one group",
    (
        _LISTED_DAY,
        Column(
            "dimension",
            STRING,
            "What the group is by: overall; category; segment, which is what the users did that day; or rfm, the "
            "customers' segment as of the end of the day before",
            values=FUNNEL_DIMENSIONS,
            filter=True,
        ),
        Column(
            "value",
            STRING,
            "The group: all, a category, a segment, or not_a_customer for users without a purchase in RFM_DAYS",
            filter=True,
        ),
        Column("step", STRING, "view, add_to_cart or purchase", values=FUNNEL_STEPS),
        Column("step_number", INT, "1, 2 or 3"),
        Column(
            "users",
            LONG,
            "Users who came to this step in order and in time, counted from one of their views that day. At the step "
            "purchase they are not all of the day's buyers, of whom some came another way, and some may purchase "
            "after midnight",
            default="0",
        ),
        Column(
            "conversion_from_previous",
            PERCENT,
            "Users per hundred of the step before; null for the first",
            nullable=True,
        ),
        Column("conversion_from_first", PERCENT, "Users per hundred of the first step", default="0"),
    ),
    key=("report_date", "dimension", "value", "step"),
    partition_by=("report_date",),
    served=Served(),
)

FUNNEL_INPUTS = _inputs("funnel_inputs", "funnel")

DAILY_REPORT = Table(
    "daily_report",
    "one day's report",
    (
        replace(_DAY, range=True),
        Column("generated_at", TIMESTAMP, "When its content last changed"),
        Column("report", STRING, "The report: a JSON object"),
        Column(
            "made_from",
            STRING,
            "Hash of what it is made from besides the tables of its own day",
            nullable=True,
        ),
    ),
    key=("report_date",),
    partition_by=("report_date",),
    served=Served(),
)

PUBLISHED_PARTS = Table(
    "published_parts",
    "one day of one table of the lake, as it was last published",
    (
        Column("table_name", STRING, "The table's name in the lake"),
        Column("day", DATE, "The shop's day that its files are laid out by"),
        Column("files", STRING, "Hash of the names of the day's files that were published"),
        Column("version", LONG, "Version of the table that has them"),
        Column("published_at", TIMESTAMP, "When they were"),
    ),
    key=("table_name", "day"),
    served=Served(),
    in_lake=False,
)
