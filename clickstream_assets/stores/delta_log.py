"""A Delta table's log that cannot be read, and what of it can be made good.

A checkpoint repeats what the commits before it say, so that nobody has to read them all. Where it is damaged or gone, a
reader stops, though the commits may all be there: https://github.com/delta-io/delta/blob/master/PROTOCOL.md.
"""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

DAMAGED = re.compile(r"Invalid Checkpoint|Parquet error|EOF: file size|contiguous commit files|Json error")
"""Errors of delta-rs, as of 1.6, by which a log is damaged."""

_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\..*")
_log = logging.getLogger(__name__)


def set_checkpoints_aside(table: str) -> list[str]:
    """Rename the checkpoints that cannot be read, if the commits say all that they said.

    Args:
        table: path of a table on this machine's disk; of any other nothing is changed.

    Returns:
        Names of the checkpoints that are damaged or missing; none where the log cannot be made good by this.
    """
    log = Path(table) / "_delta_log"
    if not log.is_dir():
        return []
    names = [path.name for path in log.iterdir()]
    commits = {int(match[1]) for match in map(_COMMIT.fullmatch, names) if match}
    checkpoints = {name: int(match[1]) for name in names if (match := _CHECKPOINT.fullmatch(name))}
    damaged = [name for name in checkpoints if not _is_readable(log / name)]
    whole = [version for name, version in checkpoints.items() if name not in damaged]
    # From the newest checkpoint that is whole, or else from the beginning.
    first = max(whole, default=-1) + 1
    # Up to the last that anything speaks of: who read fewer commits than a damaged checkpoint did would lose rows.
    last = max(commits | set(checkpoints.values()), default=-1)
    if not set(range(first, last + 1)) <= commits:
        return []
    hint = log / "_last_checkpoint"
    with suppress(FileNotFoundError):
        # Another process may be doing the same.
        for name in damaged:
            (log / name).rename(log / f"{name}.damaged")
        hint.unlink()
    found = damaged or [hint.name]
    _log.warning("%s: %s could not be read; the commits say all that it said", log, ", ".join(found))
    return found


def _is_readable(checkpoint: Path) -> bool:
    try:
        return checkpoint.suffix != ".parquet" or bool(pq.read_table(checkpoint).num_rows)
    except (pa.ArrowException, OSError):
        return False
