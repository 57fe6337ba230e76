import json
import random
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from clickstream_assets.errors import InputError
from clickstream_assets.simulator.malformed import KINDS
from clickstream_assets.simulator.stream import Faults, Record, RecordStream
from clickstream_assets.simulator.traffic import Traffic

from .judge import event_time, judge, problem

START = datetime(2026, 1, 1, tzinfo=UTC)
TRAFFIC = Traffic(users=200, products=60, seed=7, start=START, events=6_000, seconds=86_400)
ALL_FAULTS = Faults(late=0.05, duplicate=0.06, conflicting=0.04, malformed=0.05)
PLAIN_FAULTS = replace(ALL_FAULTS, conflicting=0.0)


def make(traffic=TRAFFIC, faults=None, **options) -> list[Record]:
    return list(RecordStream(traffic, faults, **options))


@pytest.mark.parametrize(("plain", "faults"), [(False, ALL_FAULTS), (True, PLAIN_FAULTS)])
def test_the_same_seed_and_start_make_the_same_records(plain, faults):
    assert make(faults=faults, plain=plain) == make(faults=faults, plain=plain)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("other", [{"seed": 8}, {"start": START + timedelta(days=1)}])
def test_another_seed_or_start_makes_other_events_that_collide_with_none(plain, other):
    first, second = make(plain=plain), make(replace(TRAFFIC, **other), plain=plain)
    assert judge(record.value for record in first + second)["events"] == 2 * TRAFFIC.events


def test_a_start_without_offset_is_utc():
    first = make(replace(TRAFFIC, start=datetime(2026, 1, 1), events=1))[0]
    assert event_time(json.loads(first.value)) == START


@pytest.mark.parametrize(
    ("plain", "faults"),
    [
        (False, Faults()),
        (False, ALL_FAULTS),
        (False, Faults(late=1.0)),
        (False, Faults(duplicate=1.0)),
        (False, Faults(conflicting=1.0)),
        (False, Faults(malformed=1.0)),
        (True, Faults()),
        (True, PLAIN_FAULTS),
        (True, Faults(duplicate=0.5, malformed=0.5)),
    ],
)
def test_what_was_made_is_what_the_counting_rules_find(plain, faults):
    stream = RecordStream(TRAFFIC, faults, plain=plain)
    records = list(stream)
    found = judge(record.value for record in records)
    made = stream.made

    assert made.events == found["events"] == TRAFFIC.events
    assert (made.duplicates, made.conflicts, made.rejected) == (
        found["duplicates"],
        found["conflicts"],
        found["rejected"],
    )
    assert made.sent == len(records) == made.events + made.duplicates + made.conflicts + made.rejected
    assert made.by_type == {name: found[name] for name in made.by_type}
    assert sum(made.by_type.values()) == made.events
    assert sum(made.rejected_by_kind.values()) == made.rejected
    valid = [json.loads(record.value) for record in records if not problem(record.value)]
    assert made.users == len({event["user_id"] for event in valid})
    assert made.buyers == len({event["user_id"] for event in valid if event["event_type"] == "purchase"})


@pytest.mark.parametrize(("plain", "faults"), [(False, ALL_FAULTS), (True, PLAIN_FAULTS)])
def test_counts_do_not_depend_on_how_keys_are_interleaved(plain, faults):
    by_key = defaultdict(list)
    in_order = make(faults=faults, plain=plain)
    for record in in_order:
        by_key[record.key].append(record.value)
    keys = list(by_key)
    random.Random(1).shuffle(keys)
    assert judge(value for key in keys for value in by_key[key]) == judge(r.value for r in in_order)


def test_the_key_of_an_event_is_its_user():
    records = make(faults=ALL_FAULTS)
    valid = [record for record in records if not problem(record.value)]
    assert all(record.key.decode() == json.loads(record.value)["user_id"] for record in valid)


