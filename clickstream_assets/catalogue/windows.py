"""Tables of the speed layer: counts per window and product, and flash-sale alerts."""

from clickstream_assets.catalogue.table import (
    BOOL,
    DATE,
    DOUBLE,
    LONG,
    PERCENT,
    STRING,
    TIMESTAMP,
    Column,
    Index,
    Served,
    Table,
)

ALERT_STATES = ("open", "resolved")

_BATCH_ID = Column("batch_id", LONG, "Number of the stream's batch that changed the row last")

PRODUCT_WINDOWS = Table(
    "product_windows",
    "a product in a sliding window with at least one event",
    (
        Column("window_start", TIMESTAMP, "Start of the window, which belongs to it", range=True, sort=True),
        Column("window_end", TIMESTAMP, "End of the window, which does not"),
        Column("window_date", DATE, "UTC date of window_start"),
        Column("product_id", STRING, "The product", filter=True),
        Column(
            "product_category",
            STRING,
            "The category that the window's last event with one names",
            nullable=True,
        ),
        Column("views", LONG, "Events of type view", sort=True),
        Column("add_to_carts", LONG, "Events of type add_to_cart", sort=True),
        Column("purchases", LONG, "Events of type purchase", sort=True),
        Column("total_events", LONG, "Events of any type", sort=True),
        Column(
            "distinct_users",
            LONG,
            "Different visitors, estimated (HyperLogLog++, standard error 5 %): a user, or else an anonymous id",
            sort=True,
        ),
        Column("first_event_time", TIMESTAMP, "Time of the first event"),
        Column("last_event_time", TIMESTAMP, "Time of the last event"),
        Column(
            "is_final",
            BOOL,
            "Whether the window is closed: for good by the watermark, until a later event by the clock",
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
        Column("window_start", TIMESTAMP, "Start of the window with the most views"),
        Column("window_end", TIMESTAMP, "End of that window"),
        Column("product_id", STRING, "The product", filter=True),
        Column("views", LONG, "Views in that window"),
        Column("purchases", LONG, "Purchases in that window"),
        Column("alert_id", STRING, "Hash of the product and first_window_start"),
        Column("product_category", STRING, "The product's category in that window", nullable=True),
        Column(
            "state",
            STRING,
            "open, or resolved once its last window is closed",
            values=ALERT_STATES,
            filter=True,
        ),
        Column("conversion_rate", PERCENT, "Purchases per hundred views in that window"),
        Column("first_window_start", TIMESTAMP, "Start of the first window over the threshold", range=True),
        Column("last_window_end", TIMESTAMP, "End of the last window over the threshold"),
        Column("windows", LONG, "Windows over the threshold"),
        Column("resolved_at", TIMESTAMP, "last_window_end once resolved", nullable=True),
        Column(
            "usual_views", DOUBLE, "Mean views of the product's windows in the 24 hours before", nullable=True
        ),
        Column(
            "unusualness",
            DOUBLE,
            "Standard deviations by which the views exceed usual_views; see alerts.py",
            nullable=True,
        ),
        Column(
            "is_confirmed",
            BOOL,
            "Whether a window of it is closed; before that, purchases may yet refute it",
            default="false",
        ),
    ),
    key=("alert_id",),
    served=Served(
        surrogate_key=True,
        order=("window_start", "window_end", "product_id", "views", "purchases", "detected_at"),
        more=(Column("detected_at", TIMESTAMP, "When the stream found it", default="now()"),),
        checked=("state",),
        indexes=(
            Index(("product_id", "first_window_start")),
            Index(("first_window_start",)),
            Index(("last_window_end",), where="state = 'open'", name="open"),
        ),
    ),
)
