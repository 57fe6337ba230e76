"""Files of recommender research whose rows say little: visitor, product, time and what was done."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import partial

from clickstream_assets.ingest.files.kinds.kind import (
    Event,
    Kind,
    column,
    in_utc,
    number,
    same_for_all,
    texts,
)
from clickstream_assets.ingest.files.skipped import MALFORMED_ROW, SkippedRow

_RETAILROCKET_TYPES = {"addtocart": "add_to_cart", "transaction": "purchase"}
# Many copies have numbers for them.
_OTTO_TYPES = {
    **{"clicks": "view", "carts": "add_to_cart", "orders": "purchase"},
    **{"0": "view", "1": "add_to_cart", "2": "purchase"},
}
_TAOBAO_TYPES = {"pv": "view", "cart": "add_to_cart", "fav": "add_to_wishlist", "buy": "purchase"}
# Alibaba's app has numbers for them, in the same order as the words of its later file.
_TIANCHI_TYPES = {"1": "view", "2": "add_to_wishlist", "3": "add_to_cart", "4": "purchase"}


def _retailrocket(row: Sequence[str]) -> Event:
    time, visitor, event_type, product_id, order_id = row
    return Event(
        event_type=_RETAILROCKET_TYPES.get(event_type, event_type),
        anonymous_id=visitor,
        timestamp=in_utc(time),
        product_id=product_id,
        order_id=order_id or None,
    )


def _by_user(types: Mapping[str, str], row: Sequence[str]) -> Event:
    user_id, product_id, category, event_type, time, *_ = row
    return Event(
        event_type=types.get(event_type, event_type),
        user_id=user_id,
        timestamp=time,
        product_id=product_id,
        product_category=category or None,
    )


def otto_event(row: Sequence[str]) -> Event:
    """Return an event of OTTO's, whose sessions are a shopper's four weeks: a visitor rather than a visit."""
    session, product_id, time, event_type = row
    return Event(
        event_type=_OTTO_TYPES.get(event_type, event_type),
        anonymous_id=session,
        timestamp=in_utc(time),
        product_id=product_id,
    )


# A number from 13 is a brand, S is a special offer, and 0 is nothing; the rest is a category of the shop's.
_BRAND = re.compile(r"1[3-9]|[2-9]\d|\d{3,}", re.ASCII)


def _yoochoose_click(row: Sequence[str]) -> Event:
    session, time, product_id, shown_in = row
    is_brand = _BRAND.fullmatch(shown_in) is not None
    return Event(
        event_type="view",
        timestamp=in_utc(time),
        product_id=product_id,
        session_id=session,
        product_category=shown_in if not is_brand and shown_in not in ("", "0", "S") else None,
        brand=shown_in if is_brand else None,
        properties=texts(special_offer="true" if shown_in == "S" else ""),
    )


def _yoochoose_buy(row: Sequence[str]) -> Event:
    session, time, product_id, price, quantity = row
    return Event(
        event_type="purchase",
        timestamp=in_utc(time),
        product_id=product_id,
        session_id=session,
        # 0 is what is not known.
        price=number(price) if price.strip("0.") else None,
        quantity=number(quantity) if quantity.strip("0.") else None,
        # Its publisher has no orders: what a session bought is one.
        order_id=session,
    )


def _diginetica_view(row: Sequence[str]) -> Event:
    session, user_id, product_id, since_begin, day = row
    return Event(
        event_type="view",
        user_id=_user(user_id),
        timestamp=_within_session(day, since_begin),
        product_id=product_id,
        session_id=session,
    )


def _diginetica_purchase(row: Sequence[str]) -> Event:
    session, user_id, since_begin, day, order_id, product_id = row
    return Event(
        event_type="purchase",
        user_id=_user(user_id),
        timestamp=_within_session(day, since_begin),
        product_id=product_id,
        session_id=session,
        order_id=order_id or session,
    )


def _user(text: str) -> str | None:
    return text.removesuffix(".0") or None


def _within_session(day: str, since_begin: str) -> str:
    """Return a time of the day: milliseconds since the session began are all that is known of it."""
    try:
        moment = datetime.combine(date.fromisoformat(day[:10]), datetime.min.time()) + timedelta(
            milliseconds=float(since_begin)
        )
    except (ValueError, OverflowError) as error:
        raise SkippedRow(MALFORMED_ROW, f"{day!r} and {since_begin!r}: {error}") from None
    return moment.isoformat()


_MILLISECONDS = r"\d{13}(\.0)?"
_ISO_TIME = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?"
_ID = r"\d+"
_DAY = r"\d{4}-\d\d-\d\d"
_USER = r"(\d+(\.0)?)?"

RETAILROCKET = Kind(
    "RetailRocket",
    (
        column("timestamp", _MILLISECONDS),
        column("visitorid", _ID),
        column("event", r"view|addtocart|transaction"),
        column("itemid", _ID),
        column("transactionid", r"(\d+(\.0)?)?", optional=True),
    ),
    same_for_all(_retailrocket),
)
OTTO_TABLE = Kind(
    "OTTO",
    (
        column("session", _ID),
        column("aid", _ID),
        column("ts", r"\d{10}(\d{3})?"),
        column("type", r"clicks|carts|orders"),
    ),
    same_for_all(otto_event),
    is_exact=True,
)
TAOBAO = Kind(
    "Taobao UserBehavior",
    (
        column("user_id|user", _ID),
        column("item_id|item", _ID),
        column("category_id|item_category|category|cat_id", _ID),
        column("behavior_type|behavior|behaviour_type|type", r"pv|cart|fav|buy"),
        column("timestamp|time|ts|time_stamp|datetime", r"-?\d+"),
        # Of the app's file, which is not read.
        column("user_geohash", "", optional=True),
    ),
    same_for_all(partial(_by_user, {**_TAOBAO_TYPES, **_TIANCHI_TYPES})),
    is_exact=True,
)
YOOCHOOSE_CLICKS = Kind(
    "YOOCHOOSE clicks",
    (
        column("session_id|session", _ID),
        column("timestamp|time", _ISO_TIME),
        column("item_id|item", _ID),
        column("category", r"S|([a-z]+_)?\d+"),
    ),
    same_for_all(_yoochoose_click),
    is_exact=True,
)
YOOCHOOSE_BUYS = Kind(
    "YOOCHOOSE buys",
    (
        column("session_id|session", _ID),
        column("timestamp|time", _ISO_TIME),
        column("item_id|item", _ID),
        column("price", r"\d+(\.\d+)?"),
        column("quantity|qty", r"\d+"),
    ),
    same_for_all(_yoochoose_buy),
    is_exact=True,
)
DIGINETICA_VIEWS = Kind(
    "Diginetica item views",
    (
        column("sessionId", _ID),
        column("userId", _USER),
        column("itemId", _ID),
        column("timeframe", _ID),
        column("eventdate", _DAY),
    ),
    same_for_all(_diginetica_view),
)
DIGINETICA_PURCHASES = Kind(
    "Diginetica purchases",
    (
        column("sessionId", _ID),
        column("userId", _USER),
        column("timeframe", _ID),
        column("eventdate", _DAY),
        column("ordernumber", r"\d*"),
        column("itemId", _ID),
    ),
    same_for_all(_diginetica_purchase),
)
