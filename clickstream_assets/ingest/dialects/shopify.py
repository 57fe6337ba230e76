"""Shopify's web pixel: its standard events, and those that a shop publishes itself.

https://shopify.dev/docs/api/web-pixels-api/standard-events lists them.
"""

from decimal import Decimal, InvalidOperation
from typing import Any

from clickstream_assets.ingest.dialects.paths import (
    PER_PRODUCT,
    Item,
    at,
    in_query,
    is_given,
    mapping,
    objects,
    picked,
    rest,
    spread,
    table,
    type_of,
    written,
)

_TYPES = {
    "product viewed": "view",
    "product added to cart": "add_to_cart",
    "product removed from cart": "remove_from_cart",
    "checkout completed": "purchase",
    "search submitted": "search",
    "page viewed": "page_view",
    "cart viewed": "page_view",
    "collection viewed": "impression",
    "checkout started": "begin_checkout",
}
_BODIES = frozenset({"data", "customData", "context"})
_KINDS = ("standard", "custom", "dom", "meta", "alert", "advanced-dom", "advanced_dom")
_RECORD = table(
    event_id="id",
    timestamp="timestamp",
    anonymous_id="clientId",
    user_id="data.checkout.order.customer.id",
    order_id="data.checkout.order.id data.checkout.token",
    currency="data.checkout.currencyCode",
    query="data.searchResult.query",
    user_agent="context.navigator.userAgent",
    consent="customerPrivacy.analyticsProcessingAllowed init.customerPrivacy.analyticsProcessingAllowed",
)
_VARIANT = table(
    product_id="product.id id sku",
    product_category="product.type",
    brand="product.vendor",
    price="price.amount",
    currency="price.currencyCode",
)
# By which a shop knows what the fields have no room for.
_NAMES = table(
    variant_id="id", sku="sku", variant_title="title", product_title="product.title", image="image.src"
)
WRITTEN = written(
    _RECORD,
    _VARIANT,
    event_type="name",
    event_name="name",
    price="finalLinePrice.amount",
    quantity="quantity",
)
_PRODUCTS = frozenset({"productVariant", "productVariants", "cartLine", "lineItems"})
# Besides what is read: who the shopper is in person.
_READ_OF_PARTS = frozenset(
    {
        *("order", "email", "phone", "smsMarketingPhone", "buyerIdentity"),
        *("billingAddress", "shippingAddress", "delivery", "transactions", "localization", "attributes"),
        "query",
    }
)
_PARTS = ("checkout", "collection", "cart", "searchResult")


def is_one(record: dict[str, Any]) -> bool:
    """Return whether a record is an event of a pixel."""
    return (
        type(record.get("name")) is str
        and ("clientId" in record or record.get("type") in _KINDS)
        and not _BODIES.isdisjoint(record)
    )


def items(record: dict[str, Any]) -> list[Item]:
    """Translate a record."""
    name = record.get("name")
    event_type = (type_of(name, _TYPES) or "custom") if is_given(name) else None
    data = mapping(record.get("data"))
    shared = {"event_type": event_type, **picked(record, _RECORD)}
    for field in ("user_id", "order_id"):
        if field in shared:
            shared[field] = _plain_id(shared[field])
    if campaign := _campaign(at(record, "context", "document", "location")):
        shared["campaign"] = campaign
    if event_type == "custom":
        shared["event_name"] = name
    # Products are events of their own, or else are kept as they are.
    read = _PRODUCTS if event_type in PER_PRODUCT else frozenset()
    left = _left(data, read) | mapping(record.get("customData"))
    products: list[tuple[dict[str, Any], dict[str, Any]]] = []
    if event_type == "purchase":
        products = [_line(line) for line in objects(at(data, "checkout", "lineItems"))]
    elif event_type == "impression":
        products = [_variant(one) for one in objects(at(data, "collection", "productVariants"))]
    elif event_type in ("view", "add_to_cart", "remove_from_cart"):
        line = mapping(data.get("cartLine"))
        variant = data.get("productVariant") if event_type == "view" else line.get("merchandise")
        fields, named = _variant(mapping(variant))
        shared |= fields
        left |= named
        if event_type != "view" and is_given(quantity := line.get("quantity")):
            shared["quantity"] = quantity
    shared["properties"] = left
    return spread(shared, products)


def _left(data: dict[str, Any], read: frozenset[str]) -> dict[str, Any]:
    left = rest(data, read)
    for name in _PARTS:
        if name in left:
            left[name] = rest(mapping(left[name]), _READ_OF_PARTS | read)
    return left


def _variant(variant: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of a variant of a product, and by what else it is known."""
    fields, named = picked(variant, _VARIANT), picked(variant, _NAMES)
    if "product_id" in fields:
        fields["product_id"] = _plain_id(fields["product_id"])
    if "variant_id" in named:
        named["variant_id"] = _plain_id(named["variant_id"])
    return fields, named


def _line(line: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what there is of a line of an order; its price is what was paid for it, for each of its units."""
    fields, named = _variant(mapping(line.get("variant")))
    if is_given(title := line.get("title")):
        named.setdefault("product_title", title)
        # Sold without a variant, such as a gift card or a line that somebody typed.
        fields.setdefault("product_id", title)
    quantity = line.get("quantity")
    if is_given(quantity):
        fields["quantity"] = quantity
    paid = at(line, "finalLinePrice", "amount")
    if is_given(paid):
        fields["price"] = _each(paid, quantity)
        if is_given(code := at(line, "finalLinePrice", "currencyCode")):
            fields["currency"] = code
    return fields, named


def _each(paid: Any, quantity: Any) -> Any:
    """Return what one of some units cost; where it cannot be said, what was sent, which is judged as such."""
    if not is_given(quantity):
        return paid
    try:
        units = Decimal(quantity)
        return paid if units == 1 or not units else Decimal(paid) / units
    except (InvalidOperation, TypeError, ValueError):
        return paid


def _plain_id(value: Any) -> Any:
    """Return an id without the address that Shopify's APIs write it as: gid://shopify/Product/123 is 123."""
    if type(value) is str and value.startswith("gid://"):
        return value.partition("?")[0].rpartition("/")[2]
    return value


def _campaign(location: Any) -> str | None:
    return in_query(at(location, "search"), "utm_campaign") or in_query(at(location, "href"), "utm_campaign")
