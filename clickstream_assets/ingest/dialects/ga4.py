"""Google Analytics 4's events as its export to BigQuery has them, a row as a JSON object; or as a flat table of them.

The schema is https://support.google.com/analytics/answer/7029846. JSON has its whole numbers as text. A flat table is
what a query made of the export: parameters, and the one item of a row, are columns beside the others.
"""

from decimal import Decimal
from typing import Any

from clickstream_assets.ingest.dialects.paths import (
    PER_PRODUCT,
    Item,
    Table,
    at,
    in_utc,
    is_given,
    mapping,
    name_key,
    names,
    objects,
    picked,
    rest,
    spread,
    table,
    type_of,
    with_joined_names,
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
    # The latter is its name on the web.
    anonymous_id="user_pseudo_id client_id",
    consent="privacy_info.analytics_storage",
    order_id="ecommerce.transaction_id",
)
_LAST_CLICK = "session_traffic_source_last_click"
_CAMPAIGN = table(
    campaign="collected_traffic_source.manual_campaign_name "
    f"{_LAST_CLICK}.manual_campaign.campaign_name {_LAST_CLICK}.google_ads_campaign.campaign_name"
)
_PARAMETERS = table(session_id="ga_session_id", currency="currency", order_id="transaction_id")
# Of rows from before the export had the columns of campaigns.
_CAMPAIGN_PARAMETER = table(campaign="campaign")
# Of a flat table.
_FLAT_RECORD, _FLAT_CAMPAIGN = with_joined_names(_RECORD), with_joined_names(_CAMPAIGN)
_FLAT_PARAMETERS = table(
    session_id="ga_session_id session_id", currency="currency", order_id="transaction_id order_id"
)
_SEARCH = table(query="search_term")
_IN_APP = table(product_id="product_id product_name", price="price value", quantity="quantity")
_ITEM_FIELDS = {"brand": "item_brand", "price": "price", "quantity": "quantity", "currency": "currency"}
_ITEM = table(product_id="item_id item_name", **_ITEM_FIELDS)
_FLAT_ITEM = table(product_id="item_id product_id item_name product_name", **_ITEM_FIELDS)
_CATEGORIES = ("item_category", *(f"item_category{level}" for level in range(2, 6)))
WRITTEN = written(
    *(_RECORD, _CAMPAIGN, _PARAMETERS, _CAMPAIGN_PARAMETER, _SEARCH, _IN_APP, _ITEM),
    event_type="event_name",
    event_name="event_name",
    product_category="item_category",
)
_READ_OF_PARAMETERS = names(_PARAMETERS, _CAMPAIGN_PARAMETER)
_READ_OF_SEARCH = names(_SEARCH)
_READ_OF_ITEM = names(_ITEM) - {"item_name"} | {"price_in_usd", *_CATEGORIES}
# What is said of the person besides is not kept.
_READ_OF_COLUMNS = (
    names(_RECORD, _CAMPAIGN)
    | {"event_id", "event_name", "event_params", "items", "batch_event_index"}
    | {"user_properties"}
)
# Those that the export has, of which `device` and `geo` are kept.
_COLUMNS = _READ_OF_COLUMNS | frozenset(
    {
        *("event_date", "event_previous_timestamp", "event_value_in_usd", "event_bundle_sequence_id"),
        *("event_server_timestamp_offset", "user_first_touch_timestamp", "user_ltv", "app_info"),
        *("traffic_source", "stream_id", "platform", "event_dimensions", "is_active_user", "publisher"),
        *("batch_page_id", "batch_ordering_id", "device", "geo"),
    }
)
_READ_OF_FLAT = _READ_OF_COLUMNS | names(_FLAT_RECORD, _FLAT_CAMPAIGN, _FLAT_PARAMETERS, _CAMPAIGN_PARAMETER)
_READ_OF_FLAT_ITEM = _READ_OF_ITEM | {"product_id"}
_VALUES = ("string_value", "int_value", "double_value", "float_value")
_CONSENTS = {"yes": True, "no": False, "unset": None}
_MILLION = 1_000_000


