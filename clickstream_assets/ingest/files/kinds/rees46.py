"""REES46's months of multi-category and cosmetics shops, as on Kaggle; times are UTC's."""

from __future__ import annotations

from collections.abc import Sequence

from clickstream_assets.ingest.files.kinds.kind import Event, Kind, column, in_utc, number, same_for_all


def _event(row: Sequence[str]) -> Event:
    time, event_type, product_id, category_id, category_code, brand, price, user_id, session_id = row
    return Event(
        event_type=event_type,
        user_id=user_id,
        # "2019-10-01 00:00:00 UTC", first of all: it is much the most frequent.
        timestamp=f"{time[:10]}T{time[11:19]}Z"
        if time.endswith(" UTC") and len(time) == 23
        else in_utc(time),
        product_id=product_id,
        session_id=session_id or None,
        product_category=category_code or None,
        brand=brand or None,
        price=number(price),
        properties={"category_id": category_id} if category_id else None,
    )


REES46 = Kind(
    "REES46",
    (
        column("event_time", r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d.*"),
        column("event_type", r"view|cart|remove_from_cart|purchase"),
        column("product_id", r"\d+"),
        column("category_id", r"\d*"),
        column("category_code", r"[\w.-]*", optional=True, text=True),
        column("brand", r".*", optional=True, text=True),
        column("price", r"-?[\d.]*"),
        column("user_id", r"\d+"),
        column("user_session", r"[\w-]*", optional=True),
    ),
    same_for_all(_event),
)
