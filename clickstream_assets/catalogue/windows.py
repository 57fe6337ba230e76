"""Tables of the speed layer: counts per window and product, and flash-sale alerts."""

from clickstream_assets.catalogue.table import (
    BOOL,
    DATE,
    DOUBLE,
    LONG,
    STRING,
    TIMESTAMP,
    Column,
    Index,
    Served,
    Table,
)

ALERT_STATES = ("open", "resolved")

_BATCH_ID = Column("batch_id", LONG, "Number of the stream's batch that changed the row last", nullable=False)

PRODUCT_WINDOWS = Table(
    "product_windows",
    "a product in a sliding window with at least one event",
    (
        Column(
            "window_start",
            TIMESTAMP,
            "Start of the window, which belongs to it",
            nullable=False,
            range=True,
            sort=True,
        ),
        Column("window_end", TIMESTAMP, "End of the window, which does not", nullable=False),
        Column("window_date", DATE, "UTC date of window_start", nullable=False),
        Column("product_id", STRING, "The product", nullable=False, filter=True),
        Column("product_category", STRING, "The category that the window's last event with one names"),
        Column("views", LONG, "Events of type view", nullable=False, sort=True),
        Column("add_to_carts", LONG, "Events of type add_to_cart", nullable=False, sort=True),
        Column("purchases", LONG, "Events of type purchase", nullable=False, sort=True),
        Column("total_events", LONG, "Events of any type", nullable=False, sort=True),
        Column(
            "distinct_users",
            LONG,
            "Different users, estimated (HyperLogLog++, standard error 5 %)",
            nullable=False,
            sort=True,
        ),
        Column("first_event_time", TIMESTAMP, "Time of the first event", nullable=False),
        Column("last_event_time", TIMESTAMP, "Time of the last event", nullable=False),
        Column(
            "is_final",
            BOOL,
            "Whether the window is closed: the row no longer changes",
            nullable=False,
            filter="state",
        ),
        _BATCH_ID,
    ),
    key=("window_start", "product_id"),
    partition_by=("window_date",),
    served=Served(
        indexes=(
            Index(("product_id", "window_start")),
            Index(("batch_id",)),
            Index(("window_end",), where="NOT is_final", name="open"),
        ),
    ),
)

FLASH_SALE_ALERTS = Table(
    "flash_sale_alerts",
    "an episode in which a product is viewed much and bought little",
    (
        Column("window_start", TIMESTAMP, "Start of the window with the most views", nullable=False),
        Column("window_end", TIMESTAMP, "End of that window", nullable=False),
        Column("product_id", STRING, "The product", nullable=False, filter=True),
        Column("views", LONG, "Views in that window", nullable=False),
        Column("purchases", LONG, "Purchases in that window", nullable=False),
        Column("alert_id", STRING, "Hash of the product and first_window_start", nullable=False),
        Column("product_category", STRING, "The product's category in that window"),
        Column(
            "state",
            STRING,
            "open, or resolved once its last window is closed",
            nullable=False,
            values=ALERT_STATES,
            filter=True,
        ),
        Column("conversion", DOUBLE, "Purchases per view in that window", nullable=False),
        Column(
            "first_window_start",
            TIMESTAMP,
            "Start of the first window over the threshold",
            nullable=False,
            range=True,
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
            default="false",
        ),
    ),
    key=("alert_id",),
    served=Served(
        surrogate_key=True,
        order=("window_start", "window_end", "product_id", "views", "purchases", "detected_at"),
        more=(Column("detected_at", TIMESTAMP, "When the stream found it", nullable=False, default="now()"),),
        checked=("state",),
        indexes=(
            Index(("product_id", "first_window_start")),
            Index(("first_window_start",)),
            Index(("last_window_end",), where="state = 'open'", name="open"),
        ),
    ),
)
