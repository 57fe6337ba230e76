"""Records that real shops' senders write, and the right values in every table, counted by hand.

Each case has days, persons, orders and products of its own, so that one run shows them all: in the batch on both
engines (`defs/test_cases.py`), and in the streams (`streaming/test_cases.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from clickstream_assets.catalogue import (
    CAMPAIGN_ATTRIBUTION,
    CARTS,
    CATEGORY_CONVERSION,
    CUSTOMER_SEGMENTS,
    DAILY_REPORT,
    DAILY_SUMMARY,
    EVENTS,
    FUNNEL,
    INTERACTIONS,
    PRODUCT_PERFORMANCE,
    SESSIONS,
    SHOPPER_EVENTS,
    USER_SEGMENTS,
    Table,
)

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """Records, and what they have to come to.

    Attributes:
        name: what they are.
        days: of May 2024, the first and the last.
        values: the records, in the order that they are sent in.
        outcomes: how many items of them are events, repetitions (by reason) or rejected (by rule).
        tables: rows of the case's days and persons, in the order of the table's key or of time, by some columns.
        windows: per product its views, additions to carts, purchases and all its events, as the stream counts them.
    """

    name: str
    days: tuple[int, int]
    values: Sequence[bytes]
    outcomes: Mapping[str, int]
    tables: Mapping[Table, Rows]
    windows: Mapping[str, tuple[int, int, int, int]] = field(default_factory=dict)

    def has_day(self, day: date) -> bool:
        """Return whether a day is one of the case's."""
        return self.days[0] <= day.day <= self.days[1]


def columns(names: str, *rows: Sequence[Any]) -> Rows:
    """Rows of the columns that `names` lists."""
    return [dict(zip(names.split(), row, strict=True)) for row in rows]


def sent(kind: str, moment: str, **more: Any) -> dict[str, Any]:
    """Return an event; `moment` is like `02 10:00:30`, in May 2024 and UTC."""
    return {"event_type": kind, "timestamp": f"2024-05-{moment.replace(' ', 'T')}Z", **more}


def lines(events: Iterable[dict[str, Any]]) -> list[bytes]:
    """Events as records."""
    return [json.dumps(event).encode() for event in events]


def _numbered(prefix: str, *events: dict[str, Any]) -> list[bytes]:
    """Events with an id each, as records."""
    return lines({"event_id": f"{prefix}{number}", **event} for number, event in enumerate(events))


MONEY = "revenue refunds net_revenue"
DAY = "orders revenue refunds net_revenue"
CUSTOMER = "user_id frequency monetary refunds net_monetary"
STEPS = "step users"


def _funnel(*users: int) -> Rows:
    """The funnel of all viewers of a day, in the order of the table's key."""
    view, add_to_cart, purchase = users
    return columns(STEPS, ("add_to_cart", add_to_cart), ("purchase", purchase), ("view", view))


_LAMP = {"product_id": "lamp", "price": "59.90", "currency": "EUR"}
A_LINE_PER_UNIT = Case(
    "an order of three units in a record each, all of one moment",
    (1, 1),
    _numbered(
        "units",
        *(
            sent("purchase", "01 12:00:00", user_id="c1", **_LAMP, order_id="u1", order_item_id=unit)
            for unit in (1, 2, 3)
        ),
        sent("purchase", "01 12:05:00", user_id="c2", **_LAMP, order_id="u2", order_item_id=1),
    ),
    {"events": 4},
    {
        SESSIONS: columns("total_events purchases revenue", (3, 3, "179.70"), (1, 1, "59.90")),
        PRODUCT_PERFORMANCE: columns(
            "product_id purchases quantity revenue buyers", ("lamp", 4, 4, "239.60", 2)
        ),
        CATEGORY_CONVERSION: columns("category purchases revenue", ("unknown", 4, "239.60")),
        DAILY_SUMMARY: columns(
            "orders purchases buyer_count revenue average_order_value", (2, 4, 2, "239.60", "119.80")
        ),
        CUSTOMER_SEGMENTS: columns(
            CUSTOMER, ("c1", 1, "179.70", 0, "179.70"), ("c2", 1, "59.90", 0, "59.90")
        ),
        DAILY_REPORT: columns(MONEY, (239.6, 0.0, 239.6)),
    },
    {"lamp": (0, 0, 4, 4)},
)

