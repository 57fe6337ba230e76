"""Appends to a table by several writers at once, each a process of its own that can die in one.

`python -m clickstream_assets_tests.appending NAME COMMITS FOLDER WRITERS` appends a row in each of so many commits, on
the engine that the environment names. Before each commit it waits in the folder until all the writers are about to make
theirs. With `dies` after that it kills itself there in the last one, when the files are written.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from clickstream_assets.catalogue import Column, Table
from clickstream_assets.engine import DuckDBEngine, SparkEngine, spark_session
from clickstream_assets.settings import EngineName, load_settings
from clickstream_assets.stores import lake as lake_module
from clickstream_assets.stores.lake import Lake

APPENDED = Table(
    "appended",
    "one commit of a writer, for tests",
    (Column("writer", pa.string(), "Who"), Column("number", pa.int64(), "Which, from 1")),
    key=("writer", "number"),
    partition_by=("writer",),
)
_PATIENCE_SECONDS = 600


def main(name: str, commits: int, folder: Path, writers: int, dies: bool) -> None:
    """Append so many rows."""
    settings = load_settings()
    is_spark = settings.engine is EngineName.SPARK
    engine = SparkEngine(lambda: spark_session(settings)) if is_spark else DuckDBEngine(settings)
    number = 0

    def meet() -> None:
        (folder / f"{number}-{name}").touch()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while len(list(folder.glob(f"{number}-*"))) < writers:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} waits for the others with commit {number}")
            time.sleep(0.005)
        if dies and number == commits:
            os.kill(os.getpid(), signal.SIGKILL)

    def after_meeting(commit: Callable[..., None]) -> Callable[..., None]:
        def meet_and_commit(*arguments: Any, **options: Any) -> None:
            meet()
            commit(*arguments, **options)

        return meet_and_commit

    owner, commit = (DeltaTable, "create_write_transaction") if is_spark else (lake_module, "write_deltalake")
    setattr(owner, commit, after_meeting(getattr(owner, commit)))
    lake = Lake(settings.lake, engine)
    for number in range(1, commits + 1):
        row = pa.Table.from_pylist([{"writer": name, "number": number}], APPENDED.arrow)
        lake.append(APPENDED, engine.from_arrow(row))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), "dies" in sys.argv[5:])
