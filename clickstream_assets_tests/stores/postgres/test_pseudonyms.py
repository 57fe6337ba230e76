"""Pseudonyms of ids: one for each, whoever asks first, and another once it is forgotten."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.pseudonyms import (
    SESSION_DAYS,
    forget,
    forget_old_sessions,
    kept_persons,
    pseudonyms_of,
    rows,
)
from clickstream_assets_tests.databases import fresh_database, query, with_settings


@pytest.fixture
def settings(postgres: Settings) -> Iterator[Settings]:
    with fresh_database(postgres) as own:
        yield with_settings(own, pseudonyms=True)


def test_an_id_of_a_kind_has_one_pseudonym_that_says_nothing_of_it(settings: Settings):
    users = pseudonyms_of(settings, "user", ["ann", "bob", "ann"])
    devices = pseudonyms_of(settings, "anonymous", ["ann"])
    assert users.keys() == {"ann", "bob"}
    assert pseudonyms_of(settings, "user", ["bob", "carl"])["bob"] == users["bob"]
    given = [*users.values(), *devices.values()]
    assert len(set(given)) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in given)
    assert pseudonyms_of(settings, "user", []) == {}
    assert query(settings, "SELECT count(*) FROM pseudonyms") == [(4,)]


def test_all_who_see_ids_first_at_the_same_moment_give_them_the_same_pseudonyms(settings: Settings):
    ids = [f"u{number}" for number in range(30_000)]
    start = Barrier(4)

    def make(number: int) -> dict[str, str]:
        # Each in another order.
        mine = ids[number * 5_000 :] + ids[: number * 5_000]
        start.wait()
        return pseudonyms_of(settings, "user", mine)

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(make, range(4))
    assert len(set(first.values())) == 30_000
    assert all(each == first for each in others)
    assert query(settings, "SELECT count(*) FROM pseudonyms") == [(30_000,)]


def test_who_is_forgotten_and_comes_back_has_another_pseudonym(settings: Settings):
    before = pseudonyms_of(settings, "user", ["ann", "bob"])
    assert forget(settings, [before["ann"], "nobody's"]) == 1
    assert rows(settings, before.values()) == [{"kind": "user", "id": "bob", "pseudonym": before["bob"]}]
    after = pseudonyms_of(settings, "user", ["ann", "bob"])
    assert after["bob"] == before["bob"]
    assert after["ann"] != before["ann"]


def test_a_person_is_named_by_an_id_or_by_a_pseudonym(settings: Settings):
    ann = pseudonyms_of(settings, "user", ["ann", "anonymous:x"])
    phone = pseudonyms_of(settings, "anonymous", ["x"])["x"]
    visit = pseudonyms_of(settings, "session", ["x"])["x"]
    named = ["ann", "anonymous:x", "session:x", "user:anonymous:x", ann["ann"], f"anonymous:{phone}", "who"]
    kept = [ann["ann"], f"anonymous:{phone}", f"session:{visit}", ann["anonymous:x"]]
    assert kept_persons(settings, named) == [*kept, ann["ann"], f"anonymous:{phone}", "who"]
    assert kept_persons(with_settings(settings, pseudonyms=False), named) == named


def test_ids_of_sessions_that_are_long_over_are_forgotten(settings: Settings):
    for kind in ("user", "session"):
        pseudonyms_of(settings, kind, ["old", "new"])
    query(
        settings,
        f"UPDATE pseudonyms SET made_on = current_date - {SESSION_DAYS + 1} WHERE id = 'old' RETURNING 1",
    )
    assert forget_old_sessions(settings) == 1
    assert query(settings, "SELECT kind, id FROM pseudonyms ORDER BY kind, id") == [
        ("session", "new"),
        ("user", "new"),
        ("user", "old"),
    ]
    # Repetitions are told by them for as long.
    assert forget_old_sessions(with_settings(settings, event_id_days=60)) == 0
