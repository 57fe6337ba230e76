"""Daily files of JSON lines, where simulated and replayed records go besides Kafka."""

from collections import OrderedDict
from datetime import UTC, date, datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import msgspec

from clickstream_assets.errors import InputError

_OPEN_FILES = 16


class DailyFiles:
    """Appends records as lines to `clickstream_YYYY-MM-DD.jsonl`, a file for each UTC date.

    A record that has no date goes into the file of the date before it, the first of all into today's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: OrderedDict[date, BinaryIO] = OrderedDict()
        self._current = datetime.now(UTC).date()
        self.written = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(folder, error) from None

    def write(self, value: bytes, day: date | None) -> None:
        """Append a record.

        Raises:
            InputError: the record holds a line break, or the folder cannot be written to.
        """
        if b"\n" in value:
            raise InputError(
                f"Record {self.written + 1} holds a line break, so it is no line of a daily file; leave the "
                "files out to send it"
            )
        self._current = day or self._current
        try:
            file = self._file(self._current)
            file.write(value)
            file.write(b"\n")
        except OSError as error:
            raise _unwritable(self._folder, error) from None
        self.written += 1

    def flush(self) -> None:
        """Make every line visible to readers of the files.

        Raises:
            InputError: a file cannot be written to; most writes only fail here, where their lines leave memory.
        """
        try:
            for file in self._files.values():
                file.flush()
        except OSError as error:
            raise _unwritable(self._folder, error) from None

    def __enter__(self) -> Self:
        """The sink itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write out and close the files, each of them whatever becomes of the others."""
        problems = []
        for file in self._files.values():
            try:
                file.close()
            except OSError as problem:
                problems.append(problem)
        # The error that is under way came first; this one must not hide it.
        if problems and error is None:
            raise _unwritable(self._folder, problems[0])

    def _file(self, day: date) -> BinaryIO:
        file = self._files.get(day)
        if file is not None:
            self._files.move_to_end(day)
            return file
        if len(self._files) >= _OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        file = (self._folder / f"clickstream_{day.isoformat()}.jsonl").open("a+b")
        self._files[day] = file
        if file.tell() and _last_byte(file) != b"\n":
            # Whoever wrote last was killed in the middle of a line.
            file.write(b"\n")
        return file


class _Timed(msgspec.Struct):
    timestamp: str | None = None


_decode_timed = msgspec.json.Decoder(_Timed).decode


def event_day(value: bytes) -> date | None:
    """UTC date of an event's timestamp; None if it has none that can be read."""
    try:
        timestamp = datetime.fromisoformat(_decode_timed(value).timestamp or "")
        return (timestamp.astimezone(UTC) if timestamp.tzinfo else timestamp).date()
    except (msgspec.MsgspecError, ValueError, OverflowError):
        return None


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"RAW_LOGS_PATH={folder} cannot be written to: {error.strerror or error}; mend that there, set "
        "RAW_LOGS_PATH to another folder, or leave the files out (--no-files)"
    )


def _last_byte(file: BinaryIO) -> bytes:
    file.seek(-1, 2)
    return file.read(1)
