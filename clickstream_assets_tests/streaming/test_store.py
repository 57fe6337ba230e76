"""The tables of windows and alerts, batch by batch, without Spark: what a batch, the clock and other rules change."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clickstream_assets.catalogue import PRODUCT_WINDOWS
from clickstream_assets.settings import Settings
from clickstream_assets.streaming.checkpoint import CheckpointError, PlannedBatch
from clickstream_assets.streaming.owner import ownership
from clickstream_assets.streaming.progress import progress_of
from clickstream_assets.streaming.query import WindowQuery
from clickstream_assets.streaming.reconciliation import reconcile_alerts
from clickstream_assets.streaming.store import Changes, WindowStore
from clickstream_assets_tests.analytics.records import at
from clickstream_assets_tests.databases import query, with_settings
from clickstream_assets_tests.streaming.streams import Shop, click, new_shop
from clickstream_assets_tests.topics import first

NOON = at("2024-05-01 12:00")
MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
TEN, FIVE = 10 * MINUTE, 5 * MINUTE
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SCHEMA = pa.schema(field for field in PRODUCT_WINDOWS.arrow if field.name not in ("is_final", "batch_id"))

Event = tuple[datetime, str, str]
"""Time, product and type."""


class Stream:
    """Batches as Spark gives them: every window that the batch changed, with all that was counted in it so far."""

    def __init__(self, shop: Shop, store: WindowStore) -> None:
        self.shop = shop
        self.store = store
        self.number = -1
        self.offset = 0
        self.newest: datetime | None = None
        self._windows: dict[tuple[datetime, str], dict[str, Any]] = {}
        store.progress(0)

    def read(self, *events: Event) -> Changes:
        """A batch with these events."""
        changed = {}
        for moment, product, kind in events:
            latest = moment - (moment - EPOCH) % FIVE
            for start in (latest - FIVE, latest):
                changed[start, product] = self._count(start, moment, product, kind)
        self.number += 1
        self.offset += len(events)
        planned = PlannedBatch(
            self.newest - TEN if self.newest else None, {first(self.shop.settings): self.offset}
        )
        self.newest = max([moment for moment, _, _ in events] + ([self.newest] if self.newest else []))
        return self.store.record(self.number, planned, pa.Table.from_pylist(list(changed.values()), SCHEMA))

    def _count(self, start: datetime, moment: datetime, product: str, kind: str) -> dict[str, Any]:
        row = self._windows.setdefault(
            (start, product),
            {
                "window_start": start,
                "window_end": start + TEN,
                "window_date": start.date(),
                "product_id": product,
                "first_event_time": moment,
                "last_event_time": moment,
                **dict.fromkeys(("views", "add_to_carts", "purchases", "total_events"), 0),
                "distinct_users": 1,
            },
        )
        row["views"] += kind == "view"
        row["purchases"] += kind == "purchase"
        row["total_events"] += 1
        row["first_event_time"] = min(row["first_event_time"], moment)
        row["last_event_time"] = max(row["last_event_time"], moment)
        return row

    def restart(self, **changes: Any) -> None:
        """Go on with other settings."""
        self.shop.settings = with_settings(self.shop.settings, **changes)
        self.store = WindowStore(self.store._connection, self.shop.settings)
        self.store.progress(0)

    def kinds(self, product: str = "p1") -> list[str]:
        """Kinds of a product's notifications."""
        return [kind for of, kind in self.shop.notifications() if of == product]

    def let_time_pass(self) -> None:
        """As if nothing had been read for an hour."""
        query(
            self.shop.settings, "UPDATE stream_progress SET read_at = read_at - interval '1 hour' RETURNING 1"
        )


@contextmanager
def new_stream(settings: Settings, folder: Path) -> Iterator[Stream]:
    with new_shop(settings, folder) as shop, ownership(shop.settings, "test") as connection:
        yield Stream(shop, WindowStore(connection, shop.settings))


@pytest.fixture
def stream(servers: Settings, tmp_path: Path) -> Iterator[Stream]:
    with new_stream(servers, tmp_path) as own:
        yield own


def views(start: datetime, number: int, product: str = "p1") -> list[Event]:
    return [(start + SECOND * i / 2, product, "view") for i in range(number)]


def purchases(start: datetime, number: int = 5, product: str = "p1") -> list[Event]:
    return [(start, product, "purchase")] * number


def test_a_product_that_sells_steadily_is_not_notified_with_every_window(stream: Stream):
    hour = 60 * 60
    for part in range(0, hour, 15):
        stream.read(
            *((NOON + second * SECOND, "p1", "view") for second in range(part, part + 15)),
            *(
                (NOON + second * SECOND, "p1", "purchase")
                for second in range(part, part + 15)
                if not second % 45
            ),
        )
    assert (
        query(
            stream.shop.settings,
            "SELECT FROM product_windows WHERE is_final AND views > 100 AND purchases < 5",
        )
        == []
    )
    # Once, and once more after the cool-down.
    assert stream.kinds() == ["opened", "withdrawn", "opened", "withdrawn"]


