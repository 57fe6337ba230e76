"""Keys of the API: what each may do, as API_KEYS writes it, and new ones.

Only a key's SHA-256 is kept. A key has 256 random bits, so nobody finds it from that, and no slower hash is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from secrets import token_urlsafe

_BYTES = 32
_PREFIX = "cs_"
"""By which a key is known where it should not be, as in a repository."""


class Scope(StrEnum):
    """What a key may do."""

    READ = "read"
    """Read figures, of nobody in particular."""
    PERSONAL = "personal"
    """Read these, and what is about one person."""
    COLLECT = "collect"
    """Send events."""
    ADMIN = "admin"
    """All of it."""


_INCLUDED = {Scope.PERSONAL: {Scope.READ}, Scope.ADMIN: {*Scope}}
"""By a scope the others that it includes."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_FIX = "make an entry with `clickstream keys new --scope read NAME`"


@dataclass(frozen=True)
class Key:
    """A key that the API knows.

    Attributes:
        name: Whose it is; two may have one name, while one takes the other's place.
        scopes: What it may do; `personal` includes `read`, and `admin` all.
        digest: SHA-256 of the key.
    """

    name: str
    scopes: frozenset[Scope]
    digest: bytes = field(repr=False)

    def may(self, scope: Scope) -> bool:
        """Return whether it may do that."""
        return any(scope is own or scope in _INCLUDED.get(own, ()) for own in self.scopes)

    @property
    def is_public(self) -> bool:
        """Whether it may send events alone: a shop's pages show theirs to everybody."""
        return self.scopes == {Scope.COLLECT}

    @property
    def entry(self) -> str:
        """What API_KEYS has of it."""
        return f"{self.name}:{'+'.join(sorted(self.scopes))}:{self.digest.hex()}"


def digest_of(secret: str) -> bytes:
    """Return what is kept of a key."""
    return sha256(secret.encode(errors="replace")).digest()


def new_key(name: str, scopes: Iterable[Scope]) -> tuple[str, Key]:
    """Make a key, and what is kept of it.

    Raises:
        ValueError: the name cannot be one.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name: write up to 64 letters, digits, dots, hyphens and underscores"
        )
    secret = _PREFIX + token_urlsafe(_BYTES)
    return secret, Key(name, frozenset(scopes), digest_of(secret))


def parse_keys(text: str) -> tuple[Key, ...]:
    """Return the keys of API_KEYS.

    Raises:
        ValueError: naming the place of an entry that cannot be read, and nothing that it holds: it may be a key.
    """
    keys: dict[bytes, Key] = {}
    places: dict[bytes, int] = {}
    for place, part in enumerate((part.strip() for part in text.split(",")), start=1):
        if not part:
            continue
        key = _parse_key(part, place)
        if key.digest in keys:
            first = places[key.digest]
            raise ValueError(f"entry {place} is the same key as entry {first}; leave one of them out")
        keys[key.digest], places[key.digest] = key, place
    return tuple(keys.values())


def _parse_key(text: str, place: int) -> Key:
    parts = text.split(":")
    if len(parts) != 3:
        raise ValueError(f"entry {place} has {len(parts)} of the parts NAME:SCOPES:SHA256; {_FIX}")
    name, scopes, digest = parts
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"entry {place}: its name is not of up to 64 letters, digits, dots, hyphens and underscores; {_FIX}"
        )
    asked = scopes.split("+")
    if not set(asked) <= set(Scope):
        raise ValueError(f"entry {place}: its scopes are not {', '.join(Scope)}, with + between several")
    if not _DIGEST.fullmatch(digest):
        raise ValueError(
            f"entry {place}: its third part has {len(digest)} characters and is no SHA-256, of which there are 64 "
            f"hexadecimal digits; never put the key itself there: {_FIX}"
        )
    return Key(name, frozenset(map(Scope, asked)), bytes.fromhex(digest))
