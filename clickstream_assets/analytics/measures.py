"""The measures that tables have in common, as columns of EVENTS rows: counts by type, amounts, revenue."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from clickstream_assets.catalogue import EVENT_COUNTS, Table
from clickstream_assets.catalogue.units import MINUTE
from clickstream_assets.engine import DataFrame, functions_of, number_of_hex

MONEY = "decimal(18,4)"
MONEY_SUM = "decimal(28,4)"
UNITS_SUM = "decimal(32,0)"
"""The same in whole units, of which MONEY_UNITS are one."""


def rows_of(table: Table, df: DataFrame, computed: Mapping[str, Any]) -> DataFrame:
    """Return a table's rows: its columns in order, those of `computed` as given there, the others from `df`."""
    F, _ = functions_of(df)
    return df.select(
        *(computed[name].alias(name) if name in computed else F.col(name) for name in table.column_names)
    )


def count(F: ModuleType) -> Any:
    """Aggregate: the number of rows."""
    return F.count(F.lit(1)).cast("long")


def flag(F: ModuleType, condition: Any) -> Any:
    """Column: 1 where a condition holds, else 0."""
    return F.when(condition, F.lit(1)).otherwise(F.lit(0))


def count_where(F: ModuleType, condition: Any) -> Any:
    """Aggregate: the number of rows that meet a condition."""
    return F.sum(flag(F, condition)).cast("long")


def count_of(F: ModuleType, event_type: str) -> Any:
    """Aggregate: the number of events of a type."""
    return count_where(F, F.col("event_type") == event_type)


def event_counts(F: ModuleType, *names: str) -> list[Any]:
    """Aggregates: columns of EVENT_COUNTS, by their names."""
    return [count_of(F, EVENT_COUNTS[name]).alias(name) for name in names]


def amount(F: ModuleType) -> Any:
    """Column: price times quantity; null without a price, and no quantity is one."""
    return (F.col("price") * units(F)).cast(MONEY)


def units(F: ModuleType) -> Any:
    """Column: the quantity; where none is given, it is one."""
    return F.coalesce(F.col("quantity"), F.lit(1).cast(MONEY))


def total(F: ModuleType, amounts: Any) -> Any:
    """Aggregate: sum of amounts; 0 where there is none."""
    return F.coalesce(F.sum(amounts), F.lit(0).cast(MONEY)).cast(MONEY_SUM)


def revenue(F: ModuleType) -> Any:
    """Aggregate: sum of the purchases' amounts; 0 where there is none."""
    return total(F, F.when(F.col("event_type") == "purchase", amount(F)))


def refunds(F: ModuleType) -> Any:
    """Aggregate: sum of the refunds' amounts; 0 where there is none."""
    return total(F, F.when(F.col("event_type") == "refund", amount(F)))


def net(F: ModuleType) -> Any:
    """Column: `revenue` less `refunds`."""
    return (F.col("revenue") - F.col("refunds")).cast(MONEY_SUM)


def in_money(F: ModuleType, units: Any) -> Any:
    """Column: MONEY_SUM of so many units."""
    # Not divided: DuckDB's division leaves decimals for floats.
    return (units.cast(UNITS_SUM) * F.lit("0.0001").cast("decimal(5,4)")).cast(MONEY_SUM)


def half_even(F: ModuleType, part: Any, whole: Any) -> Any:
    """Column: `part / whole` of two whole numbers, rounded to a whole number, halves to the even one.

    Null where `whole` is 0. Computed so because each engine's own rounding treats halves in its own way.
    """
    twice = F.when(whole != 0, whole * F.lit(2))
    raised = part * F.lit(2) + whole
    up = F.floor(raised / twice).cast(UNITS_SUM)
    is_odd_half = (up * twice == raised) & (up % F.lit(2) == 1)
    return up - flag(F, is_odd_half)


def percent(F: ModuleType, part: Any, whole: Any) -> Any:
    """Column: `part` per hundred of `whole`, two decimals, halves to even; 0 where `whole` is 0."""
    hundredths = F.coalesce(half_even(F, part * F.lit(10_000), whole), F.lit(0))
    return (hundredths / F.lit(100)).cast("decimal(18,2)")


def order_key(F: ModuleType) -> Any:
    """Column: the order, among its user's, that a purchase belongs to; without an order_id, purchases of one minute."""
    minute = F.floor(F.unix_micros("event_time") / F.lit(MINUTE)).cast("long").cast("string")
    named = F.concat_ws("|", F.lit("order"), F.col("order_id"))
    return F.when(F.col("order_id").isNotNull(), named).otherwise(F.concat_ws("|", F.lit("minute"), minute))


def event_hash(F: ModuleType) -> Any:
    """Column: a number, of 60 bits, by which an event is known with its person and its price.

    The same event can have another person later, and by another exchange rate another price. Nothing else changes.
    """
    parts = (F.col("event_id"), F.col("user_id"), F.col("price").cast("string"), F.col("currency"))
    text = F.concat_ws("|", *(F.coalesce(part, F.lit("")) for part in parts))
    return number_of_hex(F, F.substring(F.md5(text), 1, 15))


def fingerprint(F: ModuleType) -> Any:
    """Aggregate: number and sum of `event_hash`, as a text: of the same events the same, in whatever order."""
    # A long would overflow from eight events on.
    summed = F.sum(event_hash(F).cast("decimal(20,0)")).cast("decimal(38,0)")
    return F.concat_ws(":", count(F).cast("string"), summed.cast("string"))
