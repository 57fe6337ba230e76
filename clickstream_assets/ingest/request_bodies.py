"""From the body of a request to the collector to its records: an event each, and nothing of what is not kept.

A record stays as it was sent, byte by byte, but for what only its arrival can say, and for what is not to be kept: the
key that it was sent with, and addresses of the network. `parsing.py` judges it afterwards, as any other.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple

import msgspec

from clickstream_assets.catalogue.units import EPOCH, MINUTE
from clickstream_assets.ingest.dialects import segment
from clickstream_assets.ingest.dialects.paths import in_utc
from clickstream_assets.ingest.fields import Rejection, ValidationRules, iso_8601

Fields = dict[str, msgspec.Raw]

_GZIP = b"\x1f\x8b"
# zlib's for gzip's header and trailer around the data.
_GZIP_BITS = 31
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_object = msgspec.json.Decoder(Fields)
_array = msgspec.json.Decoder(list[msgspec.Raw])
_any = msgspec.json.Decoder(msgspec.Raw)
_text = msgspec.json.Decoder(str)
_encode = msgspec.json.Encoder().encode

# In which trackers send the key: Segment's, ours, and PostHog's.
_KEYS = ("writeKey", "write_key", "api_key")
_SENT_AT = ("sentAt", "sent_at")
_TIMES = ("timestamp", "originalTimestamp")
# What a request of several calls says for all of them.
_SHARED = ("context", *_SENT_AT)
_NOTHING = (b"null", b'""')
# An address by the name of its field, at whatever depth: an address itself looks like a browser's version.
_ADDRESS = re.compile(
    rb'"\$?(?:[\w-]*[-_])?(?:user|client|remote|real|visitor|customer|source|peer)?'
    rb"(?:ip(?:[-_]?addr(?:ess)?|[-_]?v[46])?|remote[-_]?addr(?:ess)?|x[-_]forwarded[-_]for)"
    rb'"\s*:',
    re.IGNORECASE,
)
# What each of these names has a part of: looked for in a tenth of the time.
_ADDRESS_PARTS = (b'ip"', b"addr", b"v4", b"v6", b"forwarded")


class TooLargeError(ValueError):
    """A body is larger, once it is unpacked, than it may be."""


class Sent(NamedTuple):
    """An event as a request has it.

    Attributes:
        value: Its bytes.
        fields: Its fields, with their bytes; none of what is no object.
        is_changed: True if the fields are others than those of the bytes.
    """

    value: bytes
    fields: Fields | None
    is_changed: bool = False


@dataclass(frozen=True)
class Arrival:
    """The request of some events, as far as they depend on it.

    Attributes:
        at: When it came, microseconds since 1970.
        rules: The rules that times are read by.
        call: Segment's call that its address names, such as `track`.
        user_agent: The browser that sent it, if that is one.
        clock_tolerance: Microseconds by which the sender's clock may be wrong before times are corrected.
    """

    at: int
    rules: ValidationRules
    call: str | None = None
    user_agent: str | None = None
    clock_tolerance: int = field(default=5 * MINUTE)


def unpacked(body: bytes, limit: int) -> bytes:
    """Return a body without its gzip, which is known by its first bytes: not all senders say so in a header.

    Raises:
        TooLargeError: it has more than `limit` bytes.
        zlib.error: it begins as gzip does, and is none.
    """
    if not body.startswith(_GZIP):
        if len(body) > limit:
            raise TooLargeError
        return body
    found = b""
    while body:
        # A file of gzip's may be several, one behind the other.
        member = zlib.decompressobj(_GZIP_BITS)
        found += member.decompress(body, limit + 1 - len(found))
        if len(found) > limit:
            raise TooLargeError
        if not member.eof:
            raise zlib.error("the end is missing")
        body = member.unused_data
    return found


def events_of(body: bytes) -> tuple[list[Sent], str | None]:
    """Return what a body says of each event, in order, and the key that it says it is sent with.

    A body is a JSON object, an array of them, or a line for each; an object may have several in `batch`.
    """
    found: list[Sent] = []
    key = None
    for value in _values(body):
        fields = _fields(value)
        if fields is None:
            found.append(Sent(value, None))
            continue
        key = key or next((text for name in _KEYS if (text := _text_of(fields.get(name)))), None)
        calls = _calls(fields)
        if calls is None:
            found.append(Sent(value, fields))
            continue
        shared = {name: fields[name] for name in _SHARED if name in fields}
        for call in calls:
            own = _fields(call)
            found.append(Sent(call, None) if own is None else Sent(call, {**shared, **own}, bool(shared)))
    return found, key


def record_of(sent: Sent, arrival: Arrival) -> bytes:
    """Return the record of an event, with what its arrival says and without what is not kept."""
    if sent.fields is None:
        return sent.value
    fields, is_changed = dict(sent.fields), sent.is_changed
    for name in _KEYS:
        is_changed |= fields.pop(name, None) is not None
    if "event_type" in fields:
        if arrival.user_agent and not _is_given(fields.get("user_agent")):
            fields["user_agent"] = _raw(arrival.user_agent)
            is_changed = True
    else:
        is_changed |= _complete_call(fields, arrival)
    return without_addresses(_encode(fields) if is_changed else sent.value)


def without_addresses(value: bytes) -> bytes:
    """Return JSON without the fields, at whatever depth, whose names are those of addresses of the network."""
    lower = value.lower()
    if not any(part in lower for part in _ADDRESS_PARTS) or not _ADDRESS.search(value):
        return value
    try:
        if value.lstrip()[:1] == b"[":
            return _encode([msgspec.Raw(without_addresses(bytes(one))) for one in _array.decode(value)])
        return _encode(
            {
                name: msgspec.Raw(without_addresses(bytes(one)))
                for name, one in _object.decode(value).items()
                if not _ADDRESS.fullmatch(_encode(name) + b":")
            }
        )
    except _UNREADABLE:
        # No JSON, which keeps no address in any field; or a text that has JSON in it.
        return value


def _values(body: bytes) -> Iterable[bytes]:
    try:
        _any.decode(body)
        return map(bytes, _array.decode(body)) if body.lstrip()[:1] == b"[" else [body]
    except _UNREADABLE:
        return [line for line in body.splitlines() if line.strip()]


def _fields(value: bytes) -> Fields | None:
    try:
        return _object.decode(value)
    except _UNREADABLE:
        return None


def _calls(fields: Fields) -> list[bytes] | None:
    if "batch" not in fields or "event_type" in fields:
        return None
    try:
        return [bytes(call) for call in _array.decode(fields["batch"])]
    except _UNREADABLE:
        return None


def _complete_call(fields: Fields, arrival: Arrival) -> bool:
    """Say in a call of another dialect what its sender leaves to the receiver; return whether that is anything."""
    is_changed = _correct_clock(fields, arrival)
    if arrival.call is None and segment.SIGNS.isdisjoint(fields):
        return is_changed
    if arrival.call and not _is_given(fields.get("type")):
        fields["type"] = _raw(arrival.call)
        is_changed = True
    if not any(_is_given(fields.get(name)) for name in (*_TIMES, *_SENT_AT)):
        fields["receivedAt"] = _raw(_iso(arrival.at))
        is_changed = True
    if arrival.user_agent:
        context = _fields(bytes(fields.get("context", b"{}")))
        if context is not None and not any(
            _is_given(context.get(name)) for name in ("userAgent", "user_agent")
        ):
            context["userAgent"] = _raw(arrival.user_agent)
            fields["context"] = msgspec.Raw(_encode(context))
            is_changed = True
    return is_changed


def _correct_clock(fields: Fields, arrival: Arrival) -> bool:
    """Move the times of a call by what the sender's clock was wrong when it was sent; return whether it was.

    As Segment has it: arrival minus (sentAt minus timestamp), https://segment.com/docs/connections/spec/common/. By
    whole minutes, so that a call that is sent again has the same time, and is the same event.
    """
    sent_at = next(
        (time for name in _SENT_AT if (time := _time(fields.get(name), arrival)) is not None), None
    )
    if sent_at is None or abs(arrival.at - sent_at) <= arrival.clock_tolerance:
        return False
    wrong = round((arrival.at - sent_at) / MINUTE) * MINUTE
    name = next((name for name in _TIMES if _is_given(fields.get(name))), None)
    moment = _time(fields[name], arrival) if name else None
    if name is None or moment is None:
        return False
    try:
        corrected = _iso(moment + wrong)
    except OverflowError:
        return False
    fields.setdefault("originalTimestamp", fields[name])
    fields["timestamp"] = _raw(corrected)
    return True


def _time(value: msgspec.Raw | None, arrival: Arrival) -> int | None:
    text = _text_of(value)
    try:
        return iso_8601("sentAt", in_utc(text), arrival.rules) if text else None
    except (Rejection, OverflowError):
        return None


def _iso(microseconds: int) -> str:
    return (EPOCH + timedelta(microseconds=microseconds)).isoformat().replace("+00:00", "Z")


def _text_of(value: msgspec.Raw | None) -> str | None:
    try:
        return None if value is None else _text.decode(value)
    except _UNREADABLE:
        return None


def _is_given(value: msgspec.Raw | None) -> bool:
    return value is not None and bytes(value) not in _NOTHING


def _raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(_encode(text))
