"""Tables from the Kafka topic to events."""

from dataclasses import replace

from clickstream_assets.catalogue.table import (
    BINARY,
    BOOL,
    DATE,
    INT,
    LONG,
    MONEY,
    PERCENT,
    PROBLEMS,
    QUANTITY,
    STRING,
    TIMESTAMP,
    Column,
    Served,
    Table,
)

EVENT_TYPES = (
    "page_view",
    "view",
    "click",
    "impression",
    "search",
    "add_to_wishlist",
    "add_to_cart",
    "remove_from_cart",
    "begin_checkout",
    "purchase",
    "refund",
    "identify",
    "custom",
)
OTHER_SPELLINGS = {
    "pageview": "page_view",
    "page": "page_view",
    "pv": "view",
    "product_view": "view",
    "view_item": "view",
    "list_view": "impression",
    "view_item_list": "impression",
    "fav": "add_to_wishlist",
    "favorite": "add_to_wishlist",
    "favourite": "add_to_wishlist",
    "wishlist": "add_to_wishlist",
    "cart": "add_to_cart",
    "checkout": "begin_checkout",
    "checkout_step": "begin_checkout",
    "buy": "purchase",
    "return": "refund",
}
"""Event types as some senders spell them, and what they are."""
TYPES_OF_PRODUCTS = frozenset({"add_to_wishlist", "add_to_cart", "remove_from_cart", "purchase"})
"""Event types that say nothing without a `product_id`; a `view` without one is a `page_view`."""
MONEY_TYPES = frozenset({"purchase", "refund"})
"""Event types whose price and quantity are money that was paid."""
EVENT_COUNTS = {
    "views": "view",
    "clicks": "click",
    "add_to_carts": "add_to_cart",
    "remove_from_carts": "remove_from_cart",
    "purchases": "purchase",
    "searches": "search",
    "page_views": "page_view",
    "impressions": "impression",
    "add_to_wishlists": "add_to_wishlist",
    "begin_checkouts": "begin_checkout",
    "refund_count": "refund",
}
"""Columns that count the events of one type, and that type; `sessions` has them all."""

RECORD_KEY = ("topic", "partition", "offset")
ITEM_KEY = (*RECORD_KEY, "item")
"""Key of what a record holds: an event, or several where it has `items`."""
_RECORD = (
    Column("topic", STRING, "Kafka topic the record came from"),
    Column("partition", INT, "Kafka partition"),
    Column("offset", LONG, "Kafka offset within the partition"),
    Column("batch", LONG, "Number of the ingest commit that brought the record in, from 1"),
    Column(
        "kafka_time",
        TIMESTAMP,
        "When the record came: its timestamp in Kafka, at the latest when it was read",
    ),
)
_KAFKA_TIMESTAMP = Column(
    "kafka_timestamp",
    LONG,
    "The timestamp in Kafka, milliseconds since 1970, where it is no time at which the record can have come: after it "
    "was read, or before 2011. `kafka_time` is then when it was read",
    nullable=True,
)

_PLACE = (
    Column("item", INT, "Place in the record's `items`, from 1; 1 where it has none"),
    Column("items", INT, "How many items the record has; 1 where it names none"),
)

_REJECTION = (
    _KAFKA_TIMESTAMP,
    Column("key", BINARY, "Record key", nullable=True),
    Column("value", BINARY, "Record value, as it came", nullable=True),
    Column("field", STRING, "The field that is wrong; null where the whole record is", nullable=True),
    Column("rule", STRING, "The rule that it breaks"),
    Column("rejected_value", STRING, "The field's value as text, at most 200 characters", nullable=True),
)

RAW_EVENTS = Table(
    "raw_events",
    "one Kafka record, its bytes as they came",
    (
        *_RECORD,
        _KAFKA_TIMESTAMP,
        Column("key", BINARY, "Record key", nullable=True),
        Column("value", BINARY, "Record value; null is a Kafka tombstone", nullable=True),
    ),
    key=RECORD_KEY,
    partition_by=("topic", "partition"),
)

