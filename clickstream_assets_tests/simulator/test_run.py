import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from clickstream_assets.errors import InputError
from clickstream_assets.ingest.replay import run_replay
from clickstream_assets.settings import Settings
from clickstream_assets.simulator.run import SimulationOptions, plan_traffic, run_simulation
from clickstream_assets.simulator.stream import Faults
from clickstream_assets_tests.databases import with_settings

from .judge import event_time, judge

START = datetime(2026, 1, 1, tzinfo=UTC)
TWO_DAYS = SimulationOptions(
    events=3_000,
    seed=11,
    start=START,
    days=2,
    faults=Faults(late=0.02, duplicate=0.05, conflicting=0.03, malformed=0.04),
)


def daily_lines(settings):
    return {path.name: path.read_bytes().splitlines() for path in sorted(settings.raw_logs.glob("*.jsonl"))}


def test_a_simulation_puts_the_same_records_into_the_topic_and_the_daily_files(own_topic, consume):
    made = run_simulation(own_topic, TWO_DAYS)
    by_partition = consume()
    in_topic = [record.value() for records in by_partition.values() for record in records]
    files = daily_lines(own_topic)

    found = judge(in_topic)
    assert made.sent == len(in_topic)
    assert (made.events, made.duplicates, made.conflicts, made.rejected) == (
        found["events"],
        found["duplicates"],
        found["conflicts"],
        found["rejected"],
    )
    assert Counter(in_topic) == Counter(line for lines in files.values() for line in lines)
    assert list(files)[:2] == ["clickstream_2026-01-01.jsonl", "clickstream_2026-01-02.jsonl"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"kafka_topic": "web=segment,clicks"},
        {"event_dialect": "ga4"},
    ],
)
def test_simulated_events_are_not_sent_where_all_would_be_rejected(offline_settings, changes):
    settings = with_settings(offline_settings, **changes)
    name = next(iter(changes)).upper()
    with pytest.raises(InputError, match=f"{name}: records of .* all would be rejected"):
        run_simulation(settings, TWO_DAYS)
    # Where the first topic takes them, they get as far as the broker, which is not there.
    with pytest.raises(InputError, match="No Kafka broker answered"):
        run_simulation(with_settings(settings, kafka_topic="clicks=own,web=segment"), TWO_DAYS)


def test_the_records_of_a_user_are_in_one_partition(own_topic, consume):
    run_simulation(own_topic, TWO_DAYS)
    keys = [{record.key() for record in records} for records in consume().values()]
    assert all(keys)
    assert sum(len(users) for users in keys) == len(set().union(*keys))


def test_daily_files_replay_to_the_same_counts(own_topic, consume, tmp_path):
    made = run_simulation(own_topic, replace(TWO_DAYS, kafka=False))
    source = tmp_path / "all.jsonl"
    source.write_bytes(b"".join(path.read_bytes() for path in sorted(own_topic.raw_logs.iterdir())))
    replayed = run_replay(own_topic, source, files=False)
    found = judge(record.value() for records in consume().values() for record in records)
    assert (replayed.sent, replayed.skipped) == (made.sent, {})
    assert found["events"] == made.events
    assert found["rejected"] == made.rejected


def test_a_stopped_simulation_has_delivered_what_it_counts(own_topic, consume):
    sent = 0

    def progress(number):
        nonlocal sent
        sent = number

    options = replace(TWO_DAYS, events=1_000_000, days=365)
    made = run_simulation(own_topic, options, stop=lambda: sent >= 500, progress=progress)
    assert made.sent == 500
    values = [record.value() for records in consume().values() for record in records]
    assert len(values) == 500
    assert judge(values)["events"] == made.events


@pytest.mark.parametrize("plain", [False, True])
def test_live_events_carry_the_current_time_and_no_two_the_same(offline_settings, plain):
    before = datetime.now(UTC)
    options = SimulationOptions(events=300, rate=100_000, plain=plain, kafka=False)
    assert options.is_live
    run_simulation(offline_settings, options)
    times = [
        event_time(json.loads(line)) for lines in daily_lines(offline_settings).values() for line in lines
    ]
    assert len(set(times)) == 300
    assert before <= min(times)
    # Stamps are pushed ahead by a microsecond each where they would be the same.
    assert max(times) <= datetime.now(UTC) + timedelta(microseconds=300)


def test_live_events_without_number_go_on_until_they_are_stopped(offline_settings):
    settings = Settings(**offline_settings.model_dump() | {"simulator_interval": 0}, _env_file=None)
    seen: list[Any] = []
    made = run_simulation(
        settings, SimulationOptions(kafka=False), stop=lambda: len(seen) == 2_000, progress=seen.append
    )
    assert made.sent == made.events == 2_000


