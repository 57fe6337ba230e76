"""The daily files: lines by UTC date, whole whatever ended their writer."""

import os
from datetime import UTC, date, datetime, timedelta

import pytest

from clickstream_assets.errors import InputError
from clickstream_assets.stores.daily_files import DailyFiles, delete_files, event_day

NEW_YEAR = date(2026, 1, 1)


def lines(folder, day):
    return (folder / f"clickstream_{day}.jsonl").read_bytes().split(b"\n")


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
        (b'{"timestamp": 1767312000}', date(2026, 1, 2)),
        (b'{"timestamp": "1767311999999"}', date(2026, 1, 1)),
        (b'{"timestamp": 20260101}', date(2026, 1, 1)),
        (b'{"timestamp": "202601012359"}', date(2026, 1, 1)),
        (b'{"timestamp": "20260101235959"}', date(2026, 1, 1)),
        (b'{"timestamp": -12}', None),
        (b'{"user_id": "user_1"}', None),
        (b"no JSON", None),
        (b"caf\xe9", None),
    ],
)
def test_the_day_of_an_event_is_its_utc_date(value, day):
    assert event_day(value) == day


def test_daily_files_are_deleted_once_nothing_was_written_to_them_for_long(tmp_path):
    names = ["clickstream_2024-05-01.jsonl", "clickstream_2024-05-02.jsonl", "clickstream_2024-05-03.jsonl"]
    others = ["clickstream_notes.jsonl", "clickstream_2024-05-01.csv", "other_2024-05-01.jsonl"]
    now = datetime.now(UTC)
    for number, name in enumerate([*names, *others]):
        (tmp_path / name).write_text("a line\n")
        then = (now - timedelta(days=3 - number if number < 3 else 9)).timestamp()
        os.utime(tmp_path / name, (then, then))
    assert delete_files(tmp_path, now - timedelta(days=4)) == 0
    assert delete_files(tmp_path, now - timedelta(days=1.5)) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([names[2], *others])
    assert delete_files(tmp_path / "nowhere", now) == 0