RAW_PRODUCTS = replace(
    RAW_EVENTS, name="raw_products", grain="one record of KAFKA_PRODUCTS_TOPIC, its bytes as they came"
)

REJECTED_PRODUCTS = Table(
    "rejected_products",
    "one record of KAFKA_PRODUCTS_TOPIC that says nothing of a product",
    (
        *_RECORD,
        *_REJECTION,
    ),
    key=RECORD_KEY,
)

INGEST_RULES = Table(
    "ingest_rules",
    "one ingest batch: what its records are read and checked by, as set when it was first classified",
    (
        Column("batch", LONG, "Number of the ingest batch"),
        Column("earliest", LONG, "Earliest time of an event, microseconds since 1970"),
        Column("max_clock_skew", LONG, "How far an event may be ahead of Kafka, microseconds"),
        Column("max_event_bytes", LONG, "Size of the largest event"),
        Column(
            "max_age", LONG, "How far an event may be behind Kafka, microseconds; null is any", nullable=True
        ),
        Column("event_id_days", LONG, "EVENT_ID_DAYS"),
        Column("time_zone", STRING, "SHOP_TIME_ZONE; null is UTC", nullable=True),
        Column("id_placeholders", STRING, "ID_PLACEHOLDERS"),
        Column("decimal_comma", BOOL, "DECIMAL_COMMA"),
        Column("event_dialect", STRING, "EVENT_DIALECT; null is auto", nullable=True),
        Column(
            "topic_dialects",
            STRING,
            "The topics of KAFKA_TOPIC that have a dialect of their own, as it has them; null is none",
            nullable=True,
        ),
        Column("pseudonyms", BOOL, "PSEUDONYMS; null is false", nullable=True),
    ),
    key=("batch",),
)

EVENT_FIELDS = (
    Column(
        "user_id", STRING, "The shopper, as the shop knows them; null for one who has no name", nullable=True
    ),
    Column(
        "anonymous_id",
        STRING,
        "The visitor, as their browser or device is known; null if unknown",
        nullable=True,
    ),
    Column(
        "session_id",
        STRING,
        "The sender's own session id, if it sent one; the visitor, where there is no other id",
        nullable=True,
    ),
    Column("event_name", STRING, "What a custom event is", nullable=True),
    Column("product_id", STRING, "The product; null where the event is of none", nullable=True),
    Column("product_category", STRING, "The product's category", nullable=True),
    Column("brand", STRING, "The product's brand", nullable=True),
    Column("price", MONEY, "Unit price in `currency`", nullable=True),
    Column("currency", STRING, "ISO 4217 code", nullable=True),
    Column("quantity", QUANTITY, "Units, or parts of one; null means one", nullable=True),
    Column("order_id", STRING, "The order that a purchase or a refund belongs to", nullable=True),
    Column("order_line", STRING, "The line of the order, where the sender names lines", nullable=True),
    Column("query", STRING, "The words that were searched for", nullable=True),
    Column("user_agent", STRING, "HTTP user agent", nullable=True),
    Column("campaign", STRING, "Marketing campaign that brought the shopper", nullable=True),
    Column("consent", BOOL, "Whether the shopper agreed to being profiled; null is not asked", nullable=True),
)
"""Fields of an event besides its id, type, time and properties; `ingest/fields.py` reads them by these names."""
ID_FIELDS = ("event_id", "user_id", "anonymous_id", "session_id", "product_id", "order_id", "order_line")
"""Fields that are ids, in which a placeholder stands for nothing."""

_EVENT = (
    Column("event_id", STRING, "The sender's id, or a hash of the canonical payload"),
    Column("event_type", STRING, ", ".join(EVENT_TYPES), values=EVENT_TYPES),
    Column("event_time", TIMESTAMP, "When it happened"),
    Column("event_date", DATE, "The shop's day of event_time"),
    *EVENT_FIELDS,
    Column("properties", STRING, "All other fields, as a JSON object", nullable=True),
    Column(
        "field_problems",
        PROBLEMS,
        "Fields that could not be read and were left out: the field, the rule that it breaks, and its value as text",
        nullable=True,
    ),
    Column("is_bot", BOOL, "Whether the user agent is a known robot's; `sessions` labels more"),
    Column("payload_hash", STRING, "Hash of the canonical payload, without the id"),
)