_TAGGED = {"product_id": "G2", "price": 30.5, "quantity": 1, "order_id": "(not set)"}
ORDERS_WITHOUT_AN_ID = Case(
    "five buyers of whom the tag sends a placeholder for the order",
    (2, 2),
    _numbered(
        "notset",
        *(sent("purchase", f"02 10:0{n}:00", user_id=f"visitor-{n}", **_TAGGED) for n in range(5)),
    ),
    {"events": 5},
    {
        EVENTS: columns("order_id user_id", *((None, f"visitor-{n}") for n in range(5))),
        PRODUCT_PERFORMANCE: columns(
            "product_id purchases quantity revenue buyers", ("G2", 5, 5, "152.50", 5)
        ),
        DAILY_SUMMARY: columns("orders buyer_count sessions revenue", (5, 5, 5, "152.50")),
        USER_SEGMENTS: columns("user_id segment", *((f"visitor-{n}", "buyer") for n in range(5))),
        CUSTOMER_SEGMENTS: columns(CUSTOMER, *((f"visitor-{n}", 1, "30.50", 0, "30.50") for n in range(5))),
    },
    {"G2": (0, 0, 5, 5)},
)


def _visit(day: str, product: str, visitor: dict[str, Any], buyer: dict[str, Any]) -> list[bytes]:
    of_product = {"session_id": f"s{day}", "product_id": product, "price": 12.5}
    return _numbered(
        f"login{day}-",
        sent("view", f"{day} 10:00:00", **visitor, **of_product, campaign="spring"),
        sent("add_to_cart", f"{day} 10:01:00", **visitor, **of_product, quantity=2),
        sent("purchase", f"{day} 10:05:00", **buyer, **of_product, quantity=2, order_id=f"O-{day}"),
    )


A_LOGIN_UNDER_ANOTHER_USER = Case(
    "a visit whose sender writes the visitor's id as a user's: two persons",
    (3, 3),
    _visit("03", "P-3", {"user_id": "anon-7c1"}, {"user_id": "u-54"}),
    {"events": 3},
    {
        DAILY_SUMMARY: columns("users sessions buyer_count orders revenue", (2, 2, 1, 1, 25)),
        CARTS: columns("user_id state value", ("anon-7c1", "abandoned", 25)),
        FUNNEL: _funnel(1, 1, 0),
    },
    {"P-3": (1, 1, 1, 3)},
)
A_LOGIN_IN_THE_MIDDLE = Case(
    "a visit with a login in the middle, by an anonymous id",
    (4, 4),
    _visit("04", "P-4", {"anonymous_id": "7c1"}, {"anonymous_id": "7c1", "user_id": "u-55"}),
    {"events": 3},
    {
        SHOPPER_EVENTS: columns("user_id", *[("u-55",)] * 3),
        SESSIONS: columns(
            "user_id total_events furthest_step revenue campaign client_session_ids",
            ("u-55", 3, "purchase", 25, "spring", ["s04"]),
        ),
        CARTS: columns("user_id state value quantity order_id", ("u-55", "converted", 25, 2, "O-04")),
        FUNNEL: _funnel(1, 1, 1),
        USER_SEGMENTS: columns("user_id segment events", ("u-55", "buyer", 3)),
        DAILY_SUMMARY: columns(
            "users sessions buyer_count orders revenue conversion_rate", (1, 1, 1, 1, 25, 100)
        ),
        CUSTOMER_SEGMENTS: columns(CUSTOMER, ("u-55", 1, 25, 0, 25)),
        CAMPAIGN_ATTRIBUTION: columns(
            "model campaign orders revenue",
            *((model, "spring", 1, 25) for model in ("first_touch", "last_touch", "linear")),
        ),
        INTERACTIONS: columns("user_id product_id views add_to_carts purchases", ("u-55", "P-4", 1, 1, 1)),
    },
    {"P-4": (1, 1, 1, 3)},
)

