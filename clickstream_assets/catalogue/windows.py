"""What the speed layer keeps: counts per window and product, and flash-sale alerts."""

from clickstream_assets.catalogue.table import (
    BOOL,
    DATE,
    DOUBLE,
    LONG,
    STRING,
    TIMESTAMP,
    Column,
    Table,
)

_BATCH_ID = Column("batch_id", LONG, "Number of the stream's batch that changed the row last", nullable=False)

PRODUCT_WINDOWS = Table(
    "product_windows",
    "a product in a sliding window with at least one event",
    (
        Column("window_start", TIMESTAMP, "Start of the window, which belongs to it", nullable=False),
        Column("window_end", TIMESTAMP, "End of the window, which does not", nullable=False),
        Column("window_date", DATE, "UTC date of window_start", nullable=False),
        Column("product_id", STRING, "The product", nullable=False),
        Column("product_category", STRING, "The category that the window's last event with one names"),
        Column("views", LONG, "Events of type view", nullable=False),
        Column("add_to_carts", LONG, "Events of type add_to_cart", nullable=False),
        Column("purchases", LONG, "Events of type purchase", nullable=False),
        Column("total_events", LONG, "Events of any type", nullable=False),
        Column(
            "distinct_users",
            LONG,
            "Different users, estimated (HyperLogLog++, standard error 5 %)",
            nullable=False,
        ),
        Column("first_event_time", TIMESTAMP, "Time of the first event", nullable=False),
        Column("last_event_time", TIMESTAMP, "Time of the last event", nullable=False),
        Column("is_final", BOOL, "Whether the window is closed: the row no longer changes", nullable=False),
        _BATCH_ID,
    ),
    key=("window_start", "product_id"),
    partition_by=("window_date",),
)

FLASH_SALE_ALERTS = Table(
    "flash_sale_alerts",
    "an episode in which a product is viewed much and bought little",
    (
        Column("window_start", TIMESTAMP, "Start of the window with the most views", nullable=False),
        Column("window_end", TIMESTAMP, "End of that window", nullable=False),
        Column("product_id", STRING, "The product", nullable=False),
        Column("views", LONG, "Views in that window", nullable=False),
        Column("purchases", LONG, "Purchases in that window", nullable=False),
        Column("alert_id", STRING, "Hash of the product and first_window_start", nullable=False),
        Column("product_category", STRING, "The product's category in that window"),
        Column("state", STRING, "open, or resolved once its last window is closed", nullable=False),
        Column("conversion", DOUBLE, "Purchases per view in that window", nullable=False),
        Column(
            "first_window_start", TIMESTAMP, "Start of the first window over the threshold", nullable=False
        ),
        Column("last_window_end", TIMESTAMP, "End of the last window over the threshold", nullable=False),
        Column("windows", LONG, "Windows over the threshold", nullable=False),
        Column("resolved_at", TIMESTAMP, "last_window_end once resolved"),
        Column("usual_views", DOUBLE, "Mean views of the product's windows in the 24 hours before"),
        Column(
            "unusualness", DOUBLE, "Standard deviations by which the views exceed usual_views; see alerts.py"
        ),
        Column(
            "is_confirmed",
            BOOL,
            "Whether a window of it is closed; before that, purchases may yet refute it",
            nullable=False,
        ),
    ),
    key=("alert_id",),
)
