"""A primary that answers nobody: it is said and has an end; ``stop --now`` ends it all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rrdispatch.control import definitions, ending, frozen, statedir
from rrdispatch.control.ask import Line
from rrdispatch.control.definitions import RUN, STOP
from tests.cli.plane import Plane
from tests.harness import processes
from tests.harness.servers import wait_until

# Claims the name, has a child, and never answers.
SILENT = """
import os, signal, sys, time
from rrdispatch.control import definitions, statedir
place = statedir.claim("web")
definitions.save(definitions.Definition("web", id=0, wanted="run", started=1.0))
if os.fork() == 0:
    place.close()
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("up", flush=True)
while True:
    time.sleep(1000)
"""
# Holds a process as a debugger does: no SIGCONT helps.
HOLDS = """
import ctypes, os, sys
libc, pid = ctypes.CDLL(None, use_errno=True), int(sys.argv[1])
SEIZE, INTERRUPT = 0x4206, 0x4207
if libc.ptrace(SEIZE, pid, None, None) or libc.ptrace(INTERRUPT, pid, None, None):
    sys.exit(os.strerror(ctypes.get_errno()))
os.waitpid(pid, 0x40000000)
print("held", flush=True)
os.waitpid(pid, 0x40000000)
"""


def freeze(plane: Plane) -> int:
    primary: int = plane.row()["primary_pid"]
    os.kill(primary, signal.SIGSTOP)
    wait_until(lambda: processes.state(primary) == "T", 60.0)
    return primary


def all_gone(plane: Plane) -> None:
    assert processes.wait_gone(plane.living(), 60.0) == []
    row = plane.row()
    assert (row["status"], row["primary_pid"]) == ("stopped", None)
    found = definitions.load("web", plane.home)
    assert found is not None
    assert found.wanted == STOP


@pytest.mark.parametrize("heir", [True, False])
def test_it_is_said_and_stop_now_ends_it(plane: Plane, heir: bool) -> None:
    plane.start("shop:app", *(() if heir else ("--no-heir",)))
    freeze(plane)
    told = plane.type("stop", "web")
    assert told.code == 8, told
    assert "error: web did not answer stats in time" in told.err
    assert "hint: rrdispatch stop --now web ends it all the same" in told.err
    assert plane.row(answer=3.0)["status"] == "not answering"
    assert plane.ok("stop", "--now", "web") == "web: stopped\n"
    all_gone(plane)


def test_one_that_is_stopped_is_woken_and_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, plane: Plane
) -> None:
    monkeypatch.setenv("RRDISPATCH_HOME", str(plane.home))
    plane.start("shop:app", "--no-heir")
    freeze(plane)
    monkeypatch.setattr(ending, "SOON", 60.0)
    monkeypatch.setattr(ending, "MOST_SILENCES", 0)
    found = definitions.load("web")
    assert found is not None
    assert ending.stop(found, now=True)
    all_gone(plane)


def test_one_that_a_debugger_holds(plane: Plane) -> None:
    """Its heir ends the rest; the app can be started again."""
    primary = plane.start()["primary_pid"]
    debugger = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(primary)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert debugger.stdout is not None
    try:
        if debugger.stdout.readline() != "held\n":
            pytest.skip(f"a process may not be held here: {debugger.communicate()[1]}")
        assert plane.ok("stop", "--now", "web") == "web: stopped\n"
        all_gone(plane)
    finally:
        debugger.kill()
        debugger.communicate()
    plane.ok("start", "web")
    assert plane.row()["status"] == "online"


def test_one_that_never_answers_and_has_no_dispatcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plane: Plane
) -> None:
    monkeypatch.setenv("RRDISPATCH_HOME", str(plane.home))
    monkeypatch.setattr(Line.call, "__defaults__", (0.2,))
    monkeypatch.setattr(ending, "SOON", 0.2)
    monkeypatch.setattr(ending, "ANSWER", 3.0)
    silent = subprocess.Popen(
        [sys.executable, "-c", SILENT], env=plane.environment(), stdout=subprocess.PIPE
    )
    assert silent.stdout is not None
    with silent, silent.stdout:
        assert silent.stdout.readline() == b"up\n"
        assert frozen.holders("web") == [silent.pid]
        found = definitions.load("web")
        assert found is not None
        assert found.wanted == RUN
        assert ending.stop(found, now=True)
        silent.wait(60)
    all_gone(plane)


def test_who_only_waits_for_the_lock_is_no_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RRDISPATCH_HOME", str(tmp_path))
    place = statedir.claim("web")
    open_too = os.open(place.folder / statedir.LOCK, os.O_RDWR)
    try:
        assert frozen.holders("web") == [os.getpid()]
        place.release()
        assert frozen.holders("web") == []
    finally:
        os.close(open_too)
    assert frozen.holders("nope") == []