TWO_CURRENCIES = Case(
    "a purchase in the shop's currency and one in another, which has no rate",
    (5, 5),
    _numbered(
        "fx",
        sent(
            "purchase", "05 10:00:00", user_id="a", product_id="P-5", price=100, currency="EUR", order_id="1"
        ),
        sent(
            "purchase", "05 10:01:00", user_id="b", product_id="P-5", price=1e4, currency="jpy", order_id="2"
        ),
        sent("view", "05 10:00:30", user_id="b", product_id="P-5"),
    ),
    {"events": 3},
    {
        SHOPPER_EVENTS: columns(
            "price currency sent_price sent_currency",
            *((100, "EUR", 100, "EUR"), (None, None, 10_000, "JPY"), (None, None, None, None)),
        ),
        PRODUCT_PERFORMANCE: columns("product_id purchases quantity revenue", ("P-5", 2, 2, 100)),
        CATEGORY_CONVERSION: columns("category purchases revenue", ("unknown", 2, 100)),
        DAILY_SUMMARY: columns(
            "orders revenue currency currencies unconverted", (2, 100, "EUR", ["EUR", "JPY"], 1)
        ),
        USER_SEGMENTS: columns("user_id segment revenue", ("a", "buyer", 100), ("b", "buyer", 0)),
        CUSTOMER_SEGMENTS: columns(CUSTOMER, ("a", 1, 100, 0, 100), ("b", 1, 0, 0, 0)),
        DAILY_REPORT: columns(f"{MONEY} unconverted", (100.0, 0.0, 100.0, 1)),
    },
    {"P-5": (1, 0, 2, 3)},
)

WHOLE_NUMBERS_WITH_A_FRACTION = Case(
    "the same shopper and product as 17850 and as 17850.0",
    (6, 6),
    lines(
        [
            sent("view", "06 10:00:00", user_id=17850, product_id=1001),
            sent("purchase", "06 10:01:00", user_id=17850.0, product_id=1001.0, price=5, order_id="1"),
        ]
    ),
    {"events": 2},
    {
        SESSIONS: columns("user_id total_events distinct_products revenue", ("17850", 2, 1, 5)),
        PRODUCT_PERFORMANCE: columns("product_id view_count purchases users", ("1001", 1, 1, 1)),
        DAILY_SUMMARY: columns("users buyer_count views purchases", (1, 1, 1, 1)),
        INTERACTIONS: columns("user_id product_id views purchases", ("17850", "1001", 1, 1)),
    },
    {"1001": (1, 0, 1, 2)},
)

_RETURNED = {"user_id": "r1", "product_id": "P-7", "order_id": "R1"}
ONE_RETURN_IN_THREE_SPELLINGS = Case(
    "three units of which one is sent back, written as a negative quantity, a refund and a negative price",
    (7, 9),
    lines(
        [
            sent("purchase", "07 10:00:00", **_RETURNED, price=20, quantity=3),
            sent("purchase", "09 10:00:00", **_RETURNED, price=20, quantity=-1),
            sent("refund", "09 10:00:00", **_RETURNED, price=20, quantity=1),
            sent("purchase", "09 10:00:00", **_RETURNED, price=-20, quantity=1),
        ]
    ),
    {"events": 2, "same_event": 2},
    {
        SESSIONS: columns("purchases refund_count revenue", (1, 0, 60), (0, 1, 0)),
        PRODUCT_PERFORMANCE: columns(f"quantity purchases {MONEY}", (3, 1, 60, 0, 60), (0, 0, 0, 20, -20)),
        CATEGORY_CONVERSION: columns(MONEY, (60, 0, 60), (0, 20, -20)),
        DAILY_SUMMARY: columns(f"buyer_count {DAY}", (1, 1, 60, 0, 60), (0, 0, 0, 20, -20)),
        CUSTOMER_SEGMENTS: columns(CUSTOMER, *[("r1", 1, 60, 0, 60)] * 2, ("r1", 1, 60, 20, 40)),
        # The day between has a report too.
        DAILY_REPORT: columns(MONEY, (60.0, 0.0, 60.0), (0, 0, 0), (0.0, 20.0, -20.0)),
    },
    {"P-7": (0, 0, 1, 2)},
)

