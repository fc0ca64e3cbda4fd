"""The pages say what the code does."""

from __future__ import annotations

import importlib.util
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from rrdispatch.cluster import signals
from rrdispatch.cluster.lifecycle import State
from rrdispatch.control.server import METHODS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_picture_is_drawn_from_the_table() -> None:
    spec = importlib.util.spec_from_file_location("lifecycle_page", DOCS / "lifecycle.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (DOCS / "lifecycle.md").read_text()
    assert module.page(text) == text, "run: python docs/lifecycle.py"


def test_every_state_is_explained() -> None:
    text = (DOCS / "lifecycle.md").read_text()
    assert all(f"\n| {state.value} | " in text for state in State)


# What the kernel does with them is right: nothing is handled.
DEFAULT = {"WINCH", "ABRT"}


class Loop:
    """Takes handlers, calls none."""

    def __init__(self) -> None:
        self.handled: set[str] = set()

    def add_signal_handler(self, number: int, handler: Callable[[], None]) -> None:
        self.handled.add(signal.Signals(number).name.removeprefix("SIG"))


def test_the_table_of_signals_has_every_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop()
    monkeypatch.setattr("asyncio.get_running_loop", lambda: loop)
    monkeypatch.setattr(signals, "adopts_orphans", lambda: True)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)

    class Nobody:
        stop = kill = reload = scale_by = reopen_logs = staticmethod(lambda: None)
        reap_if_ours = ignored = staticmethod(lambda *_: None)

    signals.Signals(Nobody())  # type: ignore[arg-type]
    table = (DOCS / "signals.md").read_text().partition("To a worker")[0]
    rows = re.findall(r"^\| ([A-Z0-9]+(?:, [A-Z0-9]+)*) \|", table, re.MULTILINE)
    assert loop.handled == {name for row in rows for name in row.split(", ")} - DEFAULT


def test_every_event_and_method_is_in_the_protocol() -> None:
    page = (DOCS / "protocol.md").read_text().partition("## 5.")[2]
    package = DOCS.parent / "rrdispatch" / "cluster"
    text = "\n".join(path.read_text() for path in package.glob("*.py"))
    told = set(re.findall(r'(?:\btell|announce)\(\s*"([a-z-]+)"', text))
    assert {"ready", "exited", "errored"} <= told
    assert {name for name in told if f"`{name}`" not in page} == set()
    assert {name for name in METHODS if f"`{name}`" not in page} == set()
