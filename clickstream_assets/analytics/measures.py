"""The measures that tables have in common, as columns of EVENTS rows: counts by type, amounts, revenue."""

from __future__ import annotations

from types import ModuleType
from typing import Any

MONEY = "decimal(18,4)"


def count_of(F: ModuleType, event_type: str) -> Any:
    """Aggregate: how many of the events are of a type."""
    return F.sum(F.when(F.col("event_type") == event_type, F.lit(1)).otherwise(F.lit(0))).cast("long")


def amount(F: ModuleType) -> Any:
    """Column: price times quantity; null without a price, and no quantity is one."""
    return (F.col("price") * F.coalesce(F.col("quantity"), F.lit(1))).cast(MONEY)


def revenue(F: ModuleType) -> Any:
    """Aggregate: sum of the purchases' amounts; 0 where there is none."""
    paid = F.when(F.col("event_type") == "purchase", amount(F))
    return F.coalesce(F.sum(paid), F.lit(0).cast(MONEY)).cast(MONEY)
