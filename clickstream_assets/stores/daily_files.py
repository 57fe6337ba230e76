"""Daily files of JSON lines, where simulated and replayed records go besides Kafka."""

from collections import defaultdict
from contextlib import nullcontext, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import msgspec

from clickstream_assets.catalogue.clock import in_digits
from clickstream_assets.errors import InputError

_LINES_IN_MEMORY = 10_000
_PREFIX = "clickstream_"


class DailyFiles:
    """Appends records as lines to `clickstream_YYYY-MM-DD.jsonl`, a file for each UTC date.

    A record that has no date goes into the file of the date before it, the first of all into today's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: defaultdict[date, list[bytes]] = defaultdict(list)
        self._current = datetime.now(UTC).date()
        self.written = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(folder, error) from None

    def write(self, value: bytes, day: date | None) -> None:
        """Append a record; it is in the file after the next `flush`, or some thousand records later.

        Raises:
            InputError: the record holds a line break, or the folder cannot be written to.
        """
        if b"\n" in value:
            raise InputError(
                f"Record {self.written + 1} holds a line break, so it is no line of a daily file; leave the "
                "files out to send it"
            )
        self._current = day or self._current
        self._waiting[self._current].append(value)
        self.written += 1
        if self.written % _LINES_IN_MEMORY == 0:
            self.flush()

    def flush(self) -> None:
        """Write every line to its file, to each of them whatever becomes of the others.

        Raises:
            InputError: a file cannot be written to.
        """
        problems = []
        while self._waiting:
            day, lines = self._waiting.popitem()
            try:
                with (self._folder / f"{_PREFIX}{day.isoformat()}.jsonl").open("a+b") as file:
                    if file.tell() and _last_byte(file) != b"\n":
                        # Whoever wrote last was killed in the middle of a line.
                        lines.insert(0, b"")
                    file.write(b"\n".join([*lines, b""]))
            except OSError as problem:
                problems.append(problem)
        if problems:
            raise _unwritable(self._folder, problems[0])

    def __enter__(self) -> Self:
        """The sink itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the lines that are left."""
        # The error that is under way came first; another must not hide it.
        with suppress(InputError) if error else nullcontext():
            self.flush()


def delete_files(folder: Path, before: datetime) -> int:
    """Delete the daily files of a folder that were last written before a time, and no other file.

    Returns:
        How many were deleted.
    """
    deleted = 0
    for path in folder.glob(f"{_PREFIX}*.jsonl"):
        day = path.stem.removeprefix(_PREFIX)
        with suppress(ValueError, FileNotFoundError):
            # Another may delete the same.
            if date.fromisoformat(day) and path.stat().st_mtime < before.timestamp():
                path.unlink()
                deleted += 1
    return deleted


class _Timed(msgspec.Struct):
    timestamp: str | int | None = None


_decode_timed = msgspec.json.Decoder(_Timed).decode


def event_day(value: bytes) -> date | None:
    """Return the UTC date of an event's timestamp; None if it has none that can be read."""
    try:
        given = str(_decode_timed(value).timestamp or "")
        if given.isdecimal() and given.isascii():
            return _day_of_number(int(given))
        timestamp = datetime.fromisoformat(given)
        return (timestamp.astimezone(UTC) if timestamp.tzinfo else timestamp).date()
    except (msgspec.MsgspecError, ValueError, OverflowError):
        return None


def _day_of_number(since_epoch: int) -> date:
    """Return the date of a time in seconds, milliseconds, microseconds or nanoseconds: what is before the year 5138.

    That of the calendar, where its digits are.
    """
    if moment := in_digits(since_epoch):
        return moment.date()
    while since_epoch >= 10**11:
        since_epoch //= 1000
    return datetime.fromtimestamp(since_epoch, UTC).date()


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"RAW_LOGS_PATH={folder} cannot be written to: {error.strerror or error}; mend that there, set "
        "RAW_LOGS_PATH to another folder, or leave the files out (--no-files)"
    )


def _last_byte(file: BinaryIO) -> bytes:
    file.seek(-1, 2)
    return file.read(1)
