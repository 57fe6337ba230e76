"""Progress of a command, on stderr: bars on a terminal, elsewhere a line now and then."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from clickstream_assets.engine.jars import Configuration, Watch

LINE_SECONDS = 10.0
"""Seconds between two lines where there is no terminal."""
_BAR_SECONDS = 0.1


@contextmanager
def counting(description: str, total: int | None, of: str = "records") -> Iterator[Callable[[int], None]]:
    """Yield a function that is given the number of records, or of whatever else, so far; their rate is shown with it.

    Args:
        description: What is done to them.
        total: How many there will be, if that is known.
        of: What they are.
    """
    if not sys.stderr.isatty():
        yield _at_most_every(LINE_SECONDS, _Lines(description, total, of))
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:,.1f}/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total)
        yield _at_most_every(_BAR_SECONDS, lambda count: bar.update(task, completed=count))


@contextmanager
def fetching() -> Iterator[tuple[Callable[[str], None], "Watch | None"]]:
    """Yield what `fetch_jars` reports to: lines, and on a terminal a bar of bytes for each part."""
    if not sys.stderr.isatty():
        yield partial(typer.echo, err=True), None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

    tasks: dict[Configuration, TaskID] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:

        def watch(fetched: "Mapping[Configuration, int]") -> None:
            for name, count in fetched.items():
                if name not in tasks:
                    tasks[name] = bars.add_task(name, total=name.size)
                bars.update(tasks[name], completed=min(count, name.size))

        yield lambda line: bars.console.print(line, markup=False, highlight=False, soft_wrap=True), watch


class _Lines:
    """Says how many there are by now, and their rate since the last line."""

    def __init__(self, description: str, total: int | None, of: str) -> None:
        self._description = description
        self._of = of if total is None else f"of {total:,} {of}"
        self._count = 0
        self._at = monotonic()

    def __call__(self, count: int) -> None:
        now = monotonic()
        rate = (count - self._count) / (now - self._at)
        typer.echo(f"{self._description}: {count:,} {self._of}, {rate:,.1f}/s", err=True)
        self._count, self._at = count, now


def _at_most_every(seconds: float, update: Callable[[int], None]) -> Callable[[int], None]:
    due = monotonic() + seconds

    def when_due(count: int) -> None:
        nonlocal due
        if monotonic() >= due:
            due = monotonic() + seconds
            update(count)

    return when_due
