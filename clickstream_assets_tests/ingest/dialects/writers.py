"""One small shop, and how five trackers would write what happens in it."""

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from clickstream_assets.ingest.dialects.snowplow import PLACES
from clickstream_assets_tests.analytics.records import encode

Happening = dict[str, Any]
"""Own fields of what happened at one moment, with `products`, `event_id` and `timestamp`."""

_SNOWPLOW = "com_snowplowanalytics_snowplow_"
_TYPES_OF_ONE = ("view", "click", "add_to_cart", "remove_from_cart", "add_to_wishlist")
_TYPES = (
    *_TYPES_OF_ONE,
    *("page_view", "search", "impression", "begin_checkout", "purchase", "refund", "identify", "custom"),
)


def happenings(seed: int, number: int = 120) -> Iterator[Happening]:
    """Yield what shoppers of a made-up shop did."""
    rng = random.Random(seed)
    time = datetime(2024, 5, 1, 9, tzinfo=UTC)
    catalogue = [
        {
            "product_id": f"P{n}",
            "product_category": rng.choice(["Home.Lamps", "Garden", "Home.Kitchen.Pots"]),
            "brand": rng.choice(["Nord", "Süd"]),
            "price": rng.choice([5, 12.5, 7.25, 1299]),
        }
        for n in range(12)
    ]
    for n in range(number):
        time += timedelta(milliseconds=rng.randrange(1, 90_000))
        visitor = rng.randrange(8)
        kind = rng.choice(_TYPES)
        some = rng.sample(catalogue, 1 if kind in _TYPES_OF_ONE else rng.randrange(1, 4))
        has_amounts = kind in ("add_to_cart", "remove_from_cart", "purchase", "refund")
        bought = [one | ({"quantity": rng.randrange(1, 4)} if has_amounts else {}) for one in some]
        happened: Happening = {
            "event_id": f"m{seed}-{n}",
            "event_type": kind,
            "timestamp": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "anonymous_id": f"a{visitor}",
            "session_id": str(1_714_550_000 + visitor),
            "user_agent": "Mozilla/5.0 (X11) Firefox/120.0",
            "campaign": rng.choice([None, "spring"]),
            "consent": rng.choice([True, False]),
            "products": bought if kind in (*_TYPES_OF_ONE, "impression", "purchase", "refund") else [],
        }
        if visitor % 2 and kind in ("purchase", "identify", "page_view"):
            happened["user_id"] = f"u{visitor}"
        if happened["products"]:
            happened["currency"] = "EUR"
        if kind in ("purchase", "refund"):
            happened["order_id"] = f"o{n}"
        if kind == "search":
            happened["query"] = rng.choice(["lamp", "rote töpfe"])
        if kind == "custom":
            happened["event_name"] = rng.choice(["newsletter", "Chat Opened"])
        yield happened


def own(happened: Happening) -> bytes:
    """Write it in own fields."""
    fields = {name: value for name, value in happened.items() if name != "products"}
    if products := happened["products"]:
        fields |= products[0] if len(products) == 1 else {"items": products}
    return encode(fields)


def segment(happened: Happening) -> bytes:
    """Write it as a call of Segment's."""
    names = {
        **{"view": "Product Viewed", "click": "Product Clicked", "add_to_cart": "Product Added"},
        **{"remove_from_cart": "Product Removed", "add_to_wishlist": "Product Added to Wishlist"},
        **{"search": "Products Searched", "impression": "Product List Viewed"},
        **{"begin_checkout": "Checkout Started", "purchase": "Order Completed", "refund": "Order Refunded"},
    }
    kind = happened["event_type"]
    lines = [
        {"category" if name == "product_category" else name: value for name, value in one.items()}
        for one in happened["products"]
    ]
    properties: dict[str, Any] = {
        name: happened[name] for name in ("order_id", "currency", "query") if name in happened
    }
    properties |= lines[0] if kind in _TYPES_OF_ONE else {"products": lines}
    call = {"page_view": "page", "identify": "identify"}.get(kind, "track")
    return encode(
        {
            "type": call,
            "event": names.get(kind, happened.get("event_name")) if call == "track" else None,
            "messageId": happened["event_id"],
            "userId": happened.get("user_id"),
            "anonymousId": happened["anonymous_id"],
            "timestamp": happened["timestamp"],
            "sentAt": "2024-05-02T11:00:00Z",
            "properties": properties,
            "context": {
                "sessionId": happened["session_id"],
                "userAgent": happened["user_agent"],
                "campaign": {"name": happened["campaign"]},
                "consent": {"categoryPreferences": {"Ads": True, "Analytics": happened["consent"]}},
            },
        }
    )


