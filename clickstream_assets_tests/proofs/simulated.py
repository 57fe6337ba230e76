"""The events of a simulated shop by plain SQL, with their persons."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def raw(file: Path) -> str:
    """Return a query of the events of a file of JSON lines: of each item of a record, and each by its person.

    The person is the user; or else the user of the anonymous id's latest login by then; or of its first, if that is at
    most 30 days later; or the visitor.
    """
    return f"""
        WITH records AS (
            SELECT *, row_number() OVER () AS record FROM read_json('{file}', format = 'newline_delimited', columns = {{
                event_id: 'VARCHAR', timestamp: 'TIMESTAMPTZ', event_type: 'VARCHAR', user_id: 'VARCHAR',
                anonymous_id: 'VARCHAR', session_id: 'VARCHAR', product_id: 'VARCHAR', product_category: 'VARCHAR',
                price: 'DECIMAL(18, 4)', currency: 'VARCHAR', quantity: 'BIGINT', order_id: 'VARCHAR',
                order_line: 'VARCHAR', campaign: 'VARCHAR', user_agent: 'VARCHAR', query: 'VARCHAR',
                brand: 'VARCHAR', product_name: 'VARCHAR', consent: 'BOOLEAN',
                items: 'STRUCT(product_id VARCHAR, product_category VARCHAR, price DECIMAL(18, 4), quantity BIGINT,
                    order_line VARCHAR, brand VARCHAR, product_name VARCHAR)[]'
            }})
        ),
        places AS (SELECT *, unnest(generate_series(1, greatest(len(coalesce(items, [])), 1))) AS place FROM records),
        sent AS (
            SELECT
                * EXCLUDE (product_id, product_category, price, quantity, order_line, event_id, brand, product_name),
                event_id || CASE WHEN place > 1 THEN '/' || place ELSE '' END AS event_id,
                coalesce(items[place].product_id, product_id) AS product_id,
                coalesce(items[place].product_category, product_category) AS product_category,
                coalesce(items[place].price, price) AS price,
                coalesce(items[place].quantity, quantity) AS quantity,
                coalesce(items[place].order_line, order_line) AS order_line,
                coalesce(items[place].brand, brand) AS brand,
                coalesce(items[place].product_name, product_name) AS product_name
            FROM places
        ),
        logins AS (
            SELECT anonymous_id, user_id, min(timestamp) AS tied_at FROM records
            WHERE anonymous_id IS NOT NULL AND user_id IS NOT NULL
            GROUP BY anonymous_id, user_id, timestamp
        ),
        first_logins AS (
            SELECT anonymous_id, arg_min(user_id, tied_at) AS first_user, min(tied_at) AS first_at
            FROM logins GROUP BY anonymous_id
            HAVING count(DISTINCT user_id) <= 10
        )
        SELECT
            event_id,
            event_id AS payload,
            timestamp AS event_time,
            CASE
                WHEN event_type = 'purchase' AND price * coalesce(quantity, 1) < 0 THEN 'refund'
                ELSE event_type
            END AS event_type,
            coalesce(
                sent.user_id,
                CASE WHEN first_at <= timestamp THEN logins.user_id END,
                CASE WHEN first_at - INTERVAL 720 HOURS <= timestamp THEN first_user END,
                'anonymous:' || sent.anonymous_id
            ) AS user_id,
            sent.user_id AS sent_user_id,
            sent.anonymous_id,
            session_id AS client_session_id,
            product_id,
            product_category,
            abs(price) AS price,
            currency,
            abs(quantity) AS quantity,
            order_id,
            order_line,
            campaign,
            user_agent,
            query,
            brand,
            product_name,
            consent
        FROM sent
        LEFT JOIN first_logins USING (anonymous_id)
        ASOF LEFT JOIN logins ON sent.anonymous_id = logins.anonymous_id AND sent.timestamp >= logins.tied_at
        ORDER BY record, place
    """


TYPES = (
    *("view", "click", "add_to_cart", "remove_from_cart", "purchase", "search", "page_view", "impression"),
    *("add_to_wishlist", "begin_checkout", "refund", "identify", "custom"),
)
OF_NO_PRODUCT = ("search", "page_view", "identify", "custom", "begin_checkout")
"""Types of events that need no product."""


def valid(values: Iterable[bytes], since: datetime) -> Iterator[bytes]:
    """Yield what of a simulated shop's records is no broken one: JSON objects with all that an event needs.

    Args:
        values: the records.
        since: the begin of the first day that the shop knows.
    """
    for value in values:
        try:
            event: Any = json.loads(value.decode())
            at = datetime.fromisoformat(event["timestamp"])
        except (ValueError, TypeError, KeyError):
            # UnicodeDecodeError is a ValueError; a list has no names.
            continue
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        is_anybodys = any(event.get(name) for name in ("user_id", "anonymous_id", "session_id"))
        is_of_product = isinstance(event.get("product_id") or event.get("items") or None, str | list)
        needs_product = event.get("event_type") not in OF_NO_PRODUCT
        if (
            event.get("event_type") in TYPES
            and is_anybodys
            and at >= since
            and (is_of_product or not needs_product)
        ):
            yield value
