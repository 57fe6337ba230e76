"""Tables of what shoppers do: visits, carts, segments, and what brought them."""

from clickstream_assets.catalogue.raw import EVENT_COUNTS, EVENTS
from clickstream_assets.catalogue.rfm import DEFINITIONS, RFM_SEGMENT_NAMES
from clickstream_assets.catalogue.table import (
    BOOL,
    CREATED_AT,
    DATE,
    LONG,
    MONEY,
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
from clickstream_assets.catalogue.who import PERSON

FURTHEST_STEPS = ("none", "view", "add_to_cart", "purchase")
BOT_REASONS = ("user_agent", "view_rate", "endless_session")
ACTIVITY_SEGMENTS = ("buyer", "window_shopper")
CART_STATE_NAMES = ("open", "abandoned", "emptied", "converted", "recovered")
CART_STEP_NAMES = ("opened", "given_up", "taken_up", "purchased")
ATTRIBUTION_MODELS = ("last_touch", "first_touch", "linear")

SESSIONS = Table(
    "sessions",
    "one visit: a user's events with no gap longer than the inactivity gap",
    (
        Column("session_id", STRING, "Hash of user and start"),
        Column("session_date", DATE, "The shop's day of its start", filter="date", range=True),
        Column("user_id", STRING, PERSON, filter=True),
        Column("start_time", TIMESTAMP, "Time of the first event", sort=True),
        Column("end_time", TIMESTAMP, "Time of the last event"),
        Column("duration_seconds", LONG, "Whole seconds from start to end", sort=True),
        Column("total_events", LONG, "Events in it", sort=True),
        *(Column(name, LONG, f"Events of type {kind}") for name, kind in EVENT_COUNTS.items()),
        Column("distinct_products", LONG, "Different products in its events"),
        Column("entry_product_id", STRING, "Product of its first event with one", nullable=True),
        Column("exit_product_id", STRING, "Product of its last event with one", nullable=True),
        Column("revenue", MONEY_SUM, "Sum of price times quantity of its purchases", sort=True),
        Column("is_bot", BOOL, "Whether no person did this", filter="include_bots"),
        Column(
            "bot_reason",
            STRING,
            "user_agent, view_rate or endless_session",
            nullable=True,
            values=BOT_REASONS,
        ),
        Column(
            "furthest_step",
            STRING,
            "How far it came towards a purchase: none, view (or click), add_to_cart or purchase",
            values=FURTHEST_STEPS,
            filter=True,
        ),
        Column("campaign", STRING, "First marketing campaign in it", nullable=True, filter=True),
        Column(
            "client_session_ids",
            STRINGS,
            "The sender's own session ids in it, sorted; null without any",
            nullable=True,
        ),
    ),
    key=("session_id",),
    partition_by=("session_date",),
    served=Served(
        "clickstream_sessions",
        order=("session_id", "total_events"),
        indexes=(
            Index(("total_events DESC", "session_id")),
            Index(("session_date",)),
            Index(("end_time",)),
            Index(("user_id",)),
            Index(("campaign", "session_date"), where="campaign IS NOT NULL"),
            Index(("furthest_step", "total_events DESC", "session_id")),
        ),
    ),
)


def _inputs(name: str, table: str) -> Table:
    return Table(
        name,
        f"one day of {table}, and what it was made from",
        (
            Column("report_date", DATE, "The shop's day"),
            Column(
                "events_batch", LONG, "Last ingest batch of its events, and of those of the days around it"
            ),
            Column("ties_batch", LONG, "Last ingest batch of the ties that say whose events they are"),
            Column("events", STRING, "Hash of how many events each batch up to that has on these days"),
            Column("rules", STRING, "Hash of the settings, exchange rates and version that it was made by"),
            Column("version", LONG, f"Version of {table} that has it so"),
            Column("rows", LONG, "Its rows in that version"),
        ),
        key=("report_date",),
    )


SESSION_INPUTS = _inputs("session_inputs", "sessions")

_SETTLED = {
    column.name: column
    for column in (
        Column("user_id", STRING, PERSON),
        Column(
            "price",
            MONEY,
            "Unit price in the shop's currency; null where it was sent in one that has no exchange rate",
            nullable=True,
        ),
        Column("currency", STRING, "The shop's currency, where the sender names one", nullable=True),
        Column("sent_price", MONEY, "Unit price as sent, in `sent_currency`", nullable=True),
        Column("sent_currency", STRING, "ISO 4217 code as sent", nullable=True),
    )
}
SHOPPER_EVENTS = Table(
    "shopper_events",
    "one event of a person, who is no bot",
    tuple(
        _SETTLED.get(name) or EVENTS.by_name[name]
        for name in (
            *("event_id", "event_type", "event_name", "event_time", "event_date", "user_id"),
            *("product_id", "product_category", "price", "currency", "quantity", "order_id"),
            *("query", "campaign", "consent", "sent_price", "sent_currency"),
        )
    ),
    key=("event_id", "event_date"),
    partition_by=("event_date",),
)

SHOPPER_INPUTS = _inputs("shopper_inputs", "shopper_events")

SHOPPER_CHANGES = Table(
    "shopper_changes",
    "one row that shopper_events has got or lost when its day was last renewed by persons",
    (
        *SHOPPER_EVENTS.columns,
        Column("is_added", BOOL, "Whether shopper_events has got the row; else it has lost it"),
        Column("files_before", STRING, "Hash of the names of the day's files before; empty without any"),
        Column("files", STRING, "Hash of the names of the day's files since"),
    ),
    key=("event_id", "event_date", "is_added"),
    partition_by=("event_date",),
)

SHOPPER_DAYS = Table(
    "shopper_days",
    "one day of shopper_events, and what those who read all days know it by",
    (
        Column("report_date", DATE, "The shop's day"),
        Column("events", LONG, "Its cart events, purchases and refunds"),
        Column(
            "fingerprint",
            STRING,
            "Sum of hashes of these events' ids, persons and prices: the same in whatever order they are",
        ),
        Column("files", STRING, "Hash of the names of the day's files, when the others were found"),
    ),
    key=("report_date",),
)

SHOPPER_ORDERS = Table(
    "shopper_orders",
    "what one person paid for one order on one day",
    (
        Column("order_date", DATE, "The shop's day; an order whose lines are of several has a row for each"),
        Column("user_id", STRING, PERSON),
        Column(
            "order_key", STRING, "The order, among its person's: its id, or the minute where none is sent"
        ),
        Column("amount", MONEY_SUM, "Sum of price times quantity of its lines"),
    ),
    key=("order_date", "user_id", "order_key"),
    partition_by=("order_date",),
)

SHOPPER_REFUNDS = Table(
    "shopper_refunds",
    "what one person was refunded on one day",
    (
        Column("refund_date", DATE, "The shop's day"),
        Column("user_id", STRING, PERSON),
        Column("amount", MONEY_SUM, "Sum of price times quantity of the refunds"),
    ),
    key=("refund_date", "user_id"),
    partition_by=("refund_date",),
)

USER_SEGMENTS = Table(
    "user_segments",
    "one user on one day on which they were active",
    (
        Column("report_date", DATE, "The shop's day", filter="date", range=True),
        Column("user_id", STRING, PERSON),
        Column(
            "segment",
            STRING,
            "buyer: purchased that day, whatever they did before; window_shopper: was there and did not",
            values=ACTIVITY_SEGMENTS,
            filter=True,
        ),
        Column("events", LONG, "Events that day"),
        Column("views", LONG, "Events of type view"),
        Column("add_to_carts", LONG, "Events of type add_to_cart"),
        Column("purchases", LONG, "Events of type purchase"),
        Column("revenue", MONEY_SUM, "Sum of price times quantity of the purchases"),
    ),
    key=("report_date", "user_id"),
    partition_by=("report_date",),
    served=Served(
        profiles=True,
        surrogate_key=True,
        order=("report_date", "user_id", "segment", "created_at"),
        more=(CREATED_AT,),
        zero_defaults=True,
        checked=("segment",),
        indexes=(Index(("report_date",)), Index(("segment",)), Index(("user_id", "report_date"))),
    ),
)

CARTS = Table(
    "carts",
    "one cart: from a product put in while there is none, across sessions, to its purchase or end",
    (
        Column("cart_id", STRING, "Hash of user and opening event"),
        Column("user_id", STRING, PERSON, filter=True),
        Column(
            "state",
            STRING,
            "open, abandoned, emptied, converted (bought), or recovered (bought after being abandoned)",
            values=CART_STATE_NAMES,
            filter=True,
        ),
        Column("opened_at", TIMESTAMP, "When the first product was put in", sort=True),
        Column("last_activity_at", TIMESTAMP, "Last addition, removal or purchase", range=True, sort=True),
        Column("last_activity_date", DATE, "The shop's day of it"),
        Column("items", LONG, "Different products in it, or bought from it"),
        Column("quantity", QUANTITY_SUM, "Units of them"),
        Column("value", MONEY_SUM, "Sum of their prices times units", sort=True),
        Column("currency", STRING, "Their currency; null where unknown or several", nullable=True),
        Column("product_ids", STRINGS, "The products, sorted"),
        Column(
            "abandoned_at", TIMESTAMP, "When it was last given up for abandoned; null if never", nullable=True
        ),
        Column(
            "purchased_at", TIMESTAMP, "Time of the first line of the order that bought it", nullable=True
        ),
        Column("seconds_to_purchase", LONG, "Whole seconds from opening to purchase", nullable=True),
        Column("order_id", STRING, "The order that bought it, if the sender names orders", nullable=True),
    ),
    key=("cart_id",),
    partition_by=("last_activity_date",),
    served=Served(
        indexes=(
            Index(("user_id",)),
            Index(("state", "last_activity_at"), name="state_last_activity_at"),
            Index(("last_activity_at DESC", "cart_id")),
            Index(("last_activity_date",)),
            Index(("value DESC", "cart_id")),
        ),
    ),
)

CART_DAYS = Table(
    "cart_days",
    "one day on which something happened to some cart",
    (
        Column("report_date", DATE, "The shop's day"),
        Column("opened", LONG, "Carts that were opened"),
        Column(
            "abandoned",
            LONG,
            "Carts that were given up, whatever became of them later: one that is taken up and given up again counts "
            "on both days",
        ),
        Column(
            "purchased",
            LONG,
            "Carts that were bought: neither buyers, who can fill several, nor orders, which need no cart",
        ),
    ),
    key=("report_date",),
)

CART_STATES = Table(
    "cart_states",
    "one person on one day on which they put in, took out or bought anything",
    (
        Column("state_date", DATE, "The shop's day"),
        Column("user_id", STRING, PERSON),
        Column("fingerprint", STRING, "Number and sum of hashes of their cart events that day"),
        Column(
            "carts",
            STRING,
            "At the end of the day, the open cart and the last one that was bought, as JSON: all that their next cart "
            "events depend on",
        ),
    ),
    key=("state_date", "user_id"),
    partition_by=("state_date",),
)

CART_STEPS = Table(
    "cart_steps",
    "one thing that happened to one cart",
    (
        Column("step_date", DATE, "The shop's day"),
        Column("user_id", STRING, PERSON),
        Column("cart_id", STRING, "The cart"),
        Column(
            "step",
            STRING,
            "opened, given_up (abandoned), taken_up (again) or purchased",
            values=CART_STEP_NAMES,
        ),
        Column(
            "at",
            TIMESTAMP,
            "When. A given_up of a time after the newest event is what will happen, if the cart is not taken up before",
        ),
        Column("given_up_at", TIMESTAMP, "Of given_up and taken_up: when it was given up", nullable=True),
        Column("given_up_date", DATE, "The shop's day of that", nullable=True),
        Column("value", MONEY_SUM, "Of the same: what was in it", nullable=True),
    ),
    key=("cart_id", "step", "at"),
    partition_by=("step_date",),
)

CART_INPUTS = Table(
    "cart_inputs",
    "one day with cart events, purchases or refunds, and what carts were made from",
    (
        Column("report_date", DATE, "The shop's day"),
        Column("fingerprint", STRING, "That of the day in shopper_days"),
        Column("files", STRING, "The hash of files there", nullable=True),
        Column("rules", STRING, "The settings that carts were made by"),
        Column("as_of", TIMESTAMP, "Time of the newest event, by which carts were open or abandoned"),
    ),
    key=("report_date",),
)

CUSTOMER_SEGMENTS = Table(
    "customer_segments",
    "one customer as of the end of one day",
    (
        Column(
            "report_date",
            DATE,
            "The shop's day; all that happened up to its end counts",
            filter="date",
            range=True,
        ),
        Column("user_id", STRING, PERSON),
        Column(
            "rfm_segment",
            STRING,
            "Named segment of the recency score and the value score, which is the mean of the other two, halves up. "
            f"{DEFINITIONS}. Null without a purchase in RFM_DAYS",
            nullable=True,
            values=RFM_SEGMENT_NAMES,
            filter="segment",
        ),
        Column(
            "recency_days",
            LONG,
            "Days from the last purchase to report_date; 0 is the same day",
            nullable=True,
        ),
        Column("frequency", LONG, "Different orders in RFM_DAYS"),
        Column("monetary", MONEY_SUM, "Sum of price times quantity of the purchases in RFM_DAYS"),
        Column("refunds", MONEY_SUM, "Sum of price times quantity of the refunds in RFM_DAYS"),
        Column("net_monetary", MONEY_SUM, "monetary less refunds"),
        Column(
            "r_score",
            LONG,
            "In which fifth of the day's buyers by recency, from 1 to 5, the best; equals alike",
            nullable=True,
        ),
        Column("f_score", LONG, "The same by frequency", nullable=True),
        Column("m_score", LONG, "The same by net_monetary", nullable=True),
        Column("abandoned_carts", LONG, "Carts abandoned in 30 days and not taken up since"),
        Column("abandoned_value", MONEY_SUM, "What is in them"),
    ),
    key=("report_date", "user_id"),
    partition_by=("report_date",),
    served=Served(
        profiles=True,
        indexes=(
            Index(("user_id", "report_date")),
            Index(("report_date", "rfm_segment"), name="rfm_segment"),
        ),
    ),
)

CUSTOMER_SEGMENT_DAYS = Table(
    "customer_segment_days",
    "one day of customer_segments, and what it was computed from",
    (
        Column("report_date", DATE, "The shop's day"),
        Column("as_of", TIMESTAMP, "Time up to which events count"),
        Column("events", LONG, "The day's cart events, purchases and refunds, without bots'"),
        Column("fingerprint", STRING, "Hash of these events' ids, persons and prices, and of the settings"),
    ),
    key=("report_date",),
    served=Served(),
)

USER_WEEKS = Table(
    "user_weeks",
    "one user in one week in which they were there",
    (
        Column("week", DATE, "Monday of the week, of the shop's days"),
        Column("user_id", STRING, PERSON),
        Column("cohort_week", DATE, "Monday of the first week in which they were there"),
    ),
    key=("week", "user_id"),
    partition_by=("week",),
)

COHORT_INPUTS = Table(
    "cohort_inputs",
    "one week, and what its rows of user_weeks were made from",
    (
        Column("week", DATE, "Monday of the week"),
        Column("files", STRING, "Hash of the names of its days' files of user_segments"),
    ),
    key=("week",),
)

COHORT_RETENTION = Table(
    "cohort_retention",
    "one week of one cohort: of the users who were first seen in the same ISO week",
    (
        Column("cohort_week", DATE, "Monday of the week in which the users were first seen", range=True),
        Column("weeks_since", LONG, "Weeks from then on; 0 is that week itself"),
        Column("users", LONG, "Users of the cohort"),
        Column("active_users", LONG, "Those who were there in that later week"),
        Column("retention_rate", PERCENT, "Active users per hundred users of the cohort"),
    ),
    key=("cohort_week", "weeks_since"),
    served=Served(),
)

CAMPAIGN_TOUCHES = Table(
    "campaign_touches",
    "one touch of a campaign on one person's day: events of it in a row, without a pause that would end a session",
    (
        Column("event_date", DATE, "The shop's day"),
        Column("user_id", STRING, PERSON),
        Column("position", LONG, "Its place among the person's touches of the day, from 1"),
        Column("campaign", STRING, "The campaign"),
        Column("first_time", TIMESTAMP, "Its first event"),
        Column("last_time", TIMESTAMP, "Its last event"),
    ),
    key=("event_date", "user_id", "position"),
    partition_by=("event_date",),
)

CAMPAIGN_ATTRIBUTION = Table(
    "campaign_attribution",
    "one campaign's share of one day's orders by one attribution model",
    (
        Column("report_date", DATE, "The shop's day of the purchases", filter="date", range=True),
        Column("model", STRING, "last_touch, first_touch or linear", values=ATTRIBUTION_MODELS, filter=True),
        Column("campaign", STRING, "The campaign; (direct) where no campaign reached the buyer", filter=True),
        Column("orders", MONEY_SUM, "Orders; the linear model has parts of orders"),
        Column("revenue", MONEY_SUM, "Sum of price times quantity of the orders' purchases"),
    ),
    key=("report_date", "model", "campaign"),
    partition_by=("report_date",),
    served=Served(),
)
