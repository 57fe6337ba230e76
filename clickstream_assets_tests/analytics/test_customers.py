"""Customers' scores and segments day by day, against cases by hand and a plain reading of the definition."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clickstream_assets.analytics.carts import abandonments, cart_states, steps
from clickstream_assets.analytics.customers import (
    customer_segments,
    first_changed,
    orders,
    refunds,
    segment_days,
    shopper_days,
)
from clickstream_assets.catalogue import CUSTOMER_SEGMENT_DAYS, CUSTOMER_SEGMENTS
from clickstream_assets.catalogue.rfm import RFM_SEGMENTS
from clickstream_assets.engine import Engine
from clickstream_assets.ingest.event_frames import load_events
from clickstream_assets_tests.analytics.days import table_of
from clickstream_assets_tests.analytics.records import RULES, at, day, event, event_table, money
from clickstream_assets_tests.analytics.test_carts import DAY, add, follow, purchase, random_history, rules
from clickstream_assets_tests.conftest import DATA


def segments(
    engine: Engine, events: list[dict[str, Any]], days: list[date], rfm_days: int = 365, as_of: str = ""
) -> list[dict[str, Any]]:
    clock = at(as_of) if as_of else max(one["event_time"] for one in events)
    df = engine.from_arrow(event_table(events))
    left = abandonments(steps(engine.persist(cart_states(engine, df, rules(clock)))), rules(clock))
    wanted = engine.from_arrow(pa.table({"report_date": days}))
    return table_of(
        engine, customer_segments(orders(df), refunds(df), left, wanted, rfm_days), CUSTOMER_SEGMENTS
    )


@pytest.mark.long_on_spark
def test_what_was_sent_back_counts_against_what_was_bought(engine: Engine):
    events = [
        purchase("2024-05-01 10:00", price="20", quantity=3, order_id="a"),
        purchase("2024-05-01 10:00", user="another", price="50"),
        event("refund", "2024-05-03 10:00", price=Decimal(20), quantity=1, order_id="a"),
        # Of a purchase that nobody has seen, it makes no customer.
        event("refund", "2024-05-03 10:00", "stranger", price=Decimal(9)),
    ]
    rows = segments(engine, events, [day("2024-05-02"), day("2024-05-03"), day("2024-05-04")], rfm_days=3)
    assert [
        (
            row["report_date"].day,
            row["user_id"],
            row["monetary"],
            row["refunds"],
            row["net_monetary"],
            row["m_score"],
        )
        for row in rows
    ] == [
        (2, "another", money("50"), money("0"), money("50"), 2),
        (2, "u", money("60"), money("0"), money("60"), 4),
        (3, "another", money("50"), money("0"), money("50"), 4),
        (3, "u", money("60"), money("20"), money("40"), 2),
    ]


def test_a_day_knows_what_was_bought_up_to_its_end(engine: Engine):
    events = [
        purchase("2024-05-01 10:00", price="1", order_id="a"),
        purchase("2024-05-01 10:30", price="2", quantity=3, order_id="a"),
        # Two orders without a name.
        purchase("2024-05-02 10:00:01", price="4"),
        purchase("2024-05-02 10:00:59", price="5"),
        purchase("2024-05-02 10:01", price=None),
    ]
    rows = segments(engine, events, [day(f"2024-05-0{n}") for n in range(1, 6)], rfm_days=3)
    assert [
        (row["report_date"].day, row["recency_days"], row["frequency"], row["monetary"]) for row in rows
    ] == [
        (1, 0, 1, money("7")),
        (2, 0, 3, money("16")),
        (3, 1, 3, money("16")),
        # The first day's order is more than three days ago.
        (4, 2, 2, money("9")),
    ]


@pytest.mark.long_on_spark
@pytest.mark.slow
def test_scores_are_fifths_of_the_days_buyers_and_equals_have_the_same(engine: Engine):
    events = [
        purchase(f"2024-05-{10 + n} 10:00", user=f"u{n}", price=str(100 - n), order_id=f"{n}-{m}")
        for n in range(5)
        for m in range(n + 1)
    ]
    ties = [purchase("2024-05-14 12:00", user=f"v{n}", price="1") for n in range(5)]
    rows = segments(engine, events + ties, [day("2024-05-14")])
    assert {row["user_id"]: (row["r_score"], row["f_score"], row["m_score"]) for row in rows} == {
        # Six of ten bought last: the middle one of them is ahead of 70 per cent.
        "u4": (4, 5, 5),
        # Six bought once.
        **{f"v{n}": (4, 2, 2) for n in range(5)},
        "u3": (2, 5, 5),
        "u2": (2, 4, 4),
        "u1": (1, 4, 4),
        "u0": (1, 2, 3),
    }


@pytest.mark.long_on_spark
def test_an_abandoned_cart_counts_until_it_is_taken_up_and_no_longer_than_a_month(engine: Engine):
    events = [
        add("2024-05-01 10:00", user="comes back", price="3", quantity=2),
        purchase("2024-05-04 09:00", user="comes back", price="6"),
        add("2024-05-01 10:00", user="never", price="5"),
    ]
    days = [day("2024-05-01") + DAY * n for n in range(40)]
    rows = segments(engine, events, days, as_of="2024-06-30 00:00")
    of_never = [row for row in rows if row["user_id"] == "never"]
    assert [row["report_date"] for row in of_never] == [day("2024-05-02") + DAY * n for n in range(30)]
    assert {(row["abandoned_carts"], row["abandoned_value"], row["rfm_segment"]) for row in of_never} == {
        (1, money("5"), None)
    }
    back = {
        row["report_date"].day: (row["abandoned_carts"], row["abandoned_value"], row["frequency"])
        for row in rows
        if row["user_id"] == "comes back" and row["report_date"] <= day("2024-05-05")
    }
    assert back == {
        2: (1, money("6"), 0),
        3: (1, money("6"), 0),
        4: (0, money("0"), 1),
        5: (0, money("0"), 1),
    }


def test_every_customer_is_in_one_named_segment():
    for r, f, m, frequency in product(*[range(1, 6)] * 3, (1, 2)):
        value = (f + m + 1) // 2
        names = [
            one.name
            for one in RFM_SEGMENTS
            if one.recency[0] <= r <= one.recency[1]
            and one.value[0] <= value <= one.value[1]
            and frequency <= (one.most_orders or frequency)
        ]
        # New customers would be promising, were they not new.
        expected = ["new_customer", "promising"] if names[0] == "new_customer" else names[:1]
        assert names == expected, (r, f, m, names)
        assert names[0] == named(r, f, m, frequency)


def named(r: int, f: int, m: int, frequency: int) -> str:
    plane = [
        "lost lost at_risk at_risk cannot_lose",
        "hibernating hibernating at_risk at_risk cannot_lose",
        "about_to_sleep about_to_sleep need_attention loyal loyal",
        "promising potential_loyalist potential_loyalist loyal loyal",
        "new_customer potential_loyalist potential_loyalist champions champions",
    ]
    name = plane[r - 1].split()[(f + m + 1) // 2 - 1]
    return "promising" if name == "new_customer" and frequency > 1 else name


def by_definition(
    events: list[dict[str, Any]], left: list[dict[str, Any]], report_date: date, rfm_days: int
) -> list[dict[str, Any]]:
    """The customers of one day, one after another."""
    found: dict[str, dict[str, Any]] = defaultdict(lambda: {"lines": [], "returned": [], "carts": []})
    for one in events:
        kind = {"purchase": "lines", "refund": "returned"}.get(one["event_type"])
        if kind and report_date - timedelta(days=rfm_days) < one["event_time"].date() <= report_date:
            found[one["user_id"]][kind].append(one)
    midnight = datetime.combine(report_date + DAY, datetime.min.time(), at("2024-01-01").tzinfo)
    for cart in left:
        begun = cart["abandoned_at"]
        is_recent = begun < midnight and begun.date() > report_date - 30 * DAY
        if is_recent and (cart["ended_at"] is None or cart["ended_at"] >= midnight):
            found[cart["user_id"]]["carts"].append(cart["value"])
    rows: dict[str, dict[str, Any]] = {}
    for user, its in found.items():
        lines = its["lines"]
        if not lines and not its["carts"]:
            continue
        last = max((one["event_time"].date() for one in lines), default=None)
        paid, refunded = (
            sum(((one["price"] or 0) * (one["quantity"] or 1) for one in ones), Decimal(0))
            for ones in (lines, its["returned"])
        )
        rows[user] = {
            "report_date": report_date,
            "user_id": user,
            "rfm_segment": None,
            "recency_days": (report_date - last).days if last else None,
            "frequency": len(
                {one["order_id"] or one["event_time"].replace(second=0, microsecond=0) for one in lines}
            ),
            "monetary": money(str(paid)),
            "refunds": money(str(refunded)),
            "net_monetary": money(str(paid - refunded)),
            "r_score": None,
            "f_score": None,
            "m_score": None,
            "abandoned_carts": len(its["carts"]),
            "abandoned_value": money(str(sum(its["carts"], Decimal(0)))),
        }
    buyers = [row for row in rows.values() if row["frequency"]]
    for score, goodness in (
        ("r_score", lambda row: -row["recency_days"]),
        ("f_score", lambda row: row["frequency"]),
        ("m_score", lambda row: row["net_monetary"]),
    ):
        for row in buyers:
            worse = sum(goodness(other) < goodness(row) for other in buyers)
            as_good = sum(goodness(other) == goodness(row) for other in buyers)
            row[score] = 1 + 5 * (2 * worse + as_good) // (2 * len(buyers))
    for row in buyers:
        row["rfm_segment"] = named(row["r_score"], row["f_score"], row["m_score"], row["frequency"])
    return [rows[user] for user in sorted(rows)]


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long_on_spark)])
def test_segments_are_those_of_the_definition(engine: Engine, seed: int):
    events = random_history(seed)
    # Some send back what they bought, in part, a week later.
    events += [
        {**one, "event_type": "refund", "event_time": one["event_time"] + 7 * DAY, "quantity": None}
        for one in events[::5]
        if one["event_type"] == "purchase"
    ]
    clock = max(one["event_time"] for one in events)
    first = day("2024-01-01")
    days = [first + DAY * n for n in range(0, (clock.date() - first).days + 1, 9)]
    _, left = follow(engine, events, clock)
    found = segments(engine, events, days, rfm_days=60)
    expected = [row for one in days for row in by_definition(events, left, one, 60)]
    assert found == expected
    assert {row["rfm_segment"] for row in found} > {None, "champions", "lost"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [4, pytest.param(5, marks=pytest.mark.long)])
def test_an_event_changes_no_snapshot_of_an_earlier_day(duckdb_engine: Engine, seed: int):
    events = random_history(seed)
    clock = max(one["event_time"] for one in events)
    for cut in (clock.date() - 80 * DAY, clock.date() - 20 * DAY):
        known = [one for one in events if one["event_time"].date() <= cut]
        # The day of the newest event is not over for the data's own clock.
        days = [cut - DAY * n for n in range(1, 60)]
        as_of = f"{cut} 00:00"
        assert segments(duckdb_engine, known, days, as_of=as_of) == segments(duckdb_engine, events, days)


def days_of(engine: Engine, events: list[dict[str, Any]], settings_text: str = "") -> pa.Table:
    clock = max(one["event_time"] for one in events)
    found = engine.to_arrow(shopper_days(engine.from_arrow(event_table(events))))
    return segment_days(found, clock, settings_text)


@pytest.mark.long_on_spark
def test_the_first_changed_day_is_that_of_the_first_changed_event(engine: Engine):
    events = [
        add("2024-05-01 10:00", event_id="1"),
        purchase("2024-05-03 10:00", event_id="2"),
        purchase("2024-05-04 10:00", event_id="3"),
    ]
    table = days_of(engine, events)
    assert [(row["events"], row["as_of"]) for row in table.to_pylist()] == [
        (1, at("2024-05-02 00:00")),
        (0, at("2024-05-03 00:00")),
        (1, at("2024-05-04 00:00")),
        (1, at("2024-05-04 10:00")),
    ]
    assert first_changed(table, days_of(engine, list(reversed(events)))) is None
    late = add("2024-05-02 10:00", event_id="4")
    assert first_changed(table, days_of(engine, [*events, late])) == day("2024-05-02")
    assert first_changed(days_of(engine, [*events, late]), table) == day("2024-05-02")
    # A bot's, after all.
    assert first_changed(table, days_of(engine, [events[0], events[2]])) == day("2024-05-03")
    # Only the clock moved on.
    view = {"user_id": "v", "event_time": at("2024-05-05 01:00"), "event_id": "5"}
    assert first_changed(table, days_of(engine, [*events, view])) == day("2024-05-04")
    assert first_changed(table, days_of(engine, events, "another setting")) == day("2024-05-01")
    assert first_changed(CUSTOMER_SEGMENT_DAYS.arrow.empty_table(), table) == day("2024-05-01")


@pytest.mark.long
def test_online_retail_has_as_many_customers_as_are_known_by_name(duckdb_engine: Engine, online_retail: Path):
    events = load_events(duckdb_engine, online_retail, RULES).events
    days = duckdb_engine.from_arrow(pa.table({"report_date": [day("2011-09-30")]}))
    clock = rules(at("2011-10-01"))
    nobody = abandonments(steps(cart_states(duckdb_engine, events, clock)), clock)
    rows = table_of(
        duckdb_engine,
        customer_segments(orders(events), refunds(events), nobody, days, 365),
        CUSTOMER_SEGMENTS,
    )
    assert len(rows) == 3616
    assert {row["abandoned_carts"] for row in rows} == {0}
    # 1,445 of them have one invoice, which is two fifths: their middle is the end of the first.
    once = Counter(row["f_score"] for row in rows if row["frequency"] == 1)
    assert once == {1: 1445}
    twice = {row["f_score"] for row in rows if row["frequency"] == 2}
    with_two = sum(row["frequency"] == 2 for row in rows)
    assert twice == {1 + 5 * (2 * 1445 + with_two) // (2 * 3616)}
    assert {row["frequency"] for row in rows if row["rfm_segment"] == "new_customer"} == {1}


@pytest.fixture
def online_retail() -> Path:
    path = DATA / "uci_online_retail_20101201-20110930.csv.gz"
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    return path
