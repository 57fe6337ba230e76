"""As many shards as Elasticsearch may have, and days that are far away: what comes in, and what does not grow."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from clickstream_assets.catalogue import EVENTS, REJECTED_EVENTS
from clickstream_assets.settings import Settings
from clickstream_assets.stores.elasticsearch import LiveEvents
from clickstream_assets_tests.faults.account import Part, take_account
from clickstream_assets_tests.faults.load import ends, is_past, load
from clickstream_assets_tests.faults.plugin import Fault
from clickstream_assets_tests.streaming.streams import Shop, click, new_shop
from clickstream_assets_tests.streaming.test_process import (
    QUICK,
    documents,
    has_caught_up,
    has_documents,
    running,
    traffic,
    wait_until,
)

pytestmark = [pytest.mark.long, pytest.mark.server, pytest.mark.spark, pytest.mark.timeout(1800)]
NEXT_DAY = 10_800
"""The first event of `traffic` that is after midnight."""
FIRST_DAY = date(2025, 1, 1)


def are_documents_past(shop: Shop, offsets: dict[Any, int]) -> bool:
    """Return whether Elasticsearch has the topic's events up to these offsets."""
    live = LiveEvents(shop.settings)
    try:
        there = live.progress(shop.settings.topics)
    finally:
        live.close()
    return all(there.get(partition, 0) >= end for partition, end in offsets.items())


@pytest.mark.fault("shard_limit")
def test_a_day_that_elasticsearch_has_no_shard_for_waits_alone_and_comes_in(
    servers: Settings, tmp_path: Path, fault: Fault
):
    log = tmp_path / "stream.log"
    full = "Elasticsearch has as many shards as it may have"
    with new_shop(servers, tmp_path, partitions=3, **QUICK) as shop, running(shop, log) as process:
        live = LiveEvents(shop.settings)

        def allow(shards: int | None) -> None:
            live.client.cluster.put_settings(persistent={"cluster.max_shards_per_node": shards})

        shop.send(traffic(0, 300))
        wait_until(lambda: has_caught_up(shop) and has_documents(shop), log)
        allow(1)
        with load(shop, first=NEXT_DAY):
            try:
                wait_until(lambda: full in log.read_text(), log)
                fault.saw(log.read_text(), rf"{full}.*?(?=; starting again)")
                # The windows go on meanwhile.
                wait_until(partial(is_past, shop, ends(shop)), log)
            finally:
                allow(None)
            with fault.until_healthy():
                wait_until(partial(are_documents_past, shop, ends(shop)), log)
        wait_until(lambda: has_caught_up(shop) and has_documents(shop), log)
        assert process.poll() is None
        assert "the streams stopped" not in log.read_text()
        shop.ingest()
        fault.settle(take_account(shop.settings, shop.sent))
        live.close()


@pytest.mark.fault("far_days")
def test_events_of_thousands_of_days_make_no_more_of_them_than_there_may_be(
    servers: Settings, tmp_path: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EVENTS_START_DATE", FIRST_DAY.isoformat())
    log = tmp_path / "stream.log"
    now = datetime.now(UTC)

    def regular(first: int, number: int) -> list[dict[str, Any]]:
        start = now - timedelta(hours=1)
        numbers = range(first, first + number)
        return [click(start + timedelta(seconds=4 * i), i, user_id=f"u{i}") for i in numbers]

    far = [
        *(
            click(datetime(1990, 1, 1, tzinfo=UTC) + timedelta(days=10 * i), i, event_id=f"far{i}")
            for i in range(4000)
        ),
        click(datetime(1, 1, 1, tzinfo=UTC), 0, event_id="first"),
        click(datetime(9999, 12, 31, tzinfo=UTC), 0, event_id="last"),
    ]
    moments = {event["event_id"]: datetime.fromisoformat(event["timestamp"]) for event in far}
    begin = datetime.combine(FIRST_DAY, datetime.min.time(), UTC)
    kept = {name for name, moment in moments.items() if begin <= moment <= now}
    recent = {name for name in kept if moments[name].date() >= now.date() - timedelta(days=30)}
    assert 50 < len(kept) < 100
    with new_shop(servers, tmp_path, partitions=3, events_start_date=FIRST_DAY, **QUICK) as shop:
        with running(shop, log) as process:
            shop.send(regular(0, 300))
            wait_until(lambda: has_caught_up(shop) and has_documents(shop), log)
            shop.send(far, partition=1)
            shop.send(regular(300, 300), partition=2)
            with fault.until_healthy():
                wait_until(lambda: has_caught_up(shop) and are_documents_past(shop, ends(shop)), log)
            assert process.poll() is None
            assert "the streams stopped" not in log.read_text()
        shop.ingest()
        refused = set(moments) - kept
        rules = Counter(row["rule"] for row in shop.copy(REJECTED_EVENTS))
        assert rules.total() == len(refused)
        fault.saw(f"rejected: {', '.join(f'{count:,} by {rule}' for rule, count in sorted(rules.items()))}")
        days = {day for _, day, _ in documents(shop.settings)}
        folders = list((Path(shop.settings.lake) / EVENTS.name).glob("event_date=*"))
        assert len(folders) == len(
            {
                datetime.fromisoformat(event["timestamp"]).date()
                for event in shop.sent
                if event["event_id"] not in refused
            }
        )
        assert len(days) <= 31
        fault.saw(f"of {len(far):,} days {len(folders)} are in the lake and {len(days)} in Elasticsearch")
        absent: dict[Part, set[str]] = {
            Part.LAKE: refused,
            Part.WINDOWS: set(moments),
            Part.DOCUMENTS: set(moments) - recent,
        }
        fault.settle(take_account(shop.settings, shop.sent, absent=absent))
