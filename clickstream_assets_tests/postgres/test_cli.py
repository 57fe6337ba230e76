import subprocess
import sys
from pathlib import Path

from clickstream_assets.settings import Settings
from clickstream_assets_tests.databases import environment, free_port, fresh_database, query, with_settings

CLICKSTREAM = Path(sys.executable).with_name("clickstream")


def migrate(settings: Settings) -> subprocess.CompletedProcess[str]:
    return subprocess.run([CLICKSTREAM, "migrate"], env=environment(settings), capture_output=True, text=True)


def test_migrate_makes_the_tables(settings_for_stack: Settings) -> None:
    with fresh_database(settings_for_stack, migrated=False) as empty:
        done = migrate(empty)
        assert (done.returncode, done.stderr) == (0, "")
        assert query(empty, "SELECT count(*) FROM clickstream_sessions") == [(0,)]


def test_migrate_without_a_server_says_what_to_mend(settings_for_stack: Settings) -> None:
    port = free_port()
    failed = migrate(with_settings(settings_for_stack, postgres_port=port))
    assert failed.returncode == 1
    assert f"POSTGRES_PORT={port}" in failed.stderr
    assert "Traceback" not in failed.stderr