def ga4(happened: Happening) -> bytes:
    """Write it as a row of GA4's export."""
    names = {
        **{"view": "view_item", "click": "select_item", "impression": "view_item_list"},
        **{"custom": happened.get("event_name")},
    }
    parameters = {"ga_session_id": {"int_value": happened["session_id"]}, "engaged": {"int_value": "1"}}
    if "currency" in happened:
        parameters["currency"] = {"string_value": happened["currency"]}
    if "query" in happened:
        parameters["search_term"] = {"string_value": happened["query"]}
    time = datetime.fromisoformat(happened["timestamp"])
    items = []
    for one in happened["products"]:
        levels = one["product_category"].split(".")
        categories = {f"item_category{n if n > 1 else ''}": level for n, level in enumerate(levels, start=1)}
        items.append(
            {
                "item_id": one["product_id"],
                "item_name": "(not set)",
                "item_brand": one["brand"],
                "price": one["price"],
                "quantity": str(one["quantity"]) if "quantity" in one else None,
                **categories,
            }
        )
    return encode(
        {
            "event_timestamp": str(int(time.timestamp()) * 1_000_000 + time.microsecond),
            "event_name": names.get(happened["event_type"], happened["event_type"]),
            "event_params": [{"key": key, "value": value} for key, value in reversed(parameters.items())],
            "user_id": happened.get("user_id"),
            "user_pseudo_id": happened["anonymous_id"],
            "batch_event_index": "1",
            "privacy_info": {"analytics_storage": "Yes" if happened["consent"] else "No"},
            "collected_traffic_source": {"manual_campaign_name": happened["campaign"] or "(direct)"},
            "ecommerce": {"transaction_id": happened.get("order_id", "(not set)")},
            "items": items,
        }
    )


def shopify(happened: Happening) -> bytes:
    """Write it as an event of Shopify's web pixel."""
    names = {
        **{"page_view": "page_viewed", "view": "product_viewed", "impression": "collection_viewed"},
        **{"add_to_cart": "product_added_to_cart", "remove_from_cart": "product_removed_from_cart"},
        **{"search": "search_submitted", "begin_checkout": "checkout_started"},
        **{"purchase": "checkout_completed", "custom": happened.get("event_name")},
    }
    kind = happened["event_type"]
    variants = [
        {
            "id": "77",
            "price": {"amount": one["price"], "currencyCode": happened["currency"]},
            "product": {
                "id": f"gid://shopify/Product/{one['product_id']}",
                "vendor": one["brand"],
                "type": one["product_category"],
            },
        }
        for one in happened["products"]
    ]
    data: dict[str, Any] = {}
    if kind == "view":
        data = {"productVariant": variants[0]}
    elif kind == "impression":
        data = {"collection": {"id": "c", "productVariants": variants}}
    elif kind == "search":
        data = {"searchResult": {"query": happened["query"], "productVariants": []}}
    elif kind in ("add_to_cart", "remove_from_cart"):
        data = {"cartLine": {"merchandise": variants[0], "quantity": happened["products"][0]["quantity"]}}
    elif kind == "purchase":
        lines = [
            {
                "id": "9",
                "quantity": one["quantity"],
                "variant": variant | {"price": {"amount": one["price"] * 2, "currencyCode": "EUR"}},
                "finalLinePrice": {"amount": one["price"] * one["quantity"], "currencyCode": "EUR"},
            }
            for one, variant in zip(happened["products"], variants, strict=True)
        ]
        order = {"id": happened["order_id"], "customer": {"id": happened.get("user_id")}}
        data = {"checkout": {"token": "t", "order": order, "lineItems": lines, "email": "a@b.example"}}
    search = f"?utm_campaign={happened['campaign']}" if happened["campaign"] else ""
    return encode(
        {
            "id": happened["event_id"],
            "name": names[kind],
            "type": "custom" if kind == "custom" else "standard",
            "clientId": happened["anonymous_id"],
            "timestamp": happened["timestamp"],
            "customerPrivacy": {"analyticsProcessingAllowed": happened["consent"]},
            "data": data,
            "context": {
                "document": {"location": {"href": "https://shop.example/", "search": search}},
                "navigator": {"userAgent": happened["user_agent"]},
            },
        }
    )