VISITORS_WITHOUT_A_USER = Case(
    "a visitor with a session's id alone, and one with an anonymous id",
    (10, 10),
    lines(
        [
            sent("view", "10 10:00:00", session_id="s-1", product_id="P-10"),
            sent("view", "10 10:00:01", anonymous_id="a-1", user_id=None, product_id="P-10"),
        ]
    ),
    {"events": 2},
    {
        USER_SEGMENTS: columns("user_id events", ("anonymous:a-1", 1), ("session:s-1", 1)),
        PRODUCT_PERFORMANCE: columns("product_id view_count users", ("P-10", 2, 2)),
        DAILY_SUMMARY: columns("users sessions views", (2, 2, 2)),
        FUNNEL: _funnel(2, 0, 0),
    },
    {"P-10": (2, 0, 0, 2)},
)

SEVERAL_PRODUCTS_IN_A_RECORD = Case(
    "an order of two products in one record",
    (11, 11),
    lines(
        [
            sent("purchase", "11 10:00:00", user_id="k1", order_id="A1", currency="EUR")
            | {
                "items": [
                    {"product_id": "P-11a", "price": 5, "quantity": 2},
                    {"product_id": "P-11b", "price": 7, "quantity": 1},
                ]
            }
        ]
    ),
    {"events": 2},
    {
        EVENTS: columns("item items order_id", (1, 2, "A1"), (2, 2, "A1")),
        SESSIONS: columns("user_id total_events purchases revenue", ("k1", 2, 2, 17)),
        PRODUCT_PERFORMANCE: columns(
            "product_id purchases quantity revenue", ("P-11a", 1, 2, 10), ("P-11b", 1, 1, 7)
        ),
        DAILY_SUMMARY: columns("orders purchases revenue", (1, 2, 17)),
        CUSTOMER_SEGMENTS: columns(CUSTOMER, ("k1", 1, 17, 0, 17)),
    },
    {"P-11a": (0, 0, 1, 1), "P-11b": (0, 0, 1, 1)},
)

FAVOURITES_AND_LISTS = Case(
    "wish lists, impressions, a page and a checkout, none of which is a view of a product",
    (12, 12),
    lines(
        sent(kind, f"12 10:00:0{second}", user_id="k2", product_id="P-12")
        for second, kind in enumerate(
            ("fav", "wishlist", "add_to_wishlist", "impression", "view_item_list", "page_view", "checkout")
        )
    ),
    {"events": 7},
    {
        SESSIONS: columns(
            "total_events views add_to_wishlists impressions page_views begin_checkouts furthest_step",
            (7, 0, 3, 2, 1, 1, "none"),
        ),
        PRODUCT_PERFORMANCE: columns("product_id view_count purchases users", ("P-12", 0, 0, 1)),
        CATEGORY_CONVERSION: [],
        DAILY_SUMMARY: columns("total_events views sessions bounced_sessions", (7, 0, 1, 0)),
        FUNNEL: [],
    },
    {"P-12": (0, 0, 0, 7)},
)

_SKU = {"product_id": "sku-1", "price": 19.99, "quantity": 1, "currency": "EUR"}
REUSED_ORDER_IDS = Case(
    "placeholders for orders on several days, and an order id that two shoppers have",
    (13, 17),
    _numbered(
        "buy-",
        *(
            sent("purchase", f"{day} {hour}:00:00", user_id=user, order_id=order, **_SKU)
            for day, hour, user, order in (
                ("13", "01", "anna", "undefined"),
                ("14", "02", "ben", "undefined"),
                ("15", "03", "carla", "undefined"),
                ("16", "04", "dan", "undefined"),
                ("13", "01", "anna", "0"),
                ("14", "02", "ben", "0"),
                ("13", "01", "anna", "1001"),
                ("17", "04", "ben", "1001"),
                # Two units of one moment.
                ("13", "05", "eve", "ord-1"),
                ("13", "05", "eve", "ord-1"),
            )
        ),
    ),
    {"events": 10},
    {
        PRODUCT_PERFORMANCE: columns(
            "purchases revenue",
            *((5, "99.95"), (2, "39.98"), (1, "19.99"), (1, "19.99"), (1, "19.99")),
        ),
        # Purchases of one minute without an order id are one order.
        DAILY_SUMMARY: columns(
            "orders buyer_count revenue",
            *((3, 2, "99.95"), (1, 1, "39.98"), (1, 1, "19.99"), (1, 1, "19.99"), (1, 1, "19.99")),
        ),
    },
    {"sku-1": (0, 0, 10, 10)},
)

