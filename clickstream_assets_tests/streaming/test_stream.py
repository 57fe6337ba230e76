"""The streaming query over what is in a topic: what it counts, what it leaves out, and what it says of alerts."""

import json
import random
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clickstream_assets.analytics.identity import IdentityRules
from clickstream_assets.catalogue import FLASH_SALE_ALERTS, PRODUCT_WINDOWS
from clickstream_assets.engine import SparkEngine
from clickstream_assets.ingest import erasure
from clickstream_assets.ingest.fields import ValidationRules
from clickstream_assets.ingest.files import EventFile
from clickstream_assets.ingest.replay import run_replay
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.partition import to_json
from clickstream_assets.stores.lake import Lake
from clickstream_assets.streaming.checkpoint import PlannedBatch
from clickstream_assets.streaming.owner import ownership
from clickstream_assets.streaming.progress import progress_of
from clickstream_assets.streaming.reconciliation import Reason, reconcile
from clickstream_assets.streaming.status import Status, write_statuses
from clickstream_assets.streaming.store import Changes, WindowStore
from clickstream_assets_tests.analytics.records import at
from clickstream_assets_tests.conftest import DATA
from clickstream_assets_tests.databases import query, with_settings
from clickstream_assets_tests.streaming.streams import Shop, click, new_shop, views
from clickstream_assets_tests.topics import first

REES46 = DATA / "rees46_multicategory_20191001_train.csv.gz"
NOON = at("2024-05-01 12:00")
MINUTE = timedelta(minutes=1)
TEN, FIVE = 10 * MINUTE, 5 * MINUTE


Ids = tuple[str | None, str | None]
"""A user and a visitor."""

Counts = dict[tuple[datetime, str], tuple[int, int, int, int]]
"""Views, carts, purchases and all events per window's start and product."""