def test_after_a_withdrawal_a_sale_is_notified_once_a_window_of_it_is_closed(stream: Stream):
    stream.read(*views(NOON, 101))
    stream.read(*purchases(NOON + 2 * MINUTE))
    assert stream.kinds() == ["opened", "withdrawn"]
    stream.read(*views(NOON + 20 * MINUTE, 101))
    stream.read((NOON + 34 * MINUTE, "p2", "view"))
    (alert,) = stream.shop.alerts()
    assert (alert["state"], alert["is_confirmed"], stream.kinds()[2:]) == ("open", False, [])
    stream.read((NOON + 36 * MINUTE, "p2", "view"))
    # The watermark passes 12:25, and with it the window from 12:15 on.
    stream.read((NOON + 36 * MINUTE, "p2", "view"))
    (alert,) = stream.shop.alerts()
    assert (alert["state"], alert["is_confirmed"], stream.kinds()[2:]) == ("open", True, ["opened"])
    stream.read((NOON + 50 * MINUTE, "p2", "view"))
    stream.read((NOON + 50 * MINUTE, "p2", "view"))
    assert stream.kinds()[2:] == ["opened", "resolved"]


def test_what_is_over_is_closed_when_records_come_no_more(stream: Stream):
    stream.read(*views(NOON, 101))
    assert stream.store.close_idle() is None
    stream.let_time_pass()
    assert stream.store.close_idle() == Changes(0, 1, 1, 0)
    assert {row["is_final"] for row in stream.shop.windows()} == {True}
    (alert,) = stream.shop.alerts()
    assert (alert["state"], alert["resolved_at"]) == ("resolved", NOON + TEN)
    assert stream.kinds() == ["opened", "resolved"]
    assert stream.store.close_idle() is None


def test_what_the_clock_closed_is_open_again_when_events_come(
    stream: Stream, servers: Settings, tmp_path: Path
):
    batches = [
        views(NOON, 101),
        views(NOON + MINUTE, 3),
        views(NOON + 30 * MINUTE, 1, "p2"),
        views(NOON + 31 * MINUTE, 1, "p2"),
    ]
    stream.read(*batches[0])
    stream.let_time_pass()
    stream.store.close_idle()
    before = progress_of(stream.shop.settings)
    # The batch before it, once more: as after a crash.
    assert stream.store.record(
        0, PlannedBatch(None, {first(stream.shop.settings): 101}), SCHEMA.empty_table()
    ) == Changes(0, 0, 0, 0)
    assert progress_of(stream.shop.settings) == before
    assert stream.read(*batches[1]).open_alerts == 1
    assert {row["is_final"] for row in stream.shop.windows()} == {False}
    assert stream.kinds() == ["opened", "resolved", "updated"]
    for events in batches[2:]:
        stream.read(*events)
    assert stream.kinds() == ["opened", "resolved", "updated", "resolved"]
    with new_stream(servers, tmp_path / "other") as undisturbed:
        for events in batches:
            undisturbed.read(*events)
        assert stream.shop.windows() == undisturbed.shop.windows()
        assert stream.shop.alerts() == undisturbed.shop.alerts()


def test_nothing_is_closed_by_the_clock_while_there_are_records_to_read(stream: Stream):
    stream.read(*views(NOON, 2))
    stream.let_time_pass()
    running = WindowQuery(None, stream.shop.settings, stream.store._connection)
    stream.shop.send(click(NOON, number) for number in range(3))
    running.close_idle()
    assert {row["is_final"] for row in stream.shop.windows()} == {False}
    stream.read((NOON + MINUTE, "p1", "view"))
    stream.let_time_pass()
    running.close_idle()
    assert {row["is_final"] for row in stream.shop.windows()} == {True}
    assert running.open_alerts == 0


def test_nothing_is_closed_by_the_clock_where_the_setting_says_so(stream: Stream):
    stream.read(*views(NOON, 2))
    stream.let_time_pass()
    stream.restart(stream_idle_seconds=0)
    assert stream.store.close_idle() is None


@pytest.mark.parametrize(
    ("batch", "offset", "says"),
    [(4, 9, "the database is of an earlier time"), (1, 9, "the checkpoint is of an earlier time")],
)
def test_tables_and_checkpoint_of_different_ages_are_refused(
    stream: Stream, batch: int, offset: int, says: str
):
    for number in range(3):
        stream.read(*views(NOON + number * MINUTE, 2))
    before = (stream.shop.windows(), progress_of(stream.shop.settings))
    with pytest.raises(CheckpointError, match=rf"{says}.*clickstream stream --rebuild"):
        stream.store.record(
            batch, PlannedBatch(None, {first(stream.shop.settings): offset}), SCHEMA.empty_table()
        )
    assert (stream.shop.windows(), progress_of(stream.shop.settings)) == before


def test_other_thresholds_find_all_alerts_anew_and_notify_those_that_are_open(stream: Stream):
    stream.read(*views(NOON, 60))
    stream.read(*views(NOON + 90 * MINUTE, 60))
    stream.read(*views(NOON + 90 * MINUTE, 1, "p2"))
    assert stream.shop.alerts() == []
    # Until the stream starts again, its alerts are checked by the rules that it found them with.
    assert reconcile_alerts(with_settings(stream.shop.settings, views_threshold=50)).wrong == []
    stream.restart(views_threshold=50)
    assert [alert["state"] for alert in stream.shop.alerts()].count("open") == 1
    assert len(stream.shop.alerts()) == 2
    found = reconcile_alerts(stream.shop.settings)
    assert (found.expected, found.actual, found.wrong) == (2, 2, [])
    assert stream.kinds() == ["opened"]
    # The batches go on, and no notification of then is sent later.
    stream.read(*views(NOON + 120 * MINUTE, 1, "p2"))
    stream.read(*views(NOON + 120 * MINUTE, 1))
    assert stream.kinds() == ["opened", "resolved"]
    stream.restart(views_threshold=100)
    assert stream.shop.alerts() == []
    assert stream.kinds() == ["opened", "resolved"]