_TWICE = {"user_id": "eve2", "product_id": "sku-2", "price": 19.99, "currency": "EUR", "order_id": "ord-9"}
A_PAGE_LOADED_AGAIN = Case(
    "two units of one moment, and the thank-you page of the order loaded again",
    (18, 18),
    _numbered(
        "page",
        *(sent("purchase", f"18 05:0{minute}:00", **_TWICE) for minute in (0, 0, 5, 5)),
    ),
    {"events": 2, "same_order_line": 2},
    {
        PRODUCT_PERFORMANCE: columns("product_id purchases revenue", ("sku-2", 2, "39.98")),
        DAILY_SUMMARY: columns("orders purchases revenue", (1, 2, "39.98")),
    },
    {"sku-2": (0, 0, 2, 2)},
)


def _unnamed() -> Iterable[dict[str, Any]]:
    """130 visits of a day, 40 with a purchase; a visitor each ten minutes of the next; 24 in two hours of the third."""
    of = {"product_id": "P-19", "price": 10}
    moments = [
        *(("19", 10 * 60 + number) for number in range(120)),
        *(("20", 10 * number) for number in range(144)),
        *(("21", 5 * number) for number in range(24)),
    ]
    for number, (day, minute) in enumerate(moments):
        who = {"user_id": "undefined", "session_id": f"visit-{number}", **of}
        moment = f"{day} {minute // 60:02}:{minute % 60:02}"
        yield sent("view", f"{moment}:00", **who)
        if number % 4 == 0 and day != "20":
            yield sent("purchase", f"{moment}:30", **who)
    for number in range(10):
        known = {"user_id": f"known-{number}", "session_id": f"known-{number}", **of}
        yield sent("view", f"19 09:{number:02}:00", **known)
        yield sent("purchase", f"19 09:{number:02}:30", **known)


VISITORS_CALLED_UNDEFINED = Case(
    "hundreds of visitors under the user id undefined, each with a session of their own",
    (19, 21),
    _numbered("unnamed", *_unnamed()),
    {"events": 344},
    {
        DAILY_SUMMARY: columns(
            "total_events sessions users buyer_count orders revenue bot_events",
            (170, 130, 130, 40, 40, 400, 0),
            (144, 144, 144, 0, 0, 0, 0),
            (30, 24, 24, 6, 6, 60, 0),
        ),
    },
    {"P-19": (298, 0, 46, 344)},
)

EVENT_IDS_CALLED_UNDEFINED = Case(
    "views of a hundred users, all with the event id undefined",
    (22, 22),
    lines(
        sent("view", "22 10:00:00", event_id="undefined", user_id=f"v{number}", product_id="P-22")
        for number in range(100)
    ),
    {"events": 100},
    {
        PRODUCT_PERFORMANCE: columns("product_id view_count users", ("P-22", 100, 100)),
        DAILY_SUMMARY: columns("total_events views users", (100, 100, 100)),
    },
    {"P-22": (100, 0, 0, 100)},
)

ONE_PERSON_IN_SEVEN_SPELLINGS = Case(
    "one person's id by seven senders",
    (23, 23),
    [
        b'{"event_type": "view", "timestamp": "2024-05-23T10:00:0%dZ", "product_id": "P-23", "user_id": %s}'
        % (second, user)
        for second, user in enumerate(
            (b"12345", b"12345.0", b'"12345"', b"1.2345e4", b'"12345 "', b'" 12345"', rb'"12345\n"')
        )
    ],
    {"events": 7},
    {
        USER_SEGMENTS: columns("user_id events", ("12345", 7)),
        SESSIONS: columns("user_id total_events", ("12345", 7)),
        DAILY_SUMMARY: columns("users sessions", (1, 1)),
    },
    {"P-23": (7, 0, 0, 7)},
)


