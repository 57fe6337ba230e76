"""Records of Confluent's datagen connector, by its quickstarts `shoe_clickstream` and `shoe_orders`.

Their schemas are in https://github.com/confluentinc/kafka-connect-datagen; they are what many a first topic holds.
"""

from typing import Any

from clickstream_assets.ingest.dialects.paths import Item, names, picked, rest, spread, table, written

_VIEW = frozenset({"product_id", "user_id", "view_time", "ts"})
_ORDER = frozenset({"product_id", "customer_id", "order_id", "ts"})
_FIELDS = table(timestamp="ts", user_id="user_id customer_id", product_id="product_id", order_id="order_id")
WRITTEN = written(_FIELDS)
# Besides what is read: where the visitor is.
_READ = names(_FIELDS) | {"ip"}


def is_one(record: dict[str, Any]) -> bool:
    """Return whether a record is a view or an order of the shoe shop."""
    return record.keys() >= _VIEW or record.keys() >= _ORDER


def items(record: dict[str, Any]) -> list[Item]:
    """Translate a record, which does not say what it is."""
    event_type = "view" if record.keys() >= _VIEW else "purchase"
    shared = {"event_type": event_type, **picked(record, _FIELDS), "properties": rest(record, _READ)}
    return spread(shared, ())
