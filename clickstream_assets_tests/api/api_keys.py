"""Entries of API_KEYS."""

from clickstream_assets.keys import Key, Scope, digest_of


def entry(secret: str, *scopes: Scope, name: str = "test") -> str:
    """Return the entry of a key, which may be any text."""
    return Key(name, frozenset(scopes), digest_of(secret)).entry
