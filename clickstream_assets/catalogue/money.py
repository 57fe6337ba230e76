"""Table of the shop's money: its currency, and what others are worth in it."""

import pyarrow as pa

from clickstream_assets.catalogue.table import BOOL, DATE, STRING, Column, Table

RATE = pa.decimal128(19, 12)

EXCHANGE_RATES = Table(
    "exchange_rates",
    "one currency from a day on, until the currency's next row",
    (
        Column("currency", STRING, "ISO 4217 code"),
        Column(
            "since", DATE, "First day on which the rate counts; without meaning for the shop's own currency"
        ),
        Column("rate", RATE, "Units of the shop's currency per unit of this one"),
        Column("is_shops", BOOL, "Whether it is the shop's own currency, of which there is one row"),
    ),
    key=("currency", "since"),
)