EVENTS = Table(
    "events",
    "one event id within EVENT_ID_DAYS, as first received",
    (*_EVENT, *_RECORD, *_PLACE),
    key=("event_id", "event_date"),
    partition_by=("event_date",),
)

LIVE_EVENTS = Table(
    "live_events",
    "one event id, as the stream first received it, as a document in Elasticsearch",
    # The stream knows nothing of ingest batches.
    tuple(
        replace(
            column,
            filter=column.name in ("user_id", "anonymous_id", "event_type"),
            range=column.name == "event_time",
        )
        for column in EVENTS.columns
        if column.name != "batch"
    ),
    key=("event_id",),
    in_lake=False,
)

# What the stream counts an event by, if it did not know that it is a repetition.
_COUNTED = (
    *("event_type", "session_id", "product_id", "product_category", "price", "quantity"),
    *("order_id", "order_line", "is_bot"),
)

DUPLICATE_EVENTS = Table(
    "duplicate_events",
    "one Kafka record, or item of one, that repeats an event already received",
    (
        Column("event_id", STRING, "Id of the repeated record"),
        Column("event_time", TIMESTAMP, "When it happened, as of an event"),
        Column("event_date", DATE, "Its day, as of an event"),
        Column("user_id", STRING, "As of an event", nullable=True),
        Column(
            "anonymous_id",
            STRING,
            "As of an event. With a user, the two are tied, as a thank-you page that is loaded again may be the first "
            "to know both",
            nullable=True,
        ),
        *(
            replace(column, description="As of an event; null in rows of older versions", nullable=True)
            for column in _EVENT
            if column.name in _COUNTED
        ),
        Column("payload_hash", STRING, "Hash of its canonical payload"),
        Column(
            "reason",
            STRING,
            "same_event: id and payload were there; same_order_line: another id for an order line that was",
            values=("same_event", "same_order_line"),
        ),
        *_RECORD,
        *_PLACE,
    ),
    key=ITEM_KEY,
    partition_by=("event_date",),
)

CONFLICTING_EVENTS = Table(
    "conflicting_events",
    "one Kafka record, or item of one, whose event id was already received with another payload",
    (
        *_EVENT,
        Column("first_payload_hash", STRING, "Hash of the payload that came first"),
        Column("first_topic", STRING, "Topic of the record that came first"),
        Column("first_partition", INT, "Partition of the record that came first"),
        Column("first_offset", LONG, "Offset of the record that came first"),
        Column("first_item", INT, "Place of what came first in that record"),
        *_RECORD,
        *_PLACE,
    ),
    key=ITEM_KEY,
)

REJECTED_EVENTS = Table(
    "rejected_events",
    "one Kafka record, or item of one, that the ingest did not take as an event, or Elasticsearch as a document",
    (
        *_RECORD,
        *_PLACE,
        *_REJECTION,
        Column(
            "rejected_by",
            STRING,
            "ingest; or elasticsearch, an event that is no document: its batch is 0 and the ingest does not count "
            "it. Null in rows of older versions, which are the ingest's",
            nullable=True,
            values=("ingest", "elasticsearch"),
        ),
    ),
    key=(*ITEM_KEY, "rejected_by"),
)

ERASED_RECORDS = Table(
    "erased_records",
    "one Kafka record, or item of one, of a person who was erased: where it was, and nothing of what it said",
    (
        Column("erasure", LONG, "Number of the erasure that took it away"),
        *_RECORD,
        *_PLACE,
        Column("erased_from", STRING, "The table that had it"),
        Column("event_date", DATE, "The shop's day of the event; null where it was none", nullable=True),
    ),
    key=ITEM_KEY,
)

OUTCOMES = ("event", "duplicate", "conflict", "rejected", "refused", "left_out", "late")
"""The ends that a record can come to, of which it comes to one of the first four; then events that Elasticsearch did
not take, fields that were left out of events, and events that came on a later day than theirs, each counted once more.
"""
WHOLE_RECORD = "(record)"
"""The field of a rejected record that is wrong as a whole."""

