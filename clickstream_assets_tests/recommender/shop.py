"""Events and interactions to test on: written out by hand, at random, and with planted taste."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from clickstream_assets.analytics.consent import consent_days, profiled
from clickstream_assets.catalogue import EVENTS, INTERACTIONS
from clickstream_assets.engine import DataFrame, Engine
from clickstream_assets.recommender.interactions import interaction_days, interactions, split_by_time
from clickstream_assets.recommender.parameters import Parameters

PARAMETERS = Parameters(factors=8, iterations=10, regularization=0.1, alpha=5.0, seed=42)
START = datetime(2026, 3, 1, 9, tzinfo=UTC)


def event(
    user: str | None, product: str | None, kind: str = "view", at: float = 0, **fields: Any
) -> dict[str, Any]:
    """An event `at` seconds after START, with what these tests look at."""
    time = START + timedelta(seconds=at)
    return {
        "user_id": user,
        "product_id": product,
        "event_type": kind,
        "event_time": time,
        "event_date": time.date(),
        "is_bot": False,
        **fields,
    }


def events_table(*events: dict[str, Any]) -> pa.Table:
    """EVENTS rows; what is not given is null."""
    schema = pa.schema([field.with_nullable(True) for field in EVENTS.arrow])
    return pa.Table.from_pylist(list(events), schema=schema)


def random_events(count: int = 3000, seed: int = 7, hours: int = 1) -> pa.Table:
    """Events of 80 users and 40 products within some hours, in no order, with many repetitions."""
    random = np.random.default_rng(seed)
    kinds = random.choice(["view", "click", "add_to_cart", "purchase", "search", "remove_from_cart"], count)
    return events_table(
        *(
            event(
                f"u{random.integers(80)}",
                None if kind == "search" else f"p{min(random.geometric(0.1), 40)}",
                kind,
                at=int(random.integers(7200 * hours)) / 2,
                # Seldom a no: a shopper's latest statement decides for all of their events.
                consent=[None, None, *[True] * 8, False][random.integers(11)],
                product_category=[None, "toys", "books"][random.integers(3)],
            )
            for kind in kinds.tolist()
        )
    )


def days_of(events: DataFrame) -> DataFrame:
    """The sums of the events' days, of the shoppers who may be profiled."""
    return profiled(interaction_days(events), consent_days(events))


def interactions_in(events: DataFrame) -> DataFrame:
    """What the events add up to."""
    return interactions(days_of(events))


def split(engine: Engine, events: DataFrame, test_fraction: float) -> tuple[DataFrame, DataFrame]:
    """The sums of the events' days, cut at the moment of the test fraction."""
    return split_by_time(engine, days_of(events), profiled(events, consent_days(events)), test_fraction)


def met(user: str, product: str, strength: float = 1.0, **counts: int) -> dict[str, Any]:
    """An interaction; without counts it is one view."""
    return {
        "user_id": user,
        "product_id": product,
        "strength": strength,
        "views": counts.get("views", 0 if counts else 1),
        "add_to_carts": counts.get("add_to_carts", 0),
        "purchases": counts.get("purchases", 0),
        "first_time": START,
        "last_time": START,
        "purchase_days": min(1, counts.get("purchases", 0)),
        "first_purchase": START if counts.get("purchases") else None,
        "last_purchase": START if counts.get("purchases") else None,
    }


def interactions_table(*interactions: dict[str, Any]) -> pa.Table:
    """INTERACTIONS rows."""
    return pa.Table.from_pylist(list(interactions), schema=INTERACTIONS.arrow)


def planted_taste(users: int = 80, products: int = 60, seed: int = 5) -> tuple[pa.Table, pa.Table]:
    """Train and test interactions of two kinds of shoppers, each with their own half of the products.

    A shopper has met twelve of their half and one of the other, and will meet four more of their half.
    """
    random = np.random.default_rng(seed)
    halves = np.array_split(np.arange(products), 2)
    train, test = [], []
    for user in range(users):
        own, other = halves[user % 2], halves[1 - user % 2]
        chosen = random.choice(own, 16, replace=False)
        train += [met(f"u{user}", f"p{product}") for product in (*chosen[:12], random.choice(other))]
        test += [met(f"u{user}", f"p{product}") for product in chosen[12:]]
    return interactions_table(*train), interactions_table(*test)


def kind_of(product_id: str, products: int = 60) -> int:
    """The half of `planted_taste` that a product is in: 0 or 1."""
    return int(int(product_id.removeprefix("p")) >= products // 2)


def rows(table: pa.Table, *order: str) -> list[dict[str, Any]]:
    """Rows in the order of these columns."""
    return table.sort_by([(name, "ascending") for name in order]).to_pylist()
