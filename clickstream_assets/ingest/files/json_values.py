"""JSON values one after another: in an array, over several lines, or in a list of one object, read as a stream."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

import msgspec

from clickstream_assets.errors import InputError

_CHUNK = 1 << 18
# Many times MAX_EVENT_BYTES; beyond it a bracket is missing, and all of the file would be read in search of it.
_LONGEST_VALUE = 1 << 26
_BETWEEN = re.compile(r"[\s,]*")
_BEFORE_MEMBER = re.compile(r"[\s:]*")
# Numbers stay text: they are not looked at, and Python refuses to read some.
_decoder = json.JSONDecoder(parse_int=str, parse_float=str)


def values_of(file: IO[bytes], what: object) -> Iterator[bytes]:
    """Yield the values of a file's arrays, and those that it has one after another; each in one line.

    Args:
        file: UTF-8, from its beginning.
        what: the file's name, for errors.

    Raises:
        InputError: what follows is no JSON.
        EOFError: the last value or the array has no end.
        UnicodeDecodeError: it is not UTF-8.
    """
    text = _Text(file)
    text.fill(1)
    at = text.start_of_content()
    is_in_array = False
    number = 0
    while True:
        at = _skip(text, at)
        if at == len(text.buffer):
            if is_in_array:
                raise EOFError
            return
        mark = text.buffer[at]
        if mark == ("]" if is_in_array else "["):
            is_in_array = not is_in_array
            at += 1
            continue
        number += 1
        value, at = _next(text, at, f"{what}: value {number}")
        yield value


def elements_of(file: IO[bytes], what: object, name: str) -> Iterator[bytes]:
    """Yield the elements of the list that a file's one object has under a name, each in one line.

    Args:
        file: UTF-8, from its beginning.
        what: the file's name, for errors.
        name: the member of the object that is the list.

    Raises:
        InputError: what follows is no JSON, or more follows after the object.
        EOFError: the object has no end.
        UnicodeDecodeError: it is not UTF-8.
    """
    text = _Text(file)
    text.fill(1)
    at = _skip(text, text.start_of_content()) + 1
    number = 0
    while _mark(text, at := _skip(text, at)) != "}":
        given, at = _next(text, at, f"{what}: the name of a member")
        at = _skip(text, at, _BEFORE_MEMBER)
        if json.loads(given) != name or _mark(text, at) != "[":
            _, at = _next(text, at, f"{what}: {given.decode()}")
            continue
        at += 1
        while _mark(text, at := _skip(text, at)) != "]":
            number += 1
            value, at = _next(text, at, f"{what}: value {number} of {given.decode()}")
            yield value
        at += 1
    if _skip(text, at + 1) < len(text.buffer):
        raise InputError(f"{what}: more follows after the object that has its events in {name!r}")


def members_at_start(text: str) -> dict[str, Any]:
    """Return the members of the object that a text begins with, as far as the text goes; numbers are texts.

    The last can be a list that goes on: it has the elements that end.
    """
    members: dict[str, Any] = {}
    at = text.find("{") + 1
    with suppress(json.JSONDecodeError, RecursionError):
        while at < len(text):
            name, at = _decoder.raw_decode(text, _end_of(_BETWEEN, text, at))
            at = _end_of(_BEFORE_MEMBER, text, at)
            try:
                members[name], at = _decoder.raw_decode(text, at)
            except json.JSONDecodeError:
                if text[at : at + 1] == "[":
                    members[name] = [_decoder.raw_decode(text, _end_of(_BETWEEN, text, at + 1))[0]]
                break
    return members


def is_cut(text: bytes) -> bool:
    """Return whether a text is the beginning of a JSON value that goes on after it."""
    try:
        # A number can end anywhere, and be none there.
        msgspec.json.decode(text.rstrip(b"0123456789.+-eE"))
    except msgspec.DecodeError as error:
        return "truncated" in str(error)
    except UnicodeDecodeError:
        pass
    return False


class _Text:
    """Text of a file, of which what was read is let go."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self.buffer = ""
        self.is_whole = False

    def start_of_content(self) -> int:
        return 1 if self.buffer.startswith("\ufeff") else 0

    def fill(self, size: int) -> None:
        """Read some more, at least so many characters if there are."""
        parts = [self.buffer]
        while size > 0 and not self.is_whole:
            data = self._file.read(_CHUNK)
            self.is_whole = not data
            parts.append(self._decode(data, final=self.is_whole))
            size -= len(parts[-1])
        self.buffer = "".join(parts)

    def drop(self, size: int) -> None:
        self.buffer = self.buffer[size:]


def _end_of(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at


def _mark(text: _Text, at: int) -> str:
    if at == len(text.buffer):
        raise EOFError
    return text.buffer[at]


def _skip(text: _Text, at: int, between: re.Pattern[str] = _BETWEEN) -> int:
    """Return where the next value begins; the text's length at its end."""
    while True:
        at = _end_of(between, text.buffer, at)
        if at < len(text.buffer) or text.is_whole:
            return at
        text.drop(at)
        at = 0
        text.fill(1)


def _next(text: _Text, at: int, what: str) -> tuple[bytes, int]:
    """Return the value that begins at a place, and where it ends."""
    while True:
        problem = None
        try:
            _, end = _decoder.raw_decode(text.buffer, at)
            # A number that the buffer's end cuts is a number too.
            if end < len(text.buffer) or text.is_whole:
                return _one_line(text.buffer[at:end]), end
        except json.JSONDecodeError as error:
            problem = error.msg
        except RecursionError:
            problem = "too many brackets in each other"
        size = len(text.buffer) - at
        if problem and (size > _LONGEST_VALUE or problem.startswith("too many")):
            raise InputError(f"{what} is no JSON ({problem}), and where the next begins cannot be told")
        if text.is_whole:
            if not text.buffer.rstrip().endswith(("}", "]")):
                raise EOFError
            raise InputError(f"{what} is no JSON ({problem}), and where the next begins cannot be told")
        text.drop(at)
        at = 0
        # Twice as much each time: what is long is looked at from its start a few times only.
        text.fill(size)


_LINE_ENDS = re.compile(r"\s*[\r\n]\s*")


def _one_line(text: str) -> bytes:
    # In JSON, line ends are between values only.
    return _LINE_ENDS.sub(" ", text).encode()
