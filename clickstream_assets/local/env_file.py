"""Keeps the servers' addresses in a `.env` file that may hold more than ours."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values, set_key

from clickstream_assets.errors import LocalStackError

# What a shell, Compose and python-dotenv all read the same way without quotes.
_PLAIN = re.compile(r"[\w./:@%+,=-]+", re.ASCII)


def update_env_file(path: Path, variables: Mapping[str, str]) -> None:
    """Set variables in a `.env` file, and touch no other line; only its owner can read it, for the password.

    Raises:
        LocalStackError: when the file cannot be written.
    """
    try:
        if not path.exists():
            path.touch(mode=0o600)
        present = dotenv_values(path, interpolate=False)
        for name, value in variables.items():
            if present.get(name) != value:
                set_key(path, name, value, quote_mode="never" if _PLAIN.fullmatch(value) else "always")
        path.chmod(0o600)
    except OSError as error:
        raise LocalStackError(
            f"{path} cannot be written ({os.strerror(error.errno or 0)}); name another file with --env-file."
        ) from error
