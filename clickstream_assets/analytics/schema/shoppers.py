"""What shoppers do: visits and segments."""

from clickstream_assets.analytics.schema.table import (
    BOOL,
    DATE,
    LONG,
    MONEY,
    STRING,
    TIMESTAMP,
    Column,
    Table,
)

SESSIONS = Table(
    "sessions",
    "one visit: a user's events with no gap longer than the inactivity gap",
    (
        Column("session_id", STRING, "Hash of user and start", nullable=False),
        Column("session_date", DATE, "UTC date of its start", nullable=False),
        Column("user_id", STRING, "The shopper", nullable=False),
        Column("start_time", TIMESTAMP, "Time of the first event", nullable=False),
        Column("end_time", TIMESTAMP, "Time of the last event", nullable=False),
        Column("duration_seconds", LONG, "Whole seconds from start to end", nullable=False),
        Column("total_events", LONG, "Events in it", nullable=False),
        Column("views", LONG, "Events of type view", nullable=False),
        Column("clicks", LONG, "Events of type click", nullable=False),
        Column("add_to_carts", LONG, "Events of type add_to_cart", nullable=False),
        Column("remove_from_carts", LONG, "Events of type remove_from_cart", nullable=False),
        Column("purchases", LONG, "Events of type purchase", nullable=False),
        Column("searches", LONG, "Events of type search", nullable=False),
        Column("distinct_products", LONG, "Different products touched", nullable=False),
        Column("entry_product_id", STRING, "First product touched"),
        Column("exit_product_id", STRING, "Last product touched"),
        Column("revenue", MONEY, "Sum of price times quantity of its purchases", nullable=False),
        Column("is_bot", BOOL, "Whether no person did this", nullable=False),
        Column("bot_reason", STRING, "user_agent, view_rate or endless_session"),
    ),
    key=("session_id",),
    partition_by=("session_date",),
)

USER_SEGMENTS = Table(
    "user_segments",
    "one user on one day on which they were active",
    (
        Column("report_date", DATE, "The UTC day", nullable=False),
        Column("user_id", STRING, "The shopper", nullable=False),
        Column(
            "segment",
            STRING,
            "buyer: purchased that day; window_shopper: was there and did not",
            nullable=False,
        ),
        Column("events", LONG, "Events that day", nullable=False),
        Column("views", LONG, "Events of type view", nullable=False),
        Column("add_to_carts", LONG, "Events of type add_to_cart", nullable=False),
        Column("purchases", LONG, "Events of type purchase", nullable=False),
        Column("revenue", MONEY, "Sum of price times quantity of the purchases", nullable=False),
    ),
    key=("report_date", "user_id"),
    partition_by=("report_date",),
)
