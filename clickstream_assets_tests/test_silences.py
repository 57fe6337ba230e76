"""Silences: what is covered, when, and what is no silence."""

from __future__ import annotations

import re
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from clickstream_assets.settings import SettingsError, load_settings
from clickstream_assets.silences import parse_silences

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "covered", "not_covered"),
    [
        ("asset_overdue", ["asset_overdue:carts"], ["run_failed:refresh"]),
        ("*", ["asset_overdue:carts", "stream_down:live_events"], []),
        ("run_failed:refresh", ["run_failed:refresh"], ["run_failed:ingest", "sensor_failed:refresh"]),
        # An asset is meant with its checks; a check alone.
        ("*:carts", ["asset_overdue:carts", "check_failed:carts/keys"], ["asset_overdue:carts_2"]),
        ("check_failed:carts/keys", ["check_failed:carts/keys"], ["check_failed:carts/values"]),
        ("check_failed:*/keys", ["check_failed:carts/keys"], ["check_failed:carts/values"]),
        ("*:product_*", ["stream_down:product_windows", "check_failed:product_windows/a"], ["x:flash"]),
    ],
)
def test_a_silence_covers_a_kind_or_a_subject_or_both(text: str, covered: list[str], not_covered: list[str]):
    (silence,) = parse_silences(text, BERLIN)
    assert [name for name in [*covered, *not_covered] if silence.covers(*name.split(":"))] == covered


@pytest.mark.parametrize(
    ("when", "active", "inactive"),
    [
        ("", ["2026-12-24 00:00"], []),
        ("@09:00-17:00", ["2026-12-24 09:00", "2026-12-24 16:59"], ["2026-12-24 08:59", "2026-12-24 17:00"]),
        ("@22:00-07:00", ["2026-12-24 23:00", "2026-12-25 06:59"], ["2026-12-24 07:00", "2026-12-24 21:59"]),
        (
            "@2026-12-24T18:00/2026-12-27",
            ["2026-12-24 18:00", "2026-12-26 23:59"],
            ["2026-12-24 17:59", "2026-12-27 00:00"],
        ),
        # 17:00 and 18:00 of UTC are an hour later in Berlin.
        ("@2026-12-24T17:00Z/2026-12-24T18:00Z", ["2026-12-24 18:30"], ["2026-12-24 17:30"]),
        # On the day that clocks are put back, 02:30 comes twice.
        ("@02:00-03:00", ["2026-10-25 02:30"], ["2026-10-25 03:00"]),
    ],
)
def test_a_silence_holds_always_every_day_or_once_in_local_time(
    when: str, active: list[str], inactive: list[str]
):
    (silence,) = parse_silences(f"*{when}", BERLIN)
    moments = [datetime.fromisoformat(text).replace(tzinfo=BERLIN) for text in (*active, *inactive)]
    assert [silence.is_active(moment) for moment in moments] == [True] * len(active) + [False] * len(inactive)


def test_several_are_separated_by_commas():
    silences = parse_silences(" asset_overdue , *:carts@22:00-07:00,, ", BERLIN)
    assert [silence.text for silence in silences] == ["asset_overdue", "*:carts@22:00-07:00"]
    assert parse_silences("", BERLIN) == ()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("INCIDENT_SILENCES", "carts", "'carts', in 'carts', is no kind of incident"),
        (
            "INCIDENT_SILENCES",
            "carts",
            "run_failed, check_failed, sensor_failed, asset_overdue, stream_down or *",
        ),
        (
            "INCIDENT_SILENCES",
            ":carts",
            "':carts' is no silence; write KIND, KIND:SUBJECT or either with @WHEN",
        ),
        ("INCIDENT_SILENCES", "*@", "'*@' is no silence"),
        ("INCIDENT_SILENCES", "*@night", "'night', in '*@night', is no time; write 22:00-07:00"),
        ("INCIDENT_SILENCES", "*@22:00", "is no time"),
        ("INCIDENT_SILENCES", "*@25:00-07:00", "is no time"),
        ("INCIDENT_SILENCES", "*@22:00Z-07:00Z", "is no time"),
        ("INCIDENT_SILENCES", "*@2026-12-24/", "is no time"),
        ("INCIDENT_SILENCES", "*@07:00-07:00", "ends when or before it begins"),
        ("INCIDENT_SILENCES", "*@2026-12-24/2026-12-23", "ends when or before it begins"),
        ("INCIDENT_TIME_ZONE", "Berlin", "INCIDENT_TIME_ZONE='Berlin' is no time zone"),
        ("INCIDENT_TIME_ZONE", "../etc", "is no time zone"),
        ("INCIDENT_TO", "ann", "INCIDENT_TO: 'ann' is no mail address"),
        ("INCIDENT_TO", "ann@example.com", "INCIDENT_TO is set and SMTP_HOST is not"),
        ("DAGSTER_URL", "dagster:3000", "DAGSTER_URL='dagster:3000'"),
        ("INCIDENT_AFTER_SECONDS", "-1", "INCIDENT_AFTER_SECONDS='-1'"),
    ],
)
def test_a_setting_of_incidents_that_cannot_be_used_is_named(
    name: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=re.escape(says)):
        load_settings()


def test_mails_without_a_sender_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("INCIDENT_TO", "ann@example.com, ann@example.com,bob@example.com")
    monkeypatch.setenv("SMTP_HOST", "mail.example.com")
    with pytest.raises(SettingsError, match="INCIDENT_FROM and REPORT_FROM are not; set one of them"):
        load_settings()
    monkeypatch.setenv("REPORT_FROM", "shop@example.com")
    assert load_settings().incident_sender == "shop@example.com"
    assert load_settings().incident_recipients == ["ann@example.com", "bob@example.com"]
    monkeypatch.setenv("INCIDENT_FROM", "pipeline")
    with pytest.raises(SettingsError, match="INCIDENT_FROM: 'pipeline' is no mail address"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INCIDENT_WEBHOOK_URLS", "https://hooks.example.com/ok,hooks.example.com/t0ken"),
        ("INCIDENT_WEBHOOK_URLS", "https:///t0ken"),
        ("INCIDENT_WEBHOOK_SECRET", "t0ken"),
    ],
)
def test_what_is_secret_is_refused_without_showing_it(name: str, value: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as caught:
        load_settings()
    assert "t0ken" not in str(caught.value)
