import json
import re
from hashlib import sha256

import pytest
from typer.testing import CliRunner

from clickstream_assets.commands.app import app
from clickstream_assets.keys import Key, Scope, digest_of, new_key, parse_keys
from clickstream_assets.settings import SettingsError, load_settings

HASH = "ab" * 32
OTHER = "cd" * 32
SECRET = "cs_Zm9vYmFyYmF6cXV4"


def test_an_entry_is_a_name_scopes_and_a_hash() -> None:
    assert parse_keys(f"analyst:read:{HASH}, shop:collect+read:{OTHER.upper()},") == (
        Key("analyst", frozenset({Scope.READ}), bytes.fromhex(HASH)),
        Key("shop", frozenset({Scope.READ, Scope.COLLECT}), bytes.fromhex(OTHER)),
    )
    assert parse_keys("") == parse_keys(" , ") == ()


def test_two_keys_may_have_one_name_while_one_takes_the_others_place() -> None:
    old, new = parse_keys(f"shop:collect:{HASH},shop:collect:{OTHER}")
    assert old.name == new.name
    assert old.digest != new.digest


def test_admin_may_do_all_personal_may_read_too_and_the_others_one_thing() -> None:
    may = {
        scope: [asked for asked in Scope if Key("k", frozenset({scope}), b"").may(asked)] for scope in Scope
    }
    assert may == {
        Scope.READ: [Scope.READ],
        Scope.PERSONAL: [Scope.READ, Scope.PERSONAL],
        Scope.COLLECT: [Scope.COLLECT],
        Scope.ADMIN: [Scope.READ, Scope.PERSONAL, Scope.COLLECT, Scope.ADMIN],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SECRET, r"entry 1 has 1 of the parts NAME:SCOPES:SHA256"),
        (f"a:read:{HASH}:x", r"entry 1 has 4 of the parts"),
        (f"a:read:{HASH}, {SECRET}:read:{HASH}{OTHER}", r"entry 2: its third part has 128 characters"),
        (
            f"shop:collect:{SECRET}",
            r".* never put the key itself there: make an entry with `clickstream keys new",
        ),
        (f"{SECRET}!:read:{HASH}", r"entry 1: its name is not of up to 64 letters"),
        (f":read:{HASH}", r"entry 1: its name is not"),
        (
            f"a:write:{HASH}",
            r"entry 1: its scopes are not read, personal, collect, admin, with \+ between several",
        ),
        (f"a::{HASH}", r"entry 1: its scopes are not"),
        (f"a:read:{HASH},b:read:{OTHER},c:admin:{HASH}", r"entry 3 is the same key as entry 1"),
    ],
)
def test_an_entry_that_cannot_be_read_is_named_by_its_place_without_what_it_holds(
    text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEYS", text)
    with pytest.raises(SettingsError, match=f"API_KEYS: {message}") as raised:
        load_settings()
    assert not re.search(f"{SECRET}|{HASH}|{OTHER}", str(raised.value))


def test_a_short_session_secret_is_refused_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSION_SECRET", "hunter2hunter2")
    with pytest.raises(SettingsError, match="SESSION_SECRET has fewer than 32 characters") as raised:
        load_settings()
    assert "hunter2" not in str(raised.value)


def test_what_is_no_proxys_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TRUSTED_PROXIES", "10.0.0.0/8, proxy.example")
    with pytest.raises(SettingsError, match=r"API_TRUSTED_PROXIES=.*'proxy.example' does not appear to be"):
        load_settings()


def test_no_hash_is_shown_with_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEYS", f"analyst:read:{HASH}")
    settings = load_settings()
    assert HASH not in repr(settings)
    assert HASH not in repr(settings.known_keys)
    assert str(bytes.fromhex(HASH)) not in repr(settings.known_keys)


def test_keys_are_of_256_random_bits_each_another() -> None:
    made = {new_key("a", [Scope.READ])[0] for _ in range(100)}
    assert len(made) == 100
    # 43 digits of 6 bits.
    assert all(re.fullmatch(r"cs_[\w-]{43}", secret) for secret in made)


def test_the_command_prints_a_key_once_and_the_entry_that_lets_it_in() -> None:
    done = CliRunner().invoke(app, ["keys", "new", "analyst", "--scope", "read", "--scope", "collect"])
    assert done.exit_code == 0
    printed = json.loads(done.stdout)
    assert set(printed) == {"key", "entry"}
    assert printed["entry"] == f"analyst:collect+read:{sha256(printed['key'].encode()).hexdigest()}"
    [key] = parse_keys(printed["entry"])
    assert key.digest == digest_of(printed["key"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a:b", "--scope", "read"], "NAME: 'a:b' is no name"),
        (["a", "--scope", "write"], "'write' is not one of"),
        (["a"], "Missing option '--scope'"),
    ],
)
def test_the_command_refuses_what_no_entry_can_have(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["keys", "new", *arguments])
    assert done.exit_code != 0
    assert message in done.output
    assert "cs_" not in done.output
