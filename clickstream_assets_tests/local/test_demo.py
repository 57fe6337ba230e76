"""The settings that a demo's processes are given; the demo itself is tried in e2e/."""

from pathlib import Path

import pytest

from clickstream_assets.local.demo import absolute_paths, secret_files
from clickstream_assets.settings import Settings


def test_relative_paths_are_those_of_the_folder_that_the_demo_was_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # A machine may set some for all: JAVA_HOME.
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    (tmp_path / ".env").write_text(
        "EXCHANGE_RATES=rates.csv\nLAKE_PATH=lake/\nCHECKPOINT_PATH=s3a://shop/kept/\n"
    )
    settings = Settings(_env_file=tmp_path / ".env")
    # Tests run in a folder of their own.
    assert absolute_paths(settings) == {
        "EXCHANGE_RATES": str(tmp_path / "rates.csv"),
        "LAKE_PATH": str(tmp_path / "lake"),
        "CHECKPOINT_PATH": "s3a://shop/kept",
    }


def test_so_are_those_of_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SMTP_PASSWORD_FILE", "secrets/mail")
    monkeypatch.setenv("POSTGRES_PASSWORD_FILE", "/run/secrets/database")
    assert secret_files() == {
        "SMTP_PASSWORD_FILE": str(tmp_path / "secrets" / "mail"),
        "POSTGRES_PASSWORD_FILE": "/run/secrets/database",
    }
