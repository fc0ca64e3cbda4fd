"""A stop that comes when a worker has drained kills nobody, whichever thread it comes to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.servers import ROOT

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


ELSEWHERE = """
import asyncio, signal, sys, threading, time
from rrdispatch.serve.loops import loop_factory, run
from rrdispatch.serve.stopping import Stops

async def main(asked):
    main = threading.get_native_id()
    def stop():
        for _ in range(1000):  # until the loop waits; where nobody can say, for a while
            with open(f"/proc/self/task/{main}/wchan") as file:
                if "poll" in file.read():
                    break
            time.sleep(0.002)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    asyncio.get_running_loop().call_later(0.1, threading.Thread(target=stop).start)
    await asked.wait()
    print("asked")
    return 0

asked = asyncio.Event()
sys.exit(run(main(asked), loop_factory(sys.argv[1]), Stops("TERM", asked.set)))
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_stop_that_comes_to_another_thread_wakes_the_loop(loop: str) -> None:
    """Which has nothing else to wake it."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    told = subprocess.run(
        [sys.executable, "-W", "error", "-c", ELSEWHERE, loop],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (told.returncode, told.stdout, told.stderr) == (0, "asked\n", "")
