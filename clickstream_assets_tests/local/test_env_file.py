"""The `.env` file that the stack shares with its owner."""

import stat

import pytest
from dotenv import dotenv_values

from clickstream_assets.errors import LocalStackError
from clickstream_assets.local.env_file import update_env_file

OWN = "# mine\nKAFKA_TOPIC=clicks\n\nexport NAME='a b' # kept\nKAFKA_BOOTSTRAP_SERVERS=old:9092\nLAST=$HOME"


def test_only_our_lines_change(tmp_path):
    path = tmp_path / ".env"
    path.write_text(OWN)
    update_env_file(path, {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9999", "POSTGRES_DB": "clickstream"})
    assert path.read_text() == OWN.replace("old:9092", "127.0.0.1:9999") + "\nPOSTGRES_DB=clickstream\n"


def test_the_file_is_made_for_its_owner_alone(tmp_path):
    path = tmp_path / ".env"
    update_env_file(path, {"POSTGRES_PASSWORD": "secret"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("http://127.0.0.1:9200", "KEY=http://127.0.0.1:9200\n"),
        ("/home/ann lee/x", "KEY='/home/ann lee/x'\n"),
        ("/tmp/#1/it's", "KEY='/tmp/#1/it\\'s'\n"),
    ],
)
def test_values_are_quoted_only_where_they_must_be(tmp_path, value, line):
    path = tmp_path / ".env"
    update_env_file(path, {"KEY": value})
    assert path.read_text() == line
    assert dotenv_values(path) == {"KEY": value}


def test_nothing_is_written_where_nothing_changes(tmp_path):
    path = tmp_path / ".env"
    update_env_file(path, {"A": "1", "B": "two words"})
    before = path.stat().st_mtime_ns, path.stat().st_ino
    update_env_file(path, {"A": "1", "B": "two words"})
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(LocalStackError, match=f"{tmp_path}/missing/.env cannot be written"):
        update_env_file(tmp_path / "missing" / ".env", {"A": "1"})