def _noted(*problem: str) -> Rows:
    return columns("field rule value", problem)


def _beside(more: bytes) -> bytes:
    return (
        b'{"event_type":"view","user_id":"u24","product_id":"P-24","timestamp":"2024-05-24T10:00:00Z",'
        + more
        + b"}"
    )


NUMBERS_AND_DEPTHS_WITHOUT_BOUNDS = Case(
    "numbers that no program reads, and a thousand levels, between two events",
    (24, 24),
    [
        _beside(b'"event_id":"g0"'),
        _beside(b'"event_id":"g2","price":1e99999999999999999999'),
        _beside(b'"event_id":"g3","price":' + b"1" * 5000),
        *(_beside(b'"price":' + b"[" * levels + b"]" * levels) for levels in (940, 999)),
        _beside(b'"properties":' + b'{"a":' * 960 + b"1" + b"}" * 960),
        _beside(b'"event_id":"g1"'),
    ],
    {"events": 4, "not_json": 3},
    {
        EVENTS: columns(
            "event_id field_problems",
            *(("g0", None), ("g1", None)),
            ("g2", _noted("price", "number_out_of_range", "1e99999999999999999999")),
            ("g3", _noted("price", "number_out_of_range", "1" * 200)),
        ),
        SHOPPER_EVENTS: columns("event_id price", *((f"g{number}", None) for number in range(4))),
        DAILY_SUMMARY: columns("total_events users", (4, 1)),
    },
    {"P-24": (4, 0, 0, 4)},
)

_KILOS = {"user_id": "r2", "product_id": "P-25", "price": 4, "order_id": "R2"}
A_RETURN_BEFORE_ITS_PURCHASE = Case(
    "a refund of a part of a line, by the sender's clock a day before the purchase",
    (25, 26),
    _numbered(
        "early",
        sent("purchase", "26 10:00:00", **_KILOS, quantity=2.5),
        sent("purchase", "25 10:00:00", **_KILOS, quantity="-0.75"),
    ),
    {"events": 2},
    {
        EVENTS: columns("event_type price quantity", ("refund", 4, "0.75"), ("purchase", 4, "2.5")),
        PRODUCT_PERFORMANCE: columns(f"quantity {MONEY}", (0, 0, 3, -3), ("2.5", 10, 0, 10)),
        DAILY_SUMMARY: columns(DAY, (0, 0, 3, -3), (1, 10, 0, 10)),
        CUSTOMER_SEGMENTS: columns(CUSTOMER, ("r2", 1, 10, 3, 7)),
    },
    {"P-25": (0, 0, 1, 2)},
)

_ITEM = {"product_id": "P-27", "price": 5}
ITEMS_OF_ALL_SORTS = Case(
    "records with items that are none, that lack what the record says, that are text, and with no item",
    (27, 27),
    _numbered(
        "items",
        sent("purchase", "27 10:00:00", user_id="k3", order_id="A3", currency="EUR")
        | {"items": [_ITEM, None, {"price": 3}, {**_ITEM, "quantity": 0}, {**_ITEM, "currency": ""}]},
        sent("purchase", "27 11:00:00", user_id="k3", order_id="A4", items=json.dumps([_ITEM, _ITEM])),
        sent("page_view", "27 12:00:00", user_id="k3", items=[]),
        sent("purchase", "27 13:00:00", user_id="k3", items=[]),
    ),
    {"events": 5, "wrong_type": 1, "missing": 2, "out_of_range": 1},
    {
        EVENTS: columns(
            "event_id item items currency",
            *(("items0", 1, 5, "EUR"), ("items0/5", 5, 5, "EUR")),
            *(("items1", 1, 2, None), ("items1/2", 2, 2, None), ("items2", 1, 1, None)),
        ),
        PRODUCT_PERFORMANCE: columns("product_id purchases revenue", ("P-27", 4, 20)),
        DAILY_SUMMARY: columns("total_events orders revenue", (5, 2, 20)),
    },
    {"P-27": (0, 0, 4, 4)},
)

