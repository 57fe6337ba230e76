"""One schema per table: it makes the Delta table, the column metadata in Dagster and the checks.

A table of the lake has the name of its Dagster asset. Times are UTC, in microseconds; money is
`decimal(18, 4)` in the event's own currency; ids are text.
"""

from dataclasses import dataclass

import pyarrow as pa

STRING = pa.string()
LONG = pa.int64()
INT = pa.int32()
DOUBLE = pa.float64()
BOOL = pa.bool_()
DATE = pa.date32()
BINARY = pa.binary()
TIMESTAMP = pa.timestamp("us", tz="UTC")
MONEY = pa.decimal128(18, 4)
VECTOR = pa.list_(pa.float32())


@dataclass(frozen=True)
class Column:
    """A column: its name, Arrow type, what it holds, and whether it may be null."""

    name: str
    type: pa.DataType
    description: str
    nullable: bool = True


@dataclass(frozen=True)
class Table:
    """A table of the lake: what one row is, its columns, its unique key and how its files are laid out."""

    name: str
    grain: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partition_by: tuple[str, ...] = ()

    @property
    def column_names(self) -> list[str]:
        """Column names in order."""
        return [column.name for column in self.columns]

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema."""
        return pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in self.columns])


RECORD_KEY = ("topic", "partition", "offset")
_RECORD = (
    Column("topic", STRING, "Kafka topic the record came from", nullable=False),
    Column("partition", INT, "Kafka partition", nullable=False),
    Column("offset", LONG, "Kafka offset within the partition", nullable=False),
    Column("batch", LONG, "Number of the ingest commit that brought the record in, from 1", nullable=False),
    Column("kafka_time", TIMESTAMP, "Kafka's timestamp of the record", nullable=False),
)

RAW_EVENTS = Table(
    "raw_events",
    "one Kafka record, its bytes as they came",
    (
        *_RECORD,
        Column("key", BINARY, "Record key"),
        Column("value", BINARY, "Record value; null is a Kafka tombstone"),
    ),
    key=RECORD_KEY,
    partition_by=("topic", "partition"),
)

_EVENT = (
    Column("event_id", STRING, "The sender's id, or a hash of the canonical payload", nullable=False),
    Column(
        "event_type",
        STRING,
        "view, click, add_to_cart, remove_from_cart, purchase or search",
        nullable=False,
    ),
    Column("event_time", TIMESTAMP, "When it happened", nullable=False),
    Column("event_date", DATE, "UTC date of event_time", nullable=False),
    Column("user_id", STRING, "The shopper", nullable=False),
    Column("session_id", STRING, "The sender's own session id, if it sent one"),
    Column("product_id", STRING, "The product; null only for a search"),
    Column("product_category", STRING, "The product's category"),
    Column("brand", STRING, "The product's brand"),
    Column("price", MONEY, "Unit price in `currency`"),
    Column("currency", STRING, "ISO 4217 code"),
    Column("quantity", LONG, "Units; null means one"),
    Column("order_id", STRING, "The order a purchase belongs to"),
    Column("query", STRING, "What was searched for"),
    Column("user_agent", STRING, "HTTP user agent"),
    Column("campaign", STRING, "Marketing campaign that brought the shopper"),
    Column("consent", BOOL, "Whether the shopper agreed to being profiled; null is not asked"),
    Column("properties", STRING, "All other fields, as a JSON object"),
    Column("is_bot", BOOL, "Whether the user agent is a known robot's", nullable=False),
    Column("payload_hash", STRING, "Hash of the canonical payload, without the id", nullable=False),
)

EVENTS = Table(
    "events",
    "one event id, as first received",
    (*_EVENT, *_RECORD),
    key=("event_id",),
    partition_by=("event_date",),
)

DUPLICATE_EVENTS = Table(
    "duplicate_events",
    "one Kafka record that repeats an event already received",
    (
        Column("event_id", STRING, "Id of the repeated record", nullable=False),
        Column("payload_hash", STRING, "Hash of its canonical payload", nullable=False),
        Column(
            "reason",
            STRING,
            "same_event: id and payload were there; same_order_line: another id for an order line that was",
            nullable=False,
        ),
        *_RECORD,
    ),
    key=RECORD_KEY,
)

CONFLICTING_EVENTS = Table(
    "conflicting_events",
    "one Kafka record whose event id was already received with another payload",
    (
        *_EVENT,
        Column("first_payload_hash", STRING, "Hash of the payload that came first", nullable=False),
        Column("first_topic", STRING, "Topic of the record that came first", nullable=False),
        Column("first_partition", INT, "Partition of the record that came first", nullable=False),
        Column("first_offset", LONG, "Offset of the record that came first", nullable=False),
        *_RECORD,
    ),
    key=RECORD_KEY,
)

REJECTED_EVENTS = Table(
    "rejected_events",
    "one Kafka record that is no valid event",
    (
        *_RECORD,
        Column("key", BINARY, "Record key"),
        Column("value", BINARY, "Record value, as it came"),
        Column("field", STRING, "The field that is wrong; null where the whole record is"),
        Column("rule", STRING, "The rule that it breaks", nullable=False),
        Column("rejected_value", STRING, "The field's value as text, at most 200 characters"),
    ),
    key=RECORD_KEY,
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

INTERACTIONS = Table(
    "interactions",
    "one user and product that met",
    (
        Column("user_id", STRING, "The shopper", nullable=False),
        Column("product_id", STRING, "The product", nullable=False),
        Column("strength", DOUBLE, "Sum of the events' weights: how much this says of taste", nullable=False),
        Column("views", LONG, "Events of type view or click", nullable=False),
        Column("add_to_carts", LONG, "Events of type add_to_cart", nullable=False),
        Column("purchases", LONG, "Events of type purchase", nullable=False),
        Column("first_time", TIMESTAMP, "First event", nullable=False),
        Column("last_time", TIMESTAMP, "Last event", nullable=False),
    ),
    key=("user_id", "product_id"),
)

USER_FACTORS = Table(
    "als_user_factors",
    "one user's vector in the factor model",
    (
        Column("user_id", STRING, "The shopper", nullable=False),
        Column("factors", VECTOR, "The vector", nullable=False),
    ),
    key=("user_id",),
)

ITEM_FACTORS = Table(
    "als_item_factors",
    "one product's vector in the factor model",
    (
        Column("product_id", STRING, "The product", nullable=False),
        Column("factors", VECTOR, "The vector", nullable=False),
    ),
    key=("product_id",),
)

POPULAR_PRODUCTS = Table(
    "popular_products",
    "one product",
    (
        Column("rank", LONG, "Place by score, from 1", nullable=False),
        Column("product_id", STRING, "The product", nullable=False),
        Column("product_category", STRING, "Its latest category"),
        Column("score", DOUBLE, "Sum of the strengths of all shoppers' interactions", nullable=False),
        Column("users", LONG, "Different shoppers who met it", nullable=False),
        Column("purchases", LONG, "Times it was bought", nullable=False),
    ),
    key=("product_id",),
)

SIMILAR_PRODUCTS = Table(
    "similar_products",
    "one product and one that the same shoppers care for",
    (
        Column("product_id", STRING, "The product", nullable=False),
        Column("rank", LONG, "Place among its neighbours, from 1", nullable=False),
        Column("similar_product_id", STRING, "The neighbour", nullable=False),
        Column(
            "similarity",
            DOUBLE,
            "Cosine of the strengths of their shoppers' interactions, 0 to 1",
            nullable=False,
        ),
    ),
    key=("product_id", "similar_product_id"),
)

MODEL_EVALUATION = Table(
    "model_evaluation",
    "one algorithm, ranked on the future against all products",
    (
        Column("model_version", STRING, "Version of the model that was judged", nullable=False),
        Column("algorithm", STRING, "als, item_knn or popularity", nullable=False),
        Column("k", LONG, "Length of the ranked lists", nullable=False),
        Column("users", LONG, "Users with something to find", nullable=False),
        Column("ndcg", DOUBLE, "Mean nDCG@k", nullable=False),
        Column(
            "map",
            DOUBLE,
            "Mean average precision@k, divided by the number of relevant products",
            nullable=False,
        ),
        Column("precision", DOUBLE, "Mean precision@k", nullable=False),
        Column("recall", DOUBLE, "Mean recall@k", nullable=False),
        Column("coverage", DOUBLE, "Share of all products that appear in some list", nullable=False),
        Column("seconds", DOUBLE, "Training and ranking time", nullable=False),
        Column("chosen", BOOL, "Whether this algorithm is to be published", nullable=False),
        Column("reason", STRING, "Why it was or was not chosen", nullable=False),
    ),
    key=("model_version", "algorithm"),
)

PRODUCT_RECOMMENDATIONS = Table(
    "product_recommendations",
    "one product recommended to one user",
    (
        Column("user_id", STRING, "The shopper", nullable=False),
        Column("product_id", STRING, "The recommended product", nullable=False),
        Column("rank", LONG, "Place in the user's list, from 1", nullable=False),
        Column(
            "confidence_score",
            DOUBLE,
            "The algorithm's score; comparable within one user's list",
            nullable=False,
        ),
        Column("algorithm", STRING, "als, item_knn or popularity", nullable=False),
        Column("reason", STRING, "Why, in words that can be shown to the shopper", nullable=False),
        Column("reason_product_id", STRING, "The product of their own that the reason speaks of"),
        Column("model_version", STRING, "Version of the model that it came from", nullable=False),
    ),
    key=("user_id", "product_id"),
)