def snowplow(happened: Happening, form: str = "columns") -> bytes:
    """Write it as an enriched event: entities in columns, in `contexts`, or all as TSV."""
    actions = {
        **{"view": "product_view", "click": "list_click", "impression": "list_view"},
        **{"add_to_cart": "add_to_cart", "remove_from_cart": "remove_from_cart"},
        **{"begin_checkout": "checkout_step", "purchase": "transaction", "refund": "refund"},
    }
    kind = happened["event_type"]
    entities: dict[str, list[dict[str, Any]]] = {
        "consent_preferences": [{"eventType": "allow_all" if happened["consent"] else "deny_all"}]
    }
    own_data: dict[str, Any] | None = None
    own_name = "site_search"
    if kind in actions:
        own_name, own_data = "ecommerce_snowplow_ecommerce_action", {"type": actions[kind]}
        entities["ecommerce_product"] = [
            {
                "id": one["product_id"],
                "category": one["product_category"],
                "brand": one["brand"],
                "price": one["price"],
                "currency": happened["currency"],
                "quantity": one.get("quantity"),
            }
            for one in happened["products"]
        ]
    if "order_id" in happened:
        entities["ecommerce_transaction"] = [{"transaction_id": happened["order_id"], "revenue": 1}]
    if kind == "begin_checkout":
        entities["ecommerce_checkout_step"] = [{"step": 1}]
    if kind == "search":
        own_data = {"terms": happened["query"].split()}
    record = {
        "event": "page_view" if kind == "page_view" else "struct" if kind == "custom" else "unstruct",
        "event_name": {"page_view": "page_view", "custom": "event"}.get(kind, "snowplow_ecommerce_action"),
        "se_action": happened.get("event_name"),
        "event_id": happened["event_id"],
        "derived_tstamp": happened["timestamp"].replace("T", " ").removesuffix("Z"),
        "user_id": happened.get("user_id"),
        "domain_userid": happened["anonymous_id"],
        "domain_sessionid": happened["session_id"],
        "mkt_campaign": happened["campaign"],
        "useragent": happened["user_agent"],
    }
    if kind == "search":
        record["event_name"] = "site_search"
    if form == "columns":
        record |= {f"contexts_{_SNOWPLOW}{name}_1": found for name, found in entities.items()}
        record[f"unstruct_event_{_SNOWPLOW}{own_name}_1_0_2"] = own_data
        return encode(record)

    def described(name: str, data: dict[str, Any]) -> dict[str, Any]:
        room, _, plain = name.rpartition("ecommerce_") if name.startswith("ecommerce_") else ("", "", name)
        if name.startswith("ecommerce_snowplow_"):
            plain = name.removeprefix("ecommerce_")
        vendor = "com.snowplowanalytics.snowplow" + (".ecommerce" if name.startswith("ecommerce_") else room)
        return {"schema": f"iglu:{vendor}/{plain}/jsonschema/1-0-0", "data": data}

    contexts = {
        "schema": "contexts",
        "data": [described(n, one) for n, found in entities.items() for one in found],
    }
    unstruct = own_data and {"schema": "unstruct_event", "data": described(own_name, own_data)}
    if form == "contexts":
        return encode(record | {"contexts": contexts, "unstruct_event": unstruct})
    columns = [""] * 131
    for name, value in record.items():
        columns[PLACES[name]] = value or ""
    columns[PLACES["contexts"]] = encode(contexts).decode()
    columns[PLACES["unstruct_event"]] = encode(unstruct).decode() if unstruct else ""
    return "\t".join(columns).encode()


WRITERS: dict[str, Callable[[Happening], bytes]] = {
    "segment": segment,
    "ga4": ga4,
    "shopify": shopify,
    "snowplow": snowplow,
    "snowplow_contexts": lambda happened: snowplow(happened, "contexts"),
    "snowplow_tsv": lambda happened: snowplow(happened, "tsv"),
}
CANNOT_SAY: dict[str, tuple[set[str], set[str]]] = {
    "own": (set(), set()),
    "segment": (set(), set()),
    "ga4": ({"identify"}, {"user_agent"}),
    "shopify": ({"click", "add_to_wishlist", "refund", "identify"}, {"session_id"}),
    "snowplow": ({"add_to_wishlist", "identify"}, set()),
}
"""Event types and fields that a dialect has no words for, as docs/events.md says."""