def count_by_hand(events: Iterable[dict[str, Any]]) -> Counts:
    """Count events of which each is there once."""
    counts: dict[tuple[datetime, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for event in events:
        if not event.get("product_id"):
            continue
        moment = datetime.fromisoformat(event["timestamp"]).astimezone(UTC)
        first = moment - (moment - datetime(1970, 1, 1, tzinfo=UTC)) % FIVE
        for start in (first - FIVE, first):
            found = counts[start, event["product_id"]]
            for number, kinds in enumerate((["view"], ["add_to_cart", "cart"], ["purchase"])):
                found[number] += event["event_type"] in kinds
            found[3] += 1
    return {key: (found[0], found[1], found[2], found[3]) for key, found in counts.items()}


def counted(shop: Shop) -> Counts:
    return {
        (row["window_start"], row["product_id"]): (
            row["views"],
            row["add_to_carts"],
            row["purchases"],
            row["total_events"],
        )
        for row in shop.windows()
    }


def episodes_by_hand(counts: Counts, threshold: int) -> set[tuple[Any, ...]]:
    """Product, first window's start, last one's end, their number, and the peak's start, views and purchases."""
    starts = defaultdict(list)
    for (start, product), (seen, _, bought, _) in sorted(counts.items()):
        if seen > threshold and bought < 5:
            starts[product].append(start)
    found = set()
    for product, times in starts.items():
        episode = [times[0]]
        for start in [*times[1:], datetime.max.replace(tzinfo=UTC)]:
            if start > episode[-1] + TEN + 30 * MINUTE:
                peak = max(episode, key=lambda time: counts[time, product][0])
                seen, _, bought, _ = counts[peak, product]
                found.add((product, episode[0], episode[-1] + TEN, len(episode), peak, seen, bought))
                episode = []
            episode.append(start)
    return found


@pytest.mark.long
@pytest.mark.skipif(not REES46.exists(), reason="the data set is not here")
def test_real_shoppers_are_counted_as_by_hand(servers: Settings, spark_engine: SparkEngine, tmp_path: Path):
    # A line that is there twice is one event.
    by_hand = count_by_hand(json.loads(value) for value in {value for _, value in EventFile(REES46)})
    assert len(by_hand) == 15_327
    assert max(seen for seen, *_ in by_hand.values()) == 48
    with new_shop(servers, tmp_path, spark_engine.session, partitions=3) as shop:
        run_replay(shop.settings, REES46, files=False)
        outcome = shop.run()
        assert outcome.status.rows == 14_074
        assert outcome.status.dropped_late == 0
        assert counted(shop) == by_hand
        assert shop.alerts() == []

        # The same topic once more, with a threshold that something is over, in several batches.
        with new_shop(servers, tmp_path / "lower", spark_engine.session) as lower:
            lower.settings = with_settings(
                lower.settings,
                kafka_topic=shop.settings.kafka_topic,
                views_threshold=20,
                stream_batch_records=5_000,
            )
            lower.run()
            assert lower.windows() == shop.windows()
            names = ("product_id", "first_window_start", "last_window_end", "windows")
            peak = ("window_start", "views", "purchases")
            found = {tuple(alert[name] for name in (*names, *peak)) for alert in lower.alerts()}
            assert found == episodes_by_hand(by_hand, 20)
            assert len(found) > 5
            assert lower.copy(FLASH_SALE_ALERTS) == lower.alerts()
        shop.ingest()
        for lake in (shop.lake, Lake(shop.settings.lake, spark_engine)):
            reconciliation = reconcile(shop.settings, lake, days=7)
            assert (reconciliation.compared, reconciliation.differences) == (8_889, [])


def test_repetitions_and_robots_are_not_counted(shop: Shop):
    order = {"event_type": "purchase", "order_id": "o1", "quantity": 2, "price": 9.5}
    robot = {"user_agent": "Googlebot/2.1 (+http://www.google.com/bot.html)"}
    shop.stream(
        [
            click(NOON, 1),
            click(NOON, 1),
            click(NOON, 1, user_id="u2"),
            click(NOON, 2, **order),
            click(NOON + MINUTE, 3, **order),
            click(NOON, 4, **order | {"order_id": "o2"}),
            click(NOON, 5, **robot),
            click(NOON, 6, event_type="search", product_id=None, query="a"),
            click(NOON, 7, event_type="add_to_cart"),
            {"event_type": "view"},
        ]
    )
    (_, window) = shop.windows()
    counts = {name: window[name] for name in ("views", "add_to_carts", "purchases", "total_events")}
    assert counts == {"views": 1, "add_to_carts": 1, "purchases": 2, "total_events": 4}
    shop.stream([click(NOON + 2 * MINUTE, 1), click(NOON + 3 * MINUTE, 8, **order)])
    assert shop.windows()[1]["total_events"] == 4


def test_open_windows_change_and_closed_ones_are_final(shop: Shop):
    shop.stream([click(NOON, 1)])
    assert [row["is_final"] for row in shop.windows()] == [False, False]
    shop.stream([click(NOON + MINUTE, 2), click(NOON + 16 * MINUTE, 3, product_id="p2")])
    assert [(row["product_id"], row["total_events"], row["is_final"]) for row in shop.windows()] == [
        ("p1", 2, True),
        ("p1", 2, False),
        ("p2", 1, False),
        ("p2", 1, False),
    ]
    assert shop.copy(PRODUCT_WINDOWS) == shop.windows()


@pytest.mark.long
def test_the_order_in_which_events_come_does_not_matter_within_the_watermark(
    servers: Settings, spark_engine: SparkEngine, tmp_path: Path
):
    order = random.Random(3)
    kinds = ["view", "view", "click", "add_to_cart", "remove_from_cart", "purchase", "search"]
    events = [
        click(
            NOON + i * 7 * timedelta(seconds=1),
            i,
            event_type=(kind := order.choice(kinds)),
            product_id=None if kind == "search" else f"p{i % 3}",
            user_id=f"u{i % 20}",
            query="q" if kind == "search" else None,
        )
        for i in range(400)
    ]
    # Every tenth comes twice. Never further from where it was than 10 minutes: 85 events.
    sent = [*events, *events[::10]]
    sent.sort(key=lambda event: int(event["event_id"][1:]) + order.uniform(0, 80))
    with new_shop(servers, tmp_path, spark_engine.session, partitions=3) as shop:
        for part in range(0, len(sent), 110):
            for partition in range(3):
                shop.send(sent[part : part + 110][partition::3], partition)
            outcome = shop.run()
            assert outcome.status.dropped_late == 0
        assert counted(shop) == count_by_hand(events)


def compared(shop: Shop) -> list[tuple[Any, ...]]:
    reconciliation = reconcile(shop.settings, shop.lake, days=7)
    assert reconciliation.waiting is None
    return [
        (d.window_start, d.streamed, d.batch, d.late, d.repeated, d.reason)
        for d in reconciliation.differences
    ]


def test_what_is_later_than_the_watermark_is_counted_as_late_and_is_in_the_batch(shop: Shop):
    shop.stream([click(NOON, 1), click(NOON + 30 * MINUTE, 2)])
    # What is exactly as old as the watermark is late too.
    shop.stream([click(NOON + MINUTE, 3), click(NOON + 20 * MINUTE, 6), click(NOON + 31 * MINUTE, 4)])
    shop.stream([click(NOON + 60 * MINUTE, 5)])
    (row,) = query(shop.settings, "SELECT dropped_late, rows FROM stream_status")
    assert row == (2, 6)
    shop.ingest()
    assert compared(shop) == [
        (NOON - FIVE, 1, 2, 1, 0, Reason.LATE),
        (NOON, 1, 2, 1, 0, Reason.LATE),
        (NOON + 15 * MINUTE, 0, 1, 1, 0, Reason.LATE),
        (NOON + 20 * MINUTE, 0, 1, 1, 0, Reason.LATE),
    ]


@pytest.mark.long
def test_an_event_that_a_conflicting_record_made_late_is_no_lost_one(shop: Shop):
    shop.stream([click(NOON, 1)])
    shop.stream([click(NOON + 40 * MINUTE, 1)])
    shop.stream([click(NOON + 11 * MINUTE, 2)])
    shop.stream([click(NOON + 90 * MINUTE, 3)])
    shop.ingest()
    assert compared(shop) == [
        (NOON + FIVE, 0, 1, 1, 0, Reason.LATE),
        (NOON + TEN, 0, 1, 1, 0, Reason.LATE),
    ]


@pytest.mark.parametrize(
    ("streamed", "reason"),
    [(1, Reason.LOST), *(pytest.param(n, Reason.UNEXPLAINED, marks=pytest.mark.long) for n in (2, 3))],
)
def test_counts_that_no_record_explains_are_not_taken_for_late_ones(
    shop: Shop, streamed: int, reason: Reason
):
    shop.stream([click(NOON, 1), click(NOON, 1), click(NOON + MINUTE, 2), click(NOON + 30 * MINUTE, 3)])
    shop.ingest()
    assert compared(shop) == []
    query(
        shop.settings,
        f"UPDATE product_windows SET total_events = {streamed}, views = {streamed} + 7 WHERE is_final RETURNING 1",
    )
    assert compared(shop) == [
        (NOON - FIVE, streamed, 2, 0, 0, reason),
        (NOON, streamed, 2, 0, 0, reason),
    ]


def test_windows_that_counted_who_was_erased_since_are_explained(shop: Shop):
    shop.stream([click(NOON, 1), click(NOON, 2, user_id="u2"), click(NOON + 30 * MINUTE, 3, user_id="u2")])
    shop.ingest()
    who = erasure.identify(shop.lake, ["u1"])
    rules, reading = IdentityRules.of(shop.settings), ValidationRules.of(shop.settings)
    erasure.note(shop.lake, 1, erasure.records_of(shop.lake, who, rules, reading))
    erasure.take_out(shop.lake, [1])
    assert compared(shop) == [(start, 2, 1, 0, 0, Reason.ERASED) for start in (NOON - FIVE, NOON)]
    # One of two is missing without a reason.
    query(shop.settings, "UPDATE product_windows SET total_events = 3 WHERE total_events = 2 RETURNING 1")
    assert {reason for *_, reason in compared(shop)} == {Reason.UNEXPLAINED}


@pytest.mark.long
def test_an_order_that_comes_again_after_the_watermark_is_not_taken_for_lost_state(shop: Shop):
    order = {"event_type": "purchase", "order_id": "o1"}
    shop.stream([click(NOON, 1, **order), click(NOON + 30 * MINUTE, 2)])
    shop.stream([click(NOON + 40 * MINUTE, 3, **order)])
    shop.stream([click(NOON + 90 * MINUTE, 4)])
    shop.ingest()
    assert compared(shop) == [
        (NOON + 35 * MINUTE, 1, 0, 0, 1, Reason.REPEATED),
        (NOON + 40 * MINUTE, 1, 0, 0, 1, Reason.REPEATED),
    ]
    # The same once more is counted twice.
    query(shop.settings, "UPDATE product_windows SET total_events = 2 WHERE purchases = 1 RETURNING 1")
    assert {reason for *_, reason in compared(shop)} == {Reason.UNEXPLAINED}


@pytest.mark.long
def test_each_unit_of_an_order_counts_and_the_same_later_does_not(shop: Shop):
    order = {"event_type": "purchase", "order_id": "o1"}
    # Three units, a record each; then the thank-you page once more; another visitor's order has the same id.
    shop.stream(
        [
            *(click(NOON, n, **order) for n in (1, 2, 3)),
            *(click(NOON + MINUTE, n, **order) for n in (4, 5, 6)),
            click(NOON + MINUTE, 7, **order, user_id=None, anonymous_id="u1"),
        ]
    )
    assert [(row["purchases"], row["distinct_users"]) for row in shop.windows()] == [(4, 2), (4, 2)]
    # A unit that comes in a micro-batch of its own is taken for a repetition.
    shop.stream([click(NOON, 8, **order), click(NOON + 30 * MINUTE, 9)])
    shop.ingest()
    assert compared(shop) == [(start, 4, 5, 4, 0, Reason.LATE) for start in (NOON - FIVE, NOON)]


def test_an_order_line_counts_once_by_any_id_of_its_person(shop: Shop):
    order = {"event_type": "purchase", "order_id": "o1"}
    guest, shopper = ({"user_id": user, "anonymous_id": "phone"} for user in (None, "u1"))
    # A guest's two units, of which one has the user already; both pages again after the login, and on another device.
    shop.stream([click(NOON, 1, **order, **guest), click(NOON, 2, **order, **shopper)])
    shop.stream(click(NOON + MINUTE, n, **order, **shopper) for n in (3, 4))
    shop.stream([click(NOON + 2 * MINUTE, 5, **order, user_id="u1", anonymous_id="laptop")])
    assert [row["purchases"] for row in shop.windows()] == [2, 2]
    # Another user of the phone, and another visitor, with an order of their own each.
    others = {"order_id": "o2", "user_id": "u2"}, {"user_id": None, "anonymous_id": "u1"}
    shop.stream(click(NOON + 3 * MINUTE, 6 + n, **order | shopper | other) for n, other in enumerate(others))
    assert [row["purchases"] for row in shop.windows()] == [4, 4]
    shop.stream([click(NOON + 30 * MINUTE, 8)])
    shop.ingest()
    assert compared(shop) == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("line", "repetition", "third", "counted"),
    [
        # The repetition of a guest's order leads neither of them to the user's on another device.
        pytest.param(*((None, "phone"), ("u1", "phone"), ("u1", "laptop"), 2), id="by the visitor"),
        # That of a user's leads the stream to the visitor.
        pytest.param(*(("u1", None), ("u1", "phone"), (None, "phone"), 1), id="by the user"),
    ],
)
def test_a_line_that_shares_an_id_with_a_repetition_alone_is_not_taken_for_a_lost_event(
    shop: Shop, line: Ids, repetition: Ids, third: Ids, counted: int
):
    for number, (user, visitor) in enumerate((line, repetition, third)):
        ids = {"user_id": user, "anonymous_id": visitor}
        moment = NOON + number * MINUTE
        shop.stream([click(moment, number, event_type="purchase", order_id="o1", **ids)])
    shop.stream([click(NOON + 30 * MINUTE, 3)])
    shop.ingest()
    different = [] if counted == 2 else [(NOON + s, 1, 2, 1, 0, Reason.LATE) for s in (-FIVE, 0 * FIVE)]
    assert compared(shop) == different
    # One more that is missing is not excused by it.
    query(shop.settings, "UPDATE product_windows SET total_events = 0 WHERE purchases > 0 RETURNING 1")
    assert {reason for *_, reason in compared(shop)} == {Reason.LOST}


@pytest.mark.long
def test_stream_and_batch_are_compared_only_where_both_have_been(shop: Shop):
    assert reconcile(shop.settings, shop.lake, days=7).waiting == "no window is closed yet"
    shop.stream([click(NOON, 1), click(NOON + 30 * MINUTE, 2)])
    reconciliation = reconcile(shop.settings, shop.lake, days=7)
    assert reconciliation.waiting == "the lake's events have not come as far as any batch of the stream's"
    assert reconciliation.closed_until == NOON + 20 * MINUTE
    # What only the batch has seen is no difference.
    shop.send([click(NOON + MINUTE, 3)])
    shop.ingest()
    reconciliation = reconcile(shop.settings, shop.lake, days=7)
    assert (reconciliation.compared, reconciliation.differences) == (2, [])
    # Nor is what only the stream has seen.
    shop.stream([click(NOON + 60 * MINUTE, 4)])
    reconciliation = reconcile(shop.settings, shop.lake, days=7)
    assert (reconciliation.compared, reconciliation.differences) == (2, [])
    assert reconciliation.closed_until == NOON + 20 * MINUTE


@pytest.mark.long
def test_windows_that_the_clock_closed_are_compared_too(shop: Shop):
    shop.stream([click(NOON, 1), click(NOON + MINUTE, 2)])
    shop.ingest()
    assert reconcile(shop.settings, shop.lake, days=7).compared == 0
    query(shop.settings, "UPDATE stream_progress SET read_at = read_at - interval '1 hour' RETURNING 1")
    shop.run()
    assert {row["is_final"] for row in shop.copy(PRODUCT_WINDOWS)} == {True}
    # The clock is years ahead of the events.
    reconciliation = reconcile(shop.settings, shop.lake, days=7)
    assert (reconciliation.compared, reconciliation.differences) == (2, [])


def test_an_alert_is_opened_updated_and_resolved(shop: Shop):
    shop.stream(views(NOON, 101, MINUTE))
    (alert,) = shop.alerts()
    assert (alert["state"], alert["views"], alert["window_start"]) == ("open", 101, NOON - FIVE)
    shop.stream([*views(NOON + 2 * MINUTE, 50, MINUTE), click(NOON + 3 * MINUTE, 0, event_type="purchase")])
    (alert,) = shop.alerts()
    assert (alert["state"], alert["views"], alert["purchases"]) == ("open", 151, 1)
    shop.stream([click(NOON + 40 * MINUTE, 1, product_id="p2")])
    (alert,) = shop.alerts()
    assert (alert["state"], alert["resolved_at"]) == ("resolved", NOON + TEN)
    assert shop.notifications() == [("p1", "opened"), ("p1", "resolved")]
    assert shop.copy(FLASH_SALE_ALERTS) == shop.alerts()


@pytest.mark.long
def test_an_alert_that_late_purchases_refute_is_withdrawn(shop: Shop):
    shop.stream(views(NOON, 101, MINUTE))
    shop.stream(click(NOON + MINUTE, i, event_type="purchase") for i in range(5))
    assert shop.alerts() == []
    assert shop.notifications() == [("p1", "opened"), ("p1", "withdrawn")]
    assert shop.copy(FLASH_SALE_ALERTS) == []


def test_a_batch_that_is_run_again_changes_nothing(shop: Shop):
    shop.stream(views(NOON, 101, MINUTE))
    before = (shop.windows(), shop.alerts(), shop.notifications(), progress_of(shop.settings))
    progress = before[3]
    assert progress
    with ownership(shop.settings, "test") as connection:
        store = WindowStore(connection, shop.settings)
        other = shop.lake.engine.to_arrow(shop.lake.read(PRODUCT_WINDOWS)).drop_columns(
            ["is_final", "batch_id"]
        )
        planned = PlannedBatch(NOON + 60 * MINUTE, {first(shop.settings): 5})
        for batch_id in range(progress.batch_id - progress.base_batch_id):
            changes = store.record(batch_id, planned, other)
            assert changes == Changes(windows=0, alerts=0, notifications=0, open_alerts=1)
    assert (shop.windows(), shop.alerts(), shop.notifications(), progress_of(shop.settings)) == before


@pytest.mark.long
def test_status_adds_up_over_runs(shop: Shop):
    for number in range(2):
        outcome = shop.stream([click(NOON + number * MINUTE, number)])
    outcome.status.unwritten_late = 3
    write_statuses(shop.settings, "test", [outcome.status])
    lag = to_json({first(shop.settings): 0})
    facts = "SELECT rows, dropped_late, lag, batch_id, batch_at IS NOT NULL FROM stream_status"
    assert query(shop.settings, facts) == [(2, 3, lag, outcome.status.batch_id, True)]
    # Of a process that cannot say them, which does not make them unknown.
    write_statuses(shop.settings, "test", [Status("product_windows", error="away")])
    assert query(shop.settings, facts) == [(2, 3, lag, outcome.status.batch_id, True)]
    assert query(shop.settings, "SELECT owner, error, due_at FROM stream_status") == [("test", "away", None)]