def is_one(record: dict[str, Any]) -> bool:
    """Return whether a record is a row of the export."""
    return (
        "event_name" in record
        and "event_timestamp" in record
        and ("event_params" in record or "user_pseudo_id" in record or "ga_session_id" in record)
    )


def items(record: dict[str, Any]) -> list[Item]:
    """Translate a record."""
    name = record.get("event_name")
    event_type = (type_of(name, _TYPES) or "custom") if is_given(name) else None
    shared = {"event_type": event_type, "event_id": _event_id(record)}
    sent = record.get("event_params")
    if type(sent) is list or type(sent) is dict:
        parameters = _parameters(sent)
        if not record.keys() <= _COLUMNS:
            # What a query put beside the export's columns.
            parameters = rest(record, _COLUMNS) | parameters
        left = rest(parameters, _READ_OF_PARAMETERS)
        shared |= picked(parameters, _PARAMETERS) | picked(record, _RECORD)
        campaign = _campaign(record, _CAMPAIGN) or _campaign(parameters, _CAMPAIGN_PARAMETER)
    else:
        parameters = record
        left = rest(record, _READ_OF_FLAT)
        shared |= picked(record, _FLAT_PARAMETERS) | picked(record, _FLAT_RECORD)
        campaign = _campaign(record, _FLAT_CAMPAIGN) or _campaign(record, _CAMPAIGN_PARAMETER)
    # As text it lacks its zone.
    shared["timestamp"] = in_utc(shared.get("timestamp"))
    if campaign is not None:
        shared["campaign"] = campaign
    consent = shared.get("consent")
    if type(consent) is str:
        shared["consent"] = _CONSENTS.get(consent.lower(), consent)
    sold = record.get("items")
    products: list[tuple[dict[str, Any], dict[str, Any]]] = []
    if event_type in PER_PRODUCT:
        products = [_product(item, _ITEM) for item in objects(sold)]
        if not products:
            fields, left = _without_items(record, parameters, event_type, left)
            shared |= fields
    elif sold:
        left["items"] = sold
    if event_type == "search":
        shared |= picked(parameters, _SEARCH)
        left = rest(left, _READ_OF_SEARCH)
    elif event_type == "custom":
        shared["event_name"] = name
    for around in ("device", "geo"):
        if given := mapping(record.get(around)):
            left[around] = given
    shared["properties"] = left
    return spread(shared, products)


def _without_items(
    record: dict[str, Any], parameters: dict[str, Any], event_type: str, left: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of the product, or the amount, of a row without `items`, and what is left besides."""
    if name_key(str(record["event_name"])) != "in app purchase":
        fields, _ = _product(record, _FLAT_ITEM)
        if "product_id" in fields:
            return fields, rest(left, _READ_OF_FLAT_ITEM)
    if event_type == "purchase":
        return _in_app(parameters), left
    if event_type == "refund":
        amount = at(record, "ecommerce", "refund_value")
        return {"price": amount if is_given(amount) else parameters.get("value")}, left
    return {}, left


def _campaign(record: dict[str, Any], fields: Table) -> Any:
    """Return the first campaign that is one: (organic) and (direct) are visits of none, and <Other> is of any."""
    for first, more in fields[0][1]:
        found = record.get(first)
        for name in more:
            found = found.get(name) if type(found) is dict else None
        if found is not None and found != "" and not (type(found) is str and found[0] in "(<"):
            return found
    return None


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


def _event_id(record: dict[str, Any]) -> Any:
    """Return the id of an event, which the export has none of, and a flat table may have.

    Rows from before there was `batch_event_index` have none: all events of a request have one time there, so two of the
    same name would be one.
    """
    if "event_id" in record and is_given(own := record["event_id"]):
        return own
    visitor = record.get("user_pseudo_id") or record.get("user_id")
    place = record.get("batch_event_index")
    if not visitor or place is None:
        return None
    return f"{visitor}-{record.get('event_timestamp')}-{record.get('event_name')}-{place}"


def _product(item: dict[str, Any], of_item: Table) -> tuple[dict[str, Any], dict[str, Any]]:
    fields = picked(item, of_item)
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
