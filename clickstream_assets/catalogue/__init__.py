"""The tables: what each has is said here once, and every store, check, page and list is made from it.

A table of the lake has the name of its Dagster asset. Times are UTC, in microseconds; money is
`decimal(18, 4)` in the event's own currency; ids are text. A module per part of the graph: a table that is declared in
one of them is exported from here, and is one of `TABLES`.
"""

# ruff: noqa: F403
from clickstream_assets.catalogue import (
    experiments,
    models,
    money,
    next_product,
    predictions,
    products,
    raw,
    reports,
    shoppers,
    who,
    windows,
)
from clickstream_assets.catalogue.experiments import *
from clickstream_assets.catalogue.models import *
from clickstream_assets.catalogue.money import *
from clickstream_assets.catalogue.next_product import *
from clickstream_assets.catalogue.predictions import *
from clickstream_assets.catalogue.products import *
from clickstream_assets.catalogue.raw import *
from clickstream_assets.catalogue.reports import *
from clickstream_assets.catalogue.shoppers import *
from clickstream_assets.catalogue.table import *
from clickstream_assets.catalogue.table import Table
from clickstream_assets.catalogue.who import *
from clickstream_assets.catalogue.windows import *

TABLES = {
    table.name: table
    for module in (
        *(raw, who, money, shoppers, windows, reports, products, models, next_product, predictions),
        experiments,
    )
    for table in vars(module).values()
    if isinstance(table, Table)
}
"""All tables by their names, in the order of the graph."""

SERVED_TABLES = tuple(table for table in TABLES.values() if table.served)
"""Those that PostgreSQL has."""