_SHARED = {"anonymous_id": "kitchen", "product_id": "P-28", "price": 8}
TWO_USERS_ON_ONE_DEVICE = Case(
    "two users who log in on one device in turn",
    (28, 28),
    _numbered(
        "device",
        sent("view", "28 09:55:00", **_SHARED),
        sent("identify", "28 10:00:00", anonymous_id="kitchen", user_id="ida"),
        sent("view", "28 10:05:00", **_SHARED),
        sent("identify", "28 10:10:00", anonymous_id="kitchen", user_id="jon"),
        sent("add_to_cart", "28 10:15:00", **_SHARED),
        sent("purchase", "28 10:20:00", **_SHARED, order_id="D1"),
        sent("view", "28 10:25:00", user_id="ida", **_SHARED),
        sent("view", "28 10:26:00", **_SHARED),
    ),
    {"events": 8},
    {
        USER_SEGMENTS: columns(
            "user_id segment events views", ("ida", "window_shopper", 5, 4), ("jon", "buyer", 3, 0)
        ),
        CARTS: columns("user_id state value", ("jon", "converted", 8)),
        DAILY_SUMMARY: columns("users sessions orders revenue", (2, 2, 1, 8)),
        FUNNEL: _funnel(1, 0, 0),
    },
    {"P-28": (4, 1, 1, 6)},
)

_SHOE = {"product_id": "P-29", "price": 80}
AN_ORDER_SEEN_AGAIN_BY_ANOTHER_ID = Case(
    "thank-you pages seen again after the login and on another device, and orders of others by their side",
    (29, 29),
    _numbered(
        "seen",
        sent("purchase", "29 09:00:00", anonymous_id="phone-29", **_SHOE, order_id="A"),
        sent("identify", "29 09:04:00", anonymous_id="phone-29", user_id="kai"),
        sent("purchase", "29 09:05:00", anonymous_id="phone-29", user_id="kai", **_SHOE, order_id="A"),
        sent("purchase", "29 09:10:00", anonymous_id="laptop-29", user_id="kai", **_SHOE, order_id="B"),
        sent("purchase", "29 09:15:00", anonymous_id="phone-29", user_id="kai", **_SHOE, order_id="B"),
        # Another user of the laptop; and another shop's customer, whose orders have the same ids.
        sent("purchase", "29 09:20:00", anonymous_id="laptop-29", user_id="lea", **_SHOE, order_id="C"),
        sent("purchase", "29 09:25:00", anonymous_id="phone-30", user_id="max", **_SHOE, order_id="A"),
    ),
    {"events": 5, "same_order_line": 2},
    {
        PRODUCT_PERFORMANCE: columns("product_id purchases revenue buyers", ("P-29", 4, 320, 3)),
        DAILY_SUMMARY: columns("orders purchases buyer_count revenue", (4, 4, 3, 320)),
        CUSTOMER_SEGMENTS: columns(
            CUSTOMER, ("kai", 2, 160, 0, 160), ("lea", 1, 80, 0, 80), ("max", 1, 80, 0, 80)
        ),
    },
    {"P-29": (0, 0, 4, 4)},
)

CASES = (
    A_LINE_PER_UNIT,
    ORDERS_WITHOUT_AN_ID,
    A_LOGIN_UNDER_ANOTHER_USER,
    A_LOGIN_IN_THE_MIDDLE,
    TWO_CURRENCIES,
    WHOLE_NUMBERS_WITH_A_FRACTION,
    ONE_RETURN_IN_THREE_SPELLINGS,
    VISITORS_WITHOUT_A_USER,
    SEVERAL_PRODUCTS_IN_A_RECORD,
    FAVOURITES_AND_LISTS,
    REUSED_ORDER_IDS,
    A_PAGE_LOADED_AGAIN,
    VISITORS_CALLED_UNDEFINED,
    EVENT_IDS_CALLED_UNDEFINED,
    ONE_PERSON_IN_SEVEN_SPELLINGS,
    NUMBERS_AND_DEPTHS_WITHOUT_BOUNDS,
    A_RETURN_BEFORE_ITS_PURCHASE,
    ITEMS_OF_ALL_SORTS,
    TWO_USERS_ON_ONE_DEVICE,
    AN_ORDER_SEEN_AGAIN_BY_ANOTHER_ID,
)
