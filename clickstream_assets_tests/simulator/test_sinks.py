import os
import random
from datetime import UTC, date, datetime

import pytest

from clickstream_assets.errors import InputError
from clickstream_assets.settings import Settings
from clickstream_assets.simulator.sinks import DailyFiles, event_day
from clickstream_assets.stores.kafka.producer import KafkaSink, ensure_topic

NEW_YEAR = date(2026, 1, 1)


def lines(folder, day):
    return (folder / f"clickstream_{day}.jsonl").read_bytes().split(b"\n")


def test_ensure_topic_creates_it_with_the_partitions_of_the_settings_once(missing_topic, consume):
    settings = Settings(**missing_topic.model_dump() | {"kafka_topic_partitions": 5}, _env_file=None)
    assert ensure_topic(settings) is True
    assert ensure_topic(settings) is False
    assert set(consume()) == set(range(5))


def test_records_arrive_once_and_in_order_for_each_key(own_topic, consume):
    sent = [(f"user_{number % 17}".encode(), b"%d" % number) for number in range(20_000)]
    with KafkaSink(own_topic) as sink:
        for key, value in sent:
            sink.send(key, value)
        sink.flush()
        assert sink.delivered == 20_000
    arrived = [(record.key, record.value) for records in consume().values() for record in records]
    assert len(arrived) == 20_000
    for key in {key for key, _ in sent}:
        assert [value for k, value in arrived if k == key] == [value for k, value in sent if k == key]


def test_a_key_goes_to_the_partition_that_other_clients_choose(own_topic, consume):
    from kafka import KafkaProducer

    keys = [f"user_{number}".encode() for number in range(50)]
    with KafkaSink(own_topic) as sink:
        for key in keys:
            sink.send(key, b"ours")
    other = KafkaProducer(bootstrap_servers=own_topic.kafka_bootstrap_servers.split(","))
    for key in keys:
        other.send(own_topic.kafka_topic, key=key, value=b"theirs")
    other.flush()
    other.close()
    for records in consume().values():
        ours = {record.key for record in records if record.value == b"ours"}
        assert ours == {record.key for record in records if record.value == b"theirs"}


@pytest.mark.parametrize(
    ("count", "flushes"), [(1_000, False), (1, True), (1, False)], ids=["a write", "a flush", "the end"]
)
def test_a_full_disk_is_named_with_the_fix_wherever_it_shows(tmp_path, count, flushes):
    (tmp_path / "clickstream_2026-01-01.jsonl").symlink_to("/dev/full")

    def fill():
        with DailyFiles(tmp_path) as files:
            for _ in range(count):
                files.write(b"x" * 200, NEW_YEAR)
            if flushes:
                files.flush()

    with pytest.raises(InputError) as caught:
        fill()
    assert f"RAW_LOGS_PATH={tmp_path} cannot be written to: No space left on device" in str(caught.value)
    assert "--no-files" in str(caught.value)


def test_the_other_files_are_whole_when_one_disk_is_full(tmp_path):
    (tmp_path / "clickstream_2026-01-01.jsonl").symlink_to("/dev/full")
    files = DailyFiles(tmp_path)
    files.write(b"first", NEW_YEAR)
    files.write(b"second", date(2026, 1, 2))
    with pytest.raises(InputError, match="No space left"):
        files.__exit__(None, None, None)
    assert lines(tmp_path, "2026-01-02") == [b"second", b""]


def test_a_record_without_a_key_arrives(own_topic, consume):
    with KafkaSink(own_topic) as sink:
        sink.send(None, b"no user")
    assert [(r.key, r.value) for records in consume().values() for r in records] == [(None, b"no user")]


def test_a_record_larger_than_the_broker_accepts_is_named_and_the_others_arrive(own_topic, consume):
    huge = random.Random(1).randbytes(2_000_000)
    sink = KafkaSink(own_topic)
    sink.send(b"user_1", b"first")
    sink.send(b"user_1", huge)
    with pytest.raises(InputError, match=r"record 2 of 2000000 bytes is larger than the broker accepts"):
        sink.flush()
    with pytest.raises(InputError, match=r"did not take 1 of 2 records"):
        sink.send(b"user_1", b"third")
    assert [r.value for records in consume().values() for r in records] == [b"first"]


def test_a_record_too_large_for_any_broker_is_named_at_once(own_topic, consume):
    sink = KafkaSink(own_topic)
    sink.send(b"user_1", b"first")
    with pytest.raises(InputError, match=r"record 2 of 70000000 bytes is larger"):
        sink.send(b"user_1", bytes(70_000_000))
    with pytest.raises(InputError, match=r"did not take 1 of 2 records"):
        sink.flush()
    assert [r.value for records in consume().values() for r in records] == [b"first"]


def send_and_fail(settings, error, large=b""):
    with KafkaSink(settings) as sink:
        sink.send(b"user_1", b"first")
        if large:
            sink.send(b"user_1", large)
        raise error


