"""The table of figures at the end, and journals for apps that prove where a request was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.journal import Journal
from tests.harness.sizes import FULL

Show = Callable[[str, str, str], None]

_ROWS: list[tuple[str, str, str]] = []


@pytest.fixture
def show() -> Show:
    """Show one line of figures: number of the promise, what was done, what was measured."""

    def line(promise: str, what: str, figures: str) -> None:
        _ROWS.append((promise, what, figures))
        print(f"{promise}  {what}: {figures}")

    return line


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A directory in which the workers of the test write down what they took and finished."""
    directory = tmp_path / "journal"
    directory.mkdir()
    return Journal(directory)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """All figures in one table, failed or not."""
    if not _ROWS:
        return
    name = "full size" if FULL else "small size; the full one is `make accept`"
    terminalreporter.section(f"what was shown ({name})")
    for promise, what, figures in sorted(_ROWS):
        terminalreporter.write_line(f"{promise:>2}  {what}: {figures}")