def test_a_replay_keeps_lines_as_they_are_and_files_them_by_utc_date(own_topic, consume, tmp_path):
    content = [
        b'{"user_id": "u1", "event_type": "search", "timestamp": "2026-01-01T23:30:00-02:00"}',
        b'{"broken": ',
        b'{"user_id": "u1", "event_type": "search", "timestamp": "2026-01-01T10:00:00"}',
    ]
    source = tmp_path / "events.jsonl"
    source.write_bytes(b"\n\n".join(content))
    replayed = run_replay(own_topic, source)
    assert (replayed.sent, replayed.skipped, replayed.format) == (3, {"blank_line": 2}, "JSON lines")
    assert Counter(r.value() for records in consume().values() for r in records) == Counter(content)
    assert daily_lines(own_topic) == {
        "clickstream_2026-01-01.jsonl": content[2:],
        "clickstream_2026-01-02.jsonl": content[:2],
    }


def test_a_limit_ends_a_replay(offline_settings, tmp_path):
    source = tmp_path / "events.jsonl"
    source.write_bytes(
        b'{"event_type": "search", "user_id": "u1", "timestamp": "2026-01-01T00:00:00Z"}\n' * 10
    )
    assert run_replay(offline_settings, source, limit=4, kafka=False).sent == 4
    assert [len(lines) for lines in daily_lines(offline_settings).values()] == [4]


def test_a_replay_of_a_daily_file_into_the_daily_files_is_refused(offline_settings):
    run_simulation(offline_settings, replace(TWO_DAYS, kafka=False))
    path = offline_settings.raw_logs / "clickstream_2026-01-01.jsonl"
    size = path.stat().st_size
    with pytest.raises(InputError, match=r"RAW_LOGS_PATH=.*--no-files"):
        run_replay(offline_settings, path, kafka=False)
    assert path.stat().st_size == size


def test_what_was_readable_of_a_broken_file_is_delivered_before_the_error(own_topic, consume, tmp_path):
    header = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
    row = "2019-10-01 00:00:00 UTC,view,p,c,,,1.0,u,s\n"
    source = tmp_path / "rees46.csv"
    source.write_text(header + row * 3 + '"' + "x" * 200_000)
    with pytest.raises(InputError, match="line 5"):
        run_replay(own_topic, source)
    assert sum(len(records) for records in consume().values()) == 3


def test_a_span_ends_before_now_and_is_a_week_by_default(offline_settings):
    traffic = plan_traffic(offline_settings, SimulationOptions(events=1_000))
    assert traffic.seconds == 7 * 86_400
    assert traffic.start + timedelta(days=7, hours=1) <= datetime.now(UTC)
    assert (traffic.users, traffic.products) == (1000, 100)


def test_a_default_span_is_long_enough_for_the_users(offline_settings):
    traffic = plan_traffic(offline_settings, SimulationOptions(events=1_000_000, users=10))
    assert traffic.seconds > 40 * 1_000_000 / 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"days": 3}, "give one"),
        ({"start": START}, "give one"),
        ({"events": 100, "rate": 0}, r"rate=0: must be more than 0"),
        ({"events": 100, "days": -1}, r"days=-1: must be more than 0"),
        ({"events": 100, "users": 0}, r"users=0: must be more than 0"),
        ({"events": 100, "products": 0}, r"products=0: must be at least 1"),
        ({"events": 100_000, "users": 10, "days": 1}, r"100000 events of 10 users .* to 47 or .* to 4\.63"),
        ({"events": 1, "kafka": False, "files": False}, "Neither Kafka nor files"),
    ],
)
def test_options_that_cannot_be_used_are_named(offline_settings, options, message):
    with pytest.raises(InputError, match=message):
        run_simulation(offline_settings, SimulationOptions(**options))


@pytest.mark.parametrize("options", [{"rate": 0}, {"limit": 0}])
def test_replay_options_that_cannot_be_used_are_named(offline_settings, options, tmp_path):
    with pytest.raises(InputError, match=f"{next(iter(options))}=0"):
        run_replay(offline_settings, tmp_path / "any", **options)


def test_a_seed_alone_makes_a_run_again_and_begins_on_the_day_that_is_documented(offline_settings, tmp_path):
    again = Settings(**offline_settings.model_dump() | {"raw_logs_path": tmp_path / "2"}, _env_file=None)
    options = SimulationOptions(events=500, kafka=False, seed=5, faults=TWO_DAYS.faults)
    first, second = (run_simulation(settings, options) for settings in (offline_settings, again))
    assert first == second
    assert daily_lines(offline_settings) == daily_lines(again)
    assert min(daily_lines(again)) == "clickstream_2026-01-01.jsonl"


def test_seed_and_start_make_a_run_again(offline_settings, tmp_path):
    first = run_simulation(offline_settings, SimulationOptions(events=500, kafka=False))
    again = Settings(**offline_settings.model_dump() | {"raw_logs_path": tmp_path / "2"}, _env_file=None)
    second = run_simulation(
        again, SimulationOptions(events=500, kafka=False, seed=first.seed, start=first.start)
    )
    assert first == second
    assert daily_lines(offline_settings) == daily_lines(again)
