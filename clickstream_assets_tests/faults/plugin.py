"""The mark and the fixture of a fault, which hold its test to what it has to show, and the table of all faults."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    # It imports half of the product, which settings of the tests have to come before.
    from clickstream_assets_tests.faults.account import Account

KEY, NAME = "fault", "name of the fault"
HEADS = ("fault", "what a person saw", "until healthy", "sent", "lost", "doubled", "held")
MOST_NAMED = 5
WIDTH = 160
_FAULT = pytest.StashKey["Fault"]()


class Fault:
    """What a test of a fault records.

    Args:
        name: that of the mark.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._saw: list[str] = []
        self._seconds: float | None = None
        self._was_away = True
        self._account: Account | None = None
        self._no_records: str | None = None
        self._let_go = 0

    def saw(self, output: str, pattern: str = r"(?s).+") -> str:
        """Record what a person saw: the part of real output that matches, all of it by default; the last of several."""
        found = [match.group(0).strip() for match in re.finditer(pattern, output)]
        assert found, f"{pattern!r} is not in: {output[-3000:]}"
        said = found[-1]
        if said not in self._saw:
            self._saw.append(said)
        return said

    @contextmanager
    def until_healthy(self) -> Iterator[None]:
        """Measure a block that begins when the cause is over, and ends when everything goes on as before."""
        began = time.monotonic()
        yield
        self._seconds = (self._seconds or 0) + time.monotonic() - began

    def healthy_after(self, seconds: Sequence[float]) -> None:
        """Record how long it took each time, of a fault that was tried many times: the longest counts."""
        self._seconds = max(seconds)

    def stayed_healthy(self) -> None:
        """Record that others were served all the time."""
        self._was_away = False

    def settle(self, account: Account, let_go: int = 0) -> None:
        """Record the count; `let_go` events were deleted by Kafka unread, and a person agreed to go on without them."""
        self._account, self._let_go = account, let_go

    def keeps_no_records(self, reason: str) -> None:
        """Record why there is nothing to count."""
        self._no_records = reason

    def check(self) -> None:
        """Fail where the test has left something out, or something is lost or doubled."""
        assert self._saw, f"{self.name} does not record what a person saw: fault.saw"
        assert self._seconds is not None or not self._was_away, (
            f"{self.name} does not measure the time until healthy: fault.until_healthy, or stayed_healthy"
        )
        account = self._account
        if account is None:
            assert self._no_records, f"{self.name} counts nothing: fault.settle, or fault.keeps_no_records"
            return
        assert account.sent, f"{self.name} has sent nothing"
        assert not account.lost, _few("lost", account)
        assert not account.doubled, _few("doubled", account)

    def row(self) -> dict[str, str]:
        """The table's row, by its heads, but for the name."""
        account = self._account
        if account is None:
            counts = {"sent": "-", "lost": "-", "doubled": "-", "held": self._no_records or ""}
        else:
            agreed = f", and {self._let_go:,} let go" if self._let_go else ""
            counts = {
                "sent": f"{account.sent:,}",
                "lost": f"{len(account.lost):,}{agreed}",
                "doubled": f"{len(account.doubled):,}",
                "held": account.counts(),
            }
        seconds = "" if self._seconds is None else f"{self._seconds:.1f} s"
        return {
            "what a person saw": "; ".join(self._saw),
            "until healthy": seconds if self._was_away else "was never away",
            **counts,
        }


def _few(what: str, account: Account) -> str:
    named = getattr(account, what)
    return f"{what} {len(named)}: {'; '.join(named[:MOST_NAMED])} …; there are {account.counts()}"


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Fault:
    """What the test of a fault records; it is asked for everything when the test has ended."""
    made: Fault = request.node.stash[_FAULT]
    return made


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the table's file."""
    parser.addoption(
        "--faults-table",
        metavar="FILE",
        type=Path,
        help="write the table of the faults that were tried, as Markdown",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Collect the rows."""
    config.pluginmanager.register(Faults(config.getoption("--faults-table")), "faults")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Hold each test of a fault to both, the mark and the fixture.

    Raises:
        UsageError: a test has one without the other.
    """
    for item in items:
        mark = item.get_closest_marker(KEY)
        if (mark is not None) != (KEY in getattr(item, "fixturenames", ())):
            raise pytest.UsageError(f"{item.nodeid}: a fault has the mark `fault` and the fixture `fault`")
        if mark is not None:
            item.stash[_FAULT] = Fault(*mark.args)
    names = Counter(item.stash[_FAULT].name for item in items if _FAULT in item.stash)
    for item in items:
        if _FAULT in item.stash:
            name, case = item.stash[_FAULT].name, item.name.partition("[")[2].removesuffix("]")
            # By these a process of xdist tells the others; in this way also of one that never began.
            shown = f"{name} ({case})" if names[name] > 1 and case else name
            item.user_properties.append((NAME, shown))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Check, after a test of a fault that did not fail, that it has shown everything."""
    fault = item.stash.get(_FAULT, None)
    try:
        yield
        if fault:
            fault.check()
    finally:
        if fault:
            item.user_properties.append((KEY, fault.row()))


class Faults:
    """The faults that were tried, in this process or others.

    Args:
        file: is written, where it is given.
    """

    def __init__(self, file: Path | None) -> None:
        # Tests run in folders of their own.
        self._file = file and file.absolute()
        self._rows: dict[str, dict[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take a row, or that there is none."""
        told: dict[str, Any] = dict(report.user_properties)
        name = told.get(NAME)
        if name is None:
            return
        row = self._rows.setdefault(name, {"fault": name})
        row |= told.get(KEY, {})
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            row["what a person saw"] = f"not tried: {str(reason).removeprefix('Skipped: ')}"
        if report.failed:
            row["what a person saw"] = f"FAILED. {row.get('what a person saw', '')}"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table, and write it."""
        if not self._rows:
            return
        rows = [[row.get(head, "") for head in HEADS] for _, row in sorted(self._rows.items())]
        terminalreporter.section("faults")
        terminalreporter.write_line(_printed(rows))
        if self._file:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(_markdown(rows))
            terminalreporter.write_line(f"written to {self._file}")


def _printed(rows: list[list[str]]) -> str:
    table = Table(show_lines=True)
    for head in HEADS[:-1]:
        table.add_column(head, overflow="fold", max_width=90)
    for row in rows:
        table.add_row(*map(escape, row[:-1]))
    text = StringIO()
    Console(file=text, width=WIDTH).print(table)
    return text.getvalue()


def _markdown(rows: list[list[str]]) -> str:
    lines = [HEADS, ["---"] * len(HEADS), *rows]
    cells = [[re.sub(r"\s+", " ", cell).replace("|", r"\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)
