"""The shop's money as the lake has it: brought up to date with each ingest, and the days that this changes."""

from __future__ import annotations

from bisect import bisect_right
from datetime import date
from hashlib import sha256

from clickstream_assets.analytics.money import in_shop_money
from clickstream_assets.catalogue import EVENTS, EXCHANGE_RATES
from clickstream_assets.engine import DataFrame, functions_of
from clickstream_assets.settings import Settings
from clickstream_assets.stores.exchange_rates import ShopMoney, read_rates
from clickstream_assets.stores.lake import Lake


def settings_of_money(settings: Settings) -> dict[str, str | None]:
    """Return what is set of the shop's money, by the settings' names; of the file of rates, a hash of its content."""
    rates = None
    if settings.exchange_rates:
        try:
            rates = sha256(settings.exchange_rates.read_bytes()).hexdigest()
        except OSError as error:
            # Another file than before, which `update_money` says what is wrong with.
            rates = str(error)
    return {"SHOP_CURRENCY": settings.shop_currency, "EXCHANGE_RATES": rates}


def update_money(lake: Lake, after_batch: int, settings: Settings) -> ShopMoney:
    """Keep the shop's currency and exchange rates with the lake, as they are set; without a change nothing is written.

    Where SHOP_CURRENCY is not set, it is what the lake keeps; or else that of the first purchase that names one.

    Args:
        lake: has the events.
        after_batch: the last batch that was looked at before.
        settings: may name the currency, and the file of rates.

    Raises:
        InputError: the file of rates cannot be used.
    """
    kept = ShopMoney.of(lake)
    currency = settings.shop_currency or kept.currency or _first_currency(lake, after_batch)
    rates = read_rates(settings.exchange_rates, currency) if settings.exchange_rates else ()
    money = ShopMoney(currency, rates)
    if money != kept:
        rows = lake.engine.from_arrow(money.table())
        lake.replace(EXCHANGE_RATES, rows)
        lake.engine.release(rows)
    return money


def _first_currency(lake: Lake, after_batch: int) -> str | None:
    events = lake.read(EVENTS, batches=(after_batch + 1, lake.snapshot(EVENTS).batch))
    F, _ = functions_of(events)
    purchases = events.where((F.col("event_type") == "purchase") & F.col("currency").isNotNull())
    first = F.min_by("currency", F.struct("batch", "event_time", "event_id"))
    return lake.engine.to_arrow(purchases.agg(first.alias("currency")))["currency"][0].as_py()


def priced(lake: Lake, events: DataFrame, version: int | None = None) -> DataFrame:
    """Return EVENTS rows in the shop's money, with SENT; `version` pins the rates (default: the newest)."""
    money = ShopMoney.of(lake, version)
    # Most shops have one currency, and a join costs time.
    rates = lake.read(EXCHANGE_RATES, version) if money.rates else None
    return in_shop_money(events, money.currency, rates)


def days_of_other_money(lake: Lake, version: int | None, money: ShopMoney) -> list[date]:
    """Return the days with events whose amounts are worth something else than by an earlier version of the money.

    Args:
        lake: has the events, and the versions of the money.
        version: the earlier one, of the table EXCHANGE_RATES; None for none, and so no day.
        money: the newest.
    """
    if version is None:
        return []
    before = ShopMoney.of(lake, version)
    if before == money:
        return []
    days = sorted(lake.snapshot(EVENTS).rows_by("event_date"))
    old, new = _Worth(before), _Worth(money)
    changed = {
        currency: [day for day in days if old.of(currency, day) != new.of(currency, day)]
        for currency in old.currencies | new.currencies
    }
    events = lake.read(EVENTS)
    F, _ = functions_of(events)
    found: set[date] = set()
    for currency, its in changed.items():
        if its:
            touched = events.where(
                (F.col("event_date") >= F.lit(its[0]))
                & (F.col("event_date") <= F.lit(its[-1]))
                & (F.col("currency") == F.lit(currency))
            )
            there = lake.engine.to_arrow(touched.select("event_date").distinct())["event_date"].to_pylist()
            found |= set(there) & set(its)
    return sorted(found)


class _Worth:
    """Rates by currency and day."""

    def __init__(self, money: ShopMoney) -> None:
        self._own = money.currency
        self._since: dict[str, list[date]] = {}
        self._rates: dict[str, list[object]] = {}
        for currency, since, rate in money.rates:
            self._since.setdefault(currency, []).append(since)
            self._rates.setdefault(currency, []).append(rate)
        self.currencies = self._since.keys() | ({money.currency} if money.currency else set())

    def of(self, currency: str, day: date) -> object:
        """Return the rate of a currency on a day; None where there is none."""
        if currency == self._own:
            return 1
        place = bisect_right(self._since.get(currency, ()), day)
        return self._rates[currency][place - 1] if place else None