def test_an_error_of_the_caller_is_not_hidden_and_what_was_sent_before_it_arrives(own_topic, consume):
    error = RuntimeError("of the caller")
    with pytest.raises(RuntimeError, match="of the caller"):
        send_and_fail(own_topic, error)
    assert not hasattr(error, "__notes__")
    assert [r.value for records in consume().values() for r in records] == [b"first"]


def test_an_undelivered_record_is_noted_with_the_error_of_the_caller(own_topic):
    error = RuntimeError("of the caller")
    with pytest.raises(RuntimeError, match="of the caller"):
        send_and_fail(own_topic, error, large=random.Random(1).randbytes(2_000_000))
    assert "record 2 of 2000000 bytes" in error.__notes__[0]


def test_a_broker_that_is_not_there_is_named_with_the_fix(offline_settings):
    with pytest.raises(InputError) as caught:
        KafkaSink(offline_settings)
    message = str(caught.value)
    assert "KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:1 within 1 s" in message
    assert "clickstream stack up" in message


def test_a_topic_name_that_kafka_refuses_is_named(own_topic):
    settings = Settings(**own_topic.model_dump() | {"kafka_topic": "no spaces, please"}, _env_file=None)
    with pytest.raises(InputError, match="KAFKA_TOPIC=no spaces, please"):
        ensure_topic(settings)


def test_records_are_lines_of_the_file_of_their_date(tmp_path):
    folder = tmp_path / "new" / "raw_logs"
    with DailyFiles(folder) as files:
        files.write(b'{"a": 1}', NEW_YEAR)
        files.write(b'{"b": 2}', date(2026, 1, 2))
        files.write(b"caf\xe9, no JSON", None)
        files.write(b'{"c": 3}', NEW_YEAR)
    assert lines(folder, "2026-01-01") == [b'{"a": 1}', b'{"c": 3}', b""]
    assert lines(folder, "2026-01-02") == [b'{"b": 2}', b"caf\xe9, no JSON", b""]


def test_a_first_record_without_a_date_goes_to_today(tmp_path):
    before = datetime.now(UTC).date()
    with DailyFiles(tmp_path) as files:
        files.write(b"no JSON", None)
    assert {path.name for path in tmp_path.iterdir()} <= {
        f"clickstream_{day}.jsonl" for day in (before, datetime.now(UTC).date())
    }


def test_files_are_appended_to_and_a_cut_line_stays_a_line_of_its_own(tmp_path):
    path = tmp_path / "clickstream_2026-01-01.jsonl"
    path.write_bytes(b'{"whole": 1}\n{"cut": ')
    for value in (b'{"a": 1}', b'{"b": 2}'):
        with DailyFiles(tmp_path) as files:
            files.write(value, NEW_YEAR)
    assert lines(tmp_path, "2026-01-01") == [b'{"whole": 1}', b'{"cut": ', b'{"a": 1}', b'{"b": 2}', b""]


def test_more_dates_than_files_are_kept_open(tmp_path):
    days = [date.fromordinal(NEW_YEAR.toordinal() + number) for number in range(100)]
    with DailyFiles(tmp_path) as files:
        for turn in (b"1", b"2"):
            for day in days:
                files.write(turn, day)
    assert all(lines(tmp_path, day) == [b"1", b"2", b""] for day in days)


def test_flushed_lines_can_be_read_while_the_file_is_open(tmp_path):
    with DailyFiles(tmp_path) as files:
        files.write(b"{}", NEW_YEAR)
        files.flush()
        assert lines(tmp_path, NEW_YEAR) == [b"{}", b""]


def test_a_record_with_a_line_break_is_refused(tmp_path):
    with DailyFiles(tmp_path) as files, pytest.raises(InputError, match="Record 1 holds a line break"):
        files.write(b"two\nlines", NEW_YEAR)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"RAW_LOGS_PATH={tmp_path}{os.sep}file"):
        DailyFiles(tmp_path / "file")


@pytest.mark.parametrize(
    ("value", "day"),
    [
        (b'{"timestamp": "2026-01-01T23:59:59.999Z"}', date(2026, 1, 1)),
        (b'{"timestamp": "2026-01-01T23:30:00-02:00"}', date(2026, 1, 2)),
        (b'{"timestamp": "2026-01-01T00:00:00.000000", "user_id": 1}', date(2026, 1, 1)),
        (b'{"timestamp": "0001-01-01T00:00:00+10:00"}', None),
        (b'{"timestamp": "yesterday"}', None),
        (b'{"timestamp": 12}', None),
        (b'{"user_id": "user_1"}', None),
        (b"no JSON", None),
        (b"caf\xe9", None),
    ],
)
def test_the_day_of_an_event_is_its_utc_date(value, day):
    assert event_day(value) == day
