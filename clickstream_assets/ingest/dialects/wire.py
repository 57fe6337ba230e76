"""Bytes around and instead of JSON: the header that schema registries' serialisers write, Avro and Protobuf."""

from __future__ import annotations

# Magic byte 0, and the schema's id in four: Confluent's wire format.
_HEADER_BYTES = 5
_BLANKS = b" \t\r\n"


def without_header(value: bytes) -> bytes:
    """Return a record's bytes without the header of a schema registry, where JSON follows it."""
    if value[:1] != b"\0":
        return value
    body = value[_HEADER_BYTES:]
    return body if body.lstrip(_BLANKS)[:1] in (b"{", b"[") else value


def other_format(value: bytes) -> tuple[str, str] | None:
    """Return the name of a format that is not JSON, and in words what the bytes are; None where it cannot be told."""
    if value.startswith((b"Obj\x01", b"\xc3\x01")):
        return "avro", "Avro"
    if value[:1] == b"\0" and len(value) > _HEADER_BYTES:
        schema, body = int.from_bytes(value[1:_HEADER_BYTES]), value[_HEADER_BYTES:]
        name = "protobuf" if _is_indexed_protobuf(body) else "avro"
        return name, f"{name.title()} of schema {schema}"
    if any(byte < 32 and byte not in _BLANKS for byte in value[:64]) and _is_protobuf(value):
        return "protobuf", "Protobuf"
    return None


def _varint(value: bytes, at: int) -> tuple[int, int] | None:
    """Return a number of seven bits a byte, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(value):
            return None
        byte = value[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    return None


def _is_indexed_protobuf(body: bytes) -> bool:
    """Return whether the path to a message's type, as the registry's serialiser writes it, and a message follow."""
    count = _varint(body, 0)
    if count is None:
        return False
    # Zigzag, as are the indexes; a lone 0 is the path to the first type.
    number, at = count[0] >> 1, count[1]
    for _ in range(number if number <= 16 else 0):
        index = _varint(body, at)
        if index is None:
            return False
        at = index[1]
    return number <= 16 and _is_protobuf(body[at:])


def _is_protobuf(message: bytes) -> bool:
    """Return whether bytes are fields of a message, from the first to the last."""
    at = 0
    while at < len(message):
        tag = _varint(message, at)
        if tag is None or not tag[0] >> 3:
            return False
        kind, at = tag[0] & 7, tag[1]
        if kind in (0, 2):
            number = _varint(message, at)
            if number is None:
                return False
            at = number[1] + (number[0] if kind == 2 else 0)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            return False
    return at == len(message) and at > 0
