"""The day's tables of a real shop's events, against a plain reading of the file."""

from __future__ import annotations

import csv
import gzip
from collections import Counter, defaultdict
from datetime import date, timedelta
from decimal import Decimal

import pytest

from clickstream_assets.analytics.funnel import funnel
from clickstream_assets.analytics.persons import shopper_events
from clickstream_assets.analytics.products import category_conversion, product_performance
from clickstream_assets.analytics.segments import user_segments
from clickstream_assets.analytics.summary import daily_summary
from clickstream_assets.catalogue import (
    CATEGORY_CONVERSION,
    CUSTOMER_SEGMENTS,
    DAILY_SUMMARY,
    FUNNEL,
    PRODUCT_PERFORMANCE,
)
from clickstream_assets.engine import Engine
from clickstream_assets.ingest.event_frames import load_events
from clickstream_assets_tests.analytics.by_hand import rate
from clickstream_assets_tests.analytics.days import table_of, visits_of
from clickstream_assets_tests.analytics.records import RULES
from clickstream_assets_tests.conftest import DATA

FILE = DATA / "rees46_multicategory_20191001_train.csv.gz"
DAY = date(2019, 10, 1)
# More than anybody's views: no session of the file is taken for a bot's, so the file can be read line by line.
NO_BOTS = 10_000

pytestmark = pytest.mark.skipif(not FILE.exists(), reason=f"{FILE} is not there")


def read() -> list[dict[str, str]]:
    """The file's rows, each once."""
    with gzip.open(FILE, "rt", newline="") as text:
        return list({tuple(row.values()): row for row in csv.DictReader(text)}.values())


@pytest.mark.slow
@pytest.mark.long_on_spark
def test_the_tables_of_a_real_day_say_what_is_in_its_file(engine: Engine):
    rows = read()
    events = engine.persist(load_events(engine, FILE, RULES).events)
    kept = visits_of(engine, events, DAY, DAY, NO_BOTS)
    persons = shopper_events(events, kept, DAY, DAY)

    (summary,) = table_of(
        engine, daily_summary(persons, user_segments(persons), events, kept, DAY, DAY), DAILY_SUMMARY
    )
    users = {row["user_id"] for row in rows}
    buyers = {row["user_id"] for row in rows if row["event_type"] == "purchase"}
    paid = sum((Decimal(row["price"]) for row in rows if row["event_type"] == "purchase"), Decimal(0))
    kinds = Counter(row["event_type"] for row in rows)
    assert (summary["total_events"], summary["users"], summary["buyer_count"]) == (
        len(rows),
        len(users),
        len(buyers),
    )
    assert (summary["views"], summary["add_to_carts"], summary["purchases"]) == (
        kinds["view"],
        kinds["cart"],
        kinds["purchase"],
    )
    assert (summary["revenue"], summary["bot_events"]) == (paid, 0)

    views = Counter(row["product_id"] for row in rows if row["event_type"] == "view")
    products = table_of(engine, product_performance(persons), PRODUCT_PERFORMANCE)
    assert {row["product_id"]: row["view_count"] for row in products} == {
        row["product_id"]: views[row["product_id"]] for row in rows
    }
    top = sorted(products, key=lambda row: row["rank"])[:20]
    assert [(row["product_id"], row["view_count"]) for row in top] == sorted(
        views.items(), key=lambda item: (-item[1], item[0])
    )[:20]

    by_category: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        by_category[row["category_code"] or "unknown"][row["event_type"]] += 1
    categories = table_of(engine, category_conversion(persons), CATEGORY_CONVERSION)
    assert {
        row["category"]: (row["views"], row["add_to_carts"], row["purchases"], row["conversion_rate"])
        for row in categories
    } == {
        name: (c["view"], c["cart"], c["purchase"], rate(c["purchase"], c["view"]))
        for name, c in by_category.items()
    }

    nobody = engine.from_arrow(CUSTOMER_SEGMENTS.arrow.empty_table())
    steps = table_of(
        engine,
        funnel(persons, nobody, DAY, DAY, timedelta(hours=12)),
        FUNNEL,
    )
    overall = {row["step"]: row["users"] for row in steps if row["dimension"] == "overall"}
    assert overall["view"] == len({row["user_id"] for row in rows if row["event_type"] == "view"})
    # The file is of three hours, so the window leaves only the order of the steps.
    assert overall["purchase"] == in_order(rows)


def in_order(rows: list[dict[str, str]]) -> int:
    """Users with a purchase at or after a cart at or after a view."""
    times: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        times[row["user_id"]][row["event_type"]].append(row["event_time"])
    return sum(
        any(
            view <= cart <= purchase
            for view in its["view"]
            for cart in its["cart"]
            for purchase in its["purchase"]
        )
        for its in times.values()
    )
