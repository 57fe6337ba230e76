"""The settings' reference: complete, up to date, and true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clickstream_assets.commands.settings import SECTIONS, settings_page
from clickstream_assets.settings import Settings, load_settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
ROWS = dict(re.findall(r"^\| `([A-Z_]+)` \| (?:`(.*?)`)? \|", settings_page(), re.MULTILINE))


def test_the_page_in_the_docs_is_what_the_command_prints():
    assert PAGE.read_text() == settings_page(), "run: clickstream settings > docs/settings.md"


def test_every_setting_has_a_row_with_its_meaning():
    assert list(ROWS) == [name.upper() for name in Settings.model_fields]
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_every_section_begins_with_a_setting():
    assert set(SECTIONS) <= set(Settings.model_fields)


@pytest.mark.parametrize("name", [name for name, default in ROWS.items() if default])
def test_a_default_as_it_is_written_means_the_default(name: str, monkeypatch: pytest.MonkeyPatch):
    for field in Settings.model_fields:
        monkeypatch.delenv(field.upper(), raising=False)
    unset = getattr(load_settings(), name.lower())
    monkeypatch.setenv(name, ROWS[name])
    assert getattr(load_settings(), name.lower()) == unset