def test_each_fault_is_about_as_frequent_as_its_share():
    stream = RecordStream(TRAFFIC, ALL_FAULTS)
    list(stream)
    made = stream.made
    for count, share in (
        (made.late, ALL_FAULTS.late),
        (made.duplicates, ALL_FAULTS.duplicate),
        (made.conflicts, ALL_FAULTS.conflicting),
        (made.rejected, ALL_FAULTS.malformed),
    ):
        # Five standard deviations of a binomial count.
        assert abs(count - share * made.events) < 5 * (share * made.events) ** 0.5


def test_faults_leave_the_events_as_they_are():
    faulty = {record.value for record in make(faults=ALL_FAULTS)}
    assert {record.value for record in make()} <= faulty


@pytest.mark.parametrize("plain", [False, True])
def test_late_events_arrive_after_events_that_happened_later(plain):
    faults = Faults(late=0.1, late_by_minutes=30)
    stream = RecordStream(TRAFFIC, faults, plain=plain)
    latest = datetime.min.replace(tzinfo=UTC)
    late_by = []
    for record in stream:
        time = event_time(json.loads(record.value))
        if time < latest:
            late_by.append(latest - time)
        latest = max(latest, time)
    assert stream.made.late == len(late_by)
    assert len(late_by) > 0.08 * TRAFFIC.events
    # Besides what it is held back, a late event waits for the next one.
    assert max(late_by) < timedelta(minutes=30 + 15)


def test_without_late_events_the_stream_is_in_time_order():
    times = [event_time(json.loads(record.value)) for record in make()]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("kind", "broken_rule"),
    [
        ("not_json", "json"),
        ("not_an_object", "object"),
        ("no_user_id", "user_id"),
        ("no_timestamp", "timestamp"),
        ("unknown_event_type", "event_type"),
        ("product_id_is_an_object", "product_id"),
        ("timestamp_is_nonsense", "timestamp"),
        ("timestamp_before_2000", "timestamp"),
        ("empty_product_id", "product_id"),
        ("invalid_utf8", "utf8"),
    ],
)
@pytest.mark.parametrize("plain", [False, True])
def test_every_malformed_kind_is_invalid_whatever_event_it_came_from(kind, broken_rule, plain):
    for record in make(replace(TRAFFIC, events=500), plain=plain):
        assert problem(record.value) is None
        value = KINDS[kind](json.loads(record.value))
        assert problem(value) == broken_rule
        assert b"\n" not in value


def test_every_malformed_kind_is_made():
    stream = RecordStream(TRAFFIC, Faults(malformed=0.2))
    list(stream)
    assert set(stream.made.rejected_by_kind) == set(KINDS)


def test_a_record_belongs_to_the_daily_file_of_its_utc_date():
    for record in make(replace(TRAFFIC, seconds=3 * 86_400), ALL_FAULTS):
        if not problem(record.value) and b"-reload" not in record.value:
            assert record.day == event_time(json.loads(record.value)).date()


def test_a_clock_stamps_the_events():
    ticks = iter(range(1_000_000_000_000_000, 2_000_000_000_000_000, 1_000_000))
    endless = replace(TRAFFIC, events=None, rate=10.0)
    records = iter(RecordStream(endless, clock=lambda: next(ticks)))
    times = [event_time(json.loads(next(records).value)) for _ in range(3)]
    assert times == [datetime.fromtimestamp(1_000_000_000 + i, UTC) for i in range(3)]


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"late": -0.1}, "late=-0.1: a share must be between 0 and 1"),
        ({"malformed": 1.5}, "malformed=1.5: a share must be between 0 and 1"),
        ({"late": 0.6, "duplicate": 0.6}, "add up to more than 1"),
        ({"late_by_minutes": 0.5}, "late_by_minutes=0.5"),
    ],
)
def test_impossible_shares_are_refused(shares, message):
    with pytest.raises(InputError, match=message):
        Faults(**shares)


@pytest.mark.parametrize(
    "wrong", [{"users": 0}, {"products": 0}, {"events": -1}, {"bots": 2}, {"seconds": 0}]
)
def test_impossible_traffic_is_refused(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))}="):
        replace(TRAFFIC, **wrong)


def test_plain_events_cannot_conflict():
    with pytest.raises(InputError, match=r"conflicting=0\.1"):
        RecordStream(TRAFFIC, Faults(conflicting=0.1), plain=True)
