"""A stop that comes when a worker has drained kills nobody, whichever thread it comes to."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from .conftest import Start

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("name", ["asgi", "wsgi", "plain", "coroutine"])
def test_a_late_stop_kills_nobody(start: Start, tmp_path: Path, name: str, loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    gate = tmp_path / "gate"
    primary = start(f"lingers:{name}", loop=loop, environment={"GATE": str(gate)}).ready()
    primary.stop()
    assert primary.process.stdout is not None
    while primary.process.stdout.readline() != b"leaving\n":
        assert primary.process.poll() is None, primary.output()
    for number in SIGNALS:
        primary.stop(number)
    gate.touch()
    assert primary.wait() == 0
