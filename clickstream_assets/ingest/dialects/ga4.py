"""Google Analytics 4's events as its export to BigQuery has them, a row as a JSON object.

The schema is https://support.google.com/analytics/answer/7029846. JSON has its whole numbers as text.
"""

from decimal import Decimal
from typing import Any

from clickstream_assets.ingest.dialects.paths import (
    PER_PRODUCT,
    Item,
    at,
    is_given,
    mapping,
    names,
    objects,
    picked,
    rest,
    spread,
    table,
    type_of,
    written,
)

_TYPES = {
    "view item": "view",
    "select item": "click",
    "add to cart": "add_to_cart",
    "remove from cart": "remove_from_cart",
    "purchase": "purchase",
    "in app purchase": "purchase",
    "search": "search",
    "view search results": "search",
    "page view": "page_view",
    "screen view": "page_view",
    "view cart": "page_view",
    "view item list": "impression",
    "add to wishlist": "add_to_wishlist",
    "begin checkout": "begin_checkout",
    "refund": "refund",
}
_RECORD = table(
    timestamp="event_timestamp",
    user_id="user_id",
    anonymous_id="user_pseudo_id",
    campaign="collected_traffic_source.manual_campaign_name",
    consent="privacy_info.analytics_storage",
    order_id="ecommerce.transaction_id",
)
_PARAMETERS = table(session_id="ga_session_id", currency="currency", order_id="transaction_id")
_SEARCH = table(query="search_term")
_IN_APP = table(product_id="product_id product_name", price="price value", quantity="quantity")
_ITEM = table(
    product_id="item_id item_name",
    brand="item_brand",
    price="price",
    quantity="quantity",
    currency="currency",
)
_CATEGORIES = ("item_category", *(f"item_category{level}" for level in range(2, 6)))
WRITTEN = written(
    *(_RECORD, _PARAMETERS, _SEARCH, _IN_APP, _ITEM),
    event_type="event_name",
    event_name="event_name",
    product_category="item_category",
)
_READ_OF_PARAMETERS = names(_PARAMETERS) | {"search_term"}
_READ_OF_ITEM = names(_ITEM) - {"item_name"} | {"price_in_usd", *_CATEGORIES}
_VALUES = ("string_value", "int_value", "double_value", "float_value")
_CONSENTS = {"yes": True, "no": False, "unset": None}
_MILLION = 1_000_000


def is_one(record: dict[str, Any]) -> bool:
    """Return whether a record is a row of the export."""
    return (
        "event_name" in record
        and "event_timestamp" in record
        and ("event_params" in record or "user_pseudo_id" in record)
    )


def items(record: dict[str, Any]) -> list[Item]:
    """Translate a record."""
    name = record.get("event_name")
    event_type = (type_of(name, _TYPES) or "custom") if is_given(name) else None
    parameters = _parameters(record.get("event_params"))
    shared = {
        "event_type": event_type,
        "event_id": _event_id(record),
        **picked(parameters, _PARAMETERS),
        **picked(record, _RECORD),
    }
    campaign = shared.get("campaign")
    if type(campaign) is str and campaign.startswith("("):
        # Such as (organic) and (direct): a visit of no campaign.
        del shared["campaign"]
    consent = shared.get("consent")
    if type(consent) is str:
        shared["consent"] = _CONSENTS.get(consent.lower(), consent)
    left = rest(parameters, _READ_OF_PARAMETERS)
    products: list[tuple[dict[str, Any], dict[str, Any]]] = []
    if event_type in PER_PRODUCT:
        products = [_product(item) for item in objects(record.get("items"))]
        if not products and event_type == "purchase":
            shared |= _in_app(parameters)
        elif not products and event_type == "refund":
            amount = at(record, "ecommerce", "refund_value")
            shared["price"] = amount if is_given(amount) else parameters.get("value")
    elif event_type == "search":
        shared |= picked(parameters, _SEARCH)
    elif event_type == "custom":
        shared["event_name"] = name
    for around in ("device", "geo"):
        if given := mapping(record.get(around)):
            left[around] = given
    shared["properties"] = left
    return spread(shared, products)


def _parameters(sent: Any) -> dict[str, Any]:
    """Return the parameters by their names, which the export has as a list of key and value."""
    if type(sent) is dict:
        return {key: _value(value) for key, value in sent.items()}
    found: dict[str, Any] = {}
    for one in objects(sent):
        if type(key := one.get("key")) is str:
            found[key] = _value(one.get("value"))
    return found


def _value(sent: Any) -> Any:
    if type(sent) is not dict:
        return sent
    for kind in _VALUES:
        if (value := sent.get(kind)) is not None:
            return value
    return None


def _event_id(record: dict[str, Any]) -> str | None:
    """Return the id of an event, which the export has none of.

    Rows from before there was `batch_event_index` have none: all events of a request have one time there, so two of the
    same name would be one.
    """
    visitor = record.get("user_pseudo_id") or record.get("user_id")
    place = record.get("batch_event_index")
    if not visitor or place is None:
        return None
    return f"{visitor}-{record.get('event_timestamp')}-{record.get('event_name')}-{place}"


def _product(item: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    fields = picked(item, _ITEM)
    if "price" not in fields and is_given(dollars := item.get("price_in_usd")):
        fields |= {"price": dollars, "currency": "USD"}
    categories = [item[level] for level in _CATEGORIES if level in item and is_given(item[level])]
    if len(categories) == 1:
        fields["product_category"] = categories[0]
    elif categories:
        are_texts = all(type(category) is str for category in categories)
        fields["product_category"] = ".".join(categories) if are_texts else categories
    quantity = fields.get("quantity")
    if type(quantity) is str and quantity.isdecimal() and len(quantity) < 10:
        fields["quantity"] = int(quantity)
    return fields, rest(item, _READ_OF_ITEM)


def _in_app(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the product that a purchase in an app names in its parameters, whose amounts are millionths."""
    fields = picked(parameters, _IN_APP)
    price = fields.get("price")
    if type(price) is int or (type(price) is str and price.isdecimal() and len(price) < 19):
        fields["price"] = Decimal(int(price)) / _MILLION
    return fields
