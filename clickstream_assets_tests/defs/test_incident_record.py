"""The record of incidents: when one opens, ends and is told, by what each look finds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from clickstream_assets.defs.incidents import record as incident_record
from clickstream_assets.defs.incidents.messages import text
from clickstream_assets.defs.incidents.record import Incident, Message, Problem, Record
from clickstream_assets.settings import Settings
from clickstream_assets.silences import Kind

NOON = 1_800_000_000.0
ANN, BOB = "mail to ann", "mail to bob"


def problem(subject: str = "refresh", **more: Any) -> Problem:
    values = {"kind": Kind.RUN_FAILED, "summary": f"job {subject} failed", "reason": "why", "path": "/runs/1"}
    return Problem(subject=subject, **(values | more))


class Watch:
    """A record that is looked at again and again; a message that is composed is taken at once."""

    def __init__(self, *names: str, **settings: Any) -> None:
        self.record = Record()
        self.names = names or (ANN,)
        self.settings = Settings(
            _env_file=None, **{"incident_after_seconds": 0, "incident_pause_seconds": 0} | settings
        )

    def look(
        self,
        *problems: Problem,
        at: float = 0,
        unknown: Collection[Kind] = (),
        away: Sequence[str] = (),
    ) -> dict[str, list[str]]:
        """Return what each address is told so many seconds after noon."""
        now = NOON + at
        # Kept as it is in Dagster's storage from one look to the next.
        self.record = Record.model_validate_json(self.record.model_dump_json())
        self.record.take_in(problems, unknown, now, self.settings)
        self.record.use_routes(self.names)
        self.record.compose(now, self.settings)
        told = {}
        for name, route in self.record.routes.items():
            if route.pending and name not in away:
                opened = [f"{i.problem.subject} is wrong" for i in route.pending.opened]
                told[name] = opened + [f"{i.problem.subject} is right" for i in route.pending.resolved]
                self.record.note_taken(name, now)
        self.record.forget_settled()
        return told


def test_an_incident_is_told_once_when_it_opens_and_once_when_it_is_over():
    watch = Watch()
    assert watch.look(problem()) == {ANN: ["refresh is wrong"]}
    assert watch.look(problem(reason="another run")) == {}
    assert watch.look() == {ANN: ["refresh is right"]}
    assert watch.look() == {}
    assert watch.record.incidents == []
    # The next time is another incident.
    assert watch.look(problem()) == {ANN: ["refresh is wrong"]}


def test_what_is_wrong_for_a_moment_is_told_to_nobody():
    watch = Watch(incident_after_seconds=30)
    assert watch.look(problem()) == {}
    assert watch.look(problem(), at=29) == {}
    assert watch.look(at=29.5) == {}
    assert watch.look(problem(), at=31) == {}
    assert watch.look(problem(), at=61) == {ANN: ["refresh is wrong"]}


def test_what_is_right_for_a_moment_is_not_over():
    watch = Watch(incident_after_seconds=30)
    watch.look(problem())
    assert watch.look(problem(), at=30) == {ANN: ["refresh is wrong"]}
    assert watch.look(at=40) == {}
    assert watch.look(problem(), at=50) == {}
    assert watch.look(at=60) == {}
    assert watch.look(at=90) == {ANN: ["refresh is right"]}


def test_what_began_before_it_was_found_has_lasted_since_then():
    watch = Watch(incident_after_seconds=30)
    assert watch.look(problem(since=NOON - 30)) == {ANN: ["refresh is wrong"]}


def test_while_it_is_tried_again_it_neither_opens_nor_ends():
    watch = Watch()
    assert watch.look(problem(is_settled=False)) == {}
    assert watch.look() == {}
    assert watch.look(problem()) == {ANN: ["refresh is wrong"]}
    assert watch.look(problem(is_settled=False)) == {}
    assert watch.look(problem()) == {}


def test_what_could_not_be_looked_for_stays_as_it_is():
    watch = Watch()
    watch.look(problem())
    assert watch.look(unknown=[Kind.RUN_FAILED]) == {}
    assert watch.look(unknown=[Kind.CHECK_FAILED]) == {ANN: ["refresh is right"]}


def test_what_happens_in_the_pause_is_one_message():
    watch = Watch(incident_pause_seconds=60)
    assert watch.look(problem("a")) == {ANN: ["a is wrong"]}
    assert watch.look(problem("a"), problem("b"), at=20) == {}
    assert watch.look(problem("b"), problem("c"), at=40) == {}
    assert watch.look(problem("b"), problem("c"), at=60) == {ANN: ["b is wrong", "c is wrong", "a is right"]}


def test_an_address_that_is_away_is_told_later_what_it_missed():
    watch = Watch(ANN, BOB)
    assert watch.look(problem("a"), away=[ANN]) == {BOB: ["a is wrong"]}
    assert watch.look(problem("a"), problem("b"), away=[ANN]) == {BOB: ["b is wrong"]}
    assert watch.look(away=[ANN]) == {BOB: ["a is right", "b is right"]}
    # Its first message is the one that waited; then, in one, what came and went meanwhile.
    assert watch.look() == {ANN: ["a is wrong"]}
    assert watch.look() == {ANN: ["a is right", "b is right"]}
    assert watch.look() == {}
    assert watch.record.incidents == []


def test_an_address_that_is_new_is_told_what_is_open():
    watch = Watch(ANN)
    watch.look(problem("a"))
    watch.names = (ANN, BOB)
    assert watch.look(problem("a")) == {BOB: ["a is wrong"]}
    watch.names = (BOB,)
    assert watch.look() == {BOB: ["a is right"]}
    assert watch.record.routes.keys() == {BOB}


def test_without_an_address_incidents_are_open_and_nothing_is_kept_of_them_afterwards():
    watch = Watch()
    watch.names = ()
    assert watch.look(problem()) == {}
    assert [incident.problem.name for incident in watch.record.open()] == ["run_failed:refresh"]
    assert watch.look() == {}
    assert watch.record.incidents == []


def test_what_is_silenced_is_told_to_nobody():
    watch = Watch(incident_silences="run_failed:refresh")
    assert watch.look(problem(), problem("ingest")) == {ANN: ["ingest is wrong"]}
    assert watch.look() == {ANN: ["ingest is right"]}
    assert watch.record.incidents == []


def test_after_a_silence_people_are_told_what_is_still_open():
    watch = Watch(incident_silences="*")
    assert watch.look(problem("a"), problem("b")) == {}
    assert watch.look(problem("a")) == {}
    watch.settings = Watch().settings
    assert watch.look(problem("a")) == {ANN: ["a is wrong"]}


def test_what_was_told_before_a_silence_and_is_over_in_it_is_told_after_it():
    watch = Watch()
    watch.look(problem("a"))
    open_settings, watch.settings = watch.settings, Watch(incident_silences="*").settings
    assert watch.look() == {}
    watch.settings = open_settings
    assert watch.look() == {ANN: ["a is right"]}


def test_what_has_no_end_is_told_and_no_more_is_said():
    watch = Watch(ANN, BOB)
    assert watch.look(problem(has_end=False), away=[BOB]) == {ANN: ["refresh is wrong"]}
    assert watch.look() == {BOB: ["refresh is wrong"]}
    assert watch.look() == {}
    assert watch.record.incidents == []


def test_the_record_of_an_address_that_stays_away_does_not_grow_for_ever(monkeypatch):
    monkeypatch.setattr(incident_record, "MOST_KEPT", 3)
    watch = Watch()
    for number in range(6):
        watch.look(problem(f"{number}"), problem("open"), away=[ANN])
    assert [i.problem.subject for i in watch.record.incidents] == ["open", "4", "5"]


def test_a_message_has_a_link_where_dagster_has_an_address_and_the_page_alone_where_not():
    message = Message(id="1", created=0, opened=[Incident(id="1", problem=problem("ingest"), since=0)])
    [page] = [incident.problem.path for incident in message.opened]
    linked = Settings(_env_file=None, dagster_url="https://dagster.example.com/")
    assert f"https://dagster.example.com{page}" in text(message, linked).splitlines()
    assert page in text(message, Settings(_env_file=None)).splitlines()