_HOUR = Column("hour", TIMESTAMP, "Start of the hour in which the records came", range=True, sort=True)

RECORD_COUNTS = Table(
    "record_counts",
    "the records of one hour of arrival that came to the same end",
    (
        _HOUR,
        Column("hour_date", DATE, "UTC date of hour"),
        Column(
            "outcome",
            STRING,
            "What became of them; refused are events that Elasticsearch did not take as documents, left_out events "
            "without a field that could not be read, and late events that came after the end of the shop's day on "
            "which they happened, all three counted once more",
            values=OUTCOMES,
        ),
        Column("rule", STRING, "The rule that they break; empty where they break none"),
        Column(
            "field",
            STRING,
            "The field that is wrong; (record) where the whole record is, empty where none is",
        ),
        Column("records", LONG, "How many there are"),
    ),
    key=("hour", "outcome", "rule", "field"),
    partition_by=("hour_date",),
)

REJECTED_COUNTS = Table(
    "rejected_counts",
    "the records of one hour of arrival, of the last 90 days, of which the same field breaks the same rule",
    (
        _HOUR,
        Column("rule", STRING, "The rule that they break", filter=True),
        Column("field", STRING, "The field that is wrong; (record) where the whole record is", filter=True),
        Column(
            "rejected_by",
            STRING,
            "ingest; elasticsearch, of events that are no documents; or nobody, of events that were taken without the "
            "field",
            values=("ingest", "elasticsearch", "nobody"),
            filter=True,
        ),
        Column("records", LONG, "How many there are", sort=True),
        Column("received", LONG, "All records that came in that hour"),
        Column("share", PERCENT, "Of a hundred received; 0 where the ingest has none yet", sort=True),
    ),
    key=("hour", "rule", "field", "rejected_by"),
    served=Served(),
    in_lake=False,
)

RECORD_DAYS = Table(
    "record_days",
    "the records of one day of arrival, of the last 90 days, that came to the same end for the same reason",
    (
        Column(
            "arrival_date",
            DATE,
            "The shop's day in which the hour of their arrival began",
            range=True,
            sort=True,
        ),
        Column(
            "outcome",
            STRING,
            "event, duplicate, conflict or rejected, one for each record; and refused, left_out and late, which count "
            "events once more: those that Elasticsearch did not take, those without a field that could not be read, "
            "and those that came after the end of the day on which they happened",
            values=OUTCOMES,
            filter=True,
        ),
        Column(
            "rule",
            STRING,
            "The rule that they break, of refused ones the kind of Elasticsearch's error; empty where they break none",
            filter=True,
        ),
        Column(
            "field",
            STRING,
            "The field that is wrong; (record) where the whole record is, empty where none is",
            filter=True,
        ),
        Column("records", LONG, "How many there are", sort=True),
    ),
    key=("arrival_date", "outcome", "rule", "field"),
    served=Served(),
    in_lake=False,
)

REJECTED_SAMPLES = Table(
    "rejected_samples",
    "one of the newest rejected records of a day, of each rule and field at most REJECTED_SAMPLES",
    (
        Column(
            "arrival_date",
            DATE,
            "The shop's day on which it came, one of the last 14 with any",
            filter="date",
        ),
        Column("rule", STRING, "The rule that it breaks", filter=True),
        Column("field", STRING, "The field that is wrong; (record) where the whole record is", filter=True),
        Column(
            "rejected_value",
            STRING,
            "The field's value as it was sent, as text, at most 200 characters",
            nullable=True,
        ),
        Column("kafka_time", TIMESTAMP, "When it came", range=True, sort=True),
        Column("topic", STRING, "Its topic in Kafka", filter=True),
        Column("partition", INT, "Its partition"),
        Column("offset", LONG, "Its offset within the partition"),
        Column("item", INT, "Place in the record's `items`, from 1; 1 where it has none"),
    ),
    key=("arrival_date", "rule", "field", *ITEM_KEY),
    served=Served(),
)
