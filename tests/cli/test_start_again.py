"""A start that fails under the name of an app that is known: what is known of it stays."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from rrdispatch.control import definitions
from tests.cli.plane import Plane, finish, get
from tests.cli.test_start import SECOND_FAILS
from tests.harness import processes
from tests.harness.servers import wait_until

COMMON = ("--name", "web", "-b", "127.0.0.1:0")


def known(plane: Plane) -> definitions.Definition:
    found = definitions.load("web", plane.home)
    assert found is not None
    return found


@pytest.fixture
def stopped(plane: Plane) -> Plane:
    """``web`` serves shop:app, and is stopped."""
    plane.start()
    plane.ok("stop", "web")
    return plane


def as_it_was(plane: Plane, before: definitions.Definition) -> dict[str, Any]:
    """Its row; and it can be started again."""
    assert processes.wait_gone(plane.living(), 20.0) == []
    after = known(plane)
    assert (after.target, after.typed, after.wanted) == (before.target, before.typed, before.wanted)
    assert after.before is None
    row = plane.row()
    plane.ok("start", "web")
    assert get(plane.row())["version"] == 1
    assert known(plane).before is None
    return row


def test_of_something_that_cannot_be_imported(stopped: Plane) -> None:
    before = known(stopped)
    (stopped.here / "broken.py").write_text("raise RuntimeError('no such luck')\n")
    told = stopped.type("start", "broken:app", *COMMON)
    assert told.code == 4, told
    row = as_it_was(stopped, before)
    assert (row["status"], row["target"]) == ("errored", "shop:app")
    assert "broken:app can't be imported" in row["error"]["message"]


def test_of_which_one_worker_fails(stopped: Plane) -> None:
    before = known(stopped)
    (stopped.here / "half.py").write_text(SECOND_FAILS)
    limits = ("-i", "2", "--max-restarts", "1", "--respawn-delay", "0.01")
    told = stopped.type("start", "half:app", *COMMON, *limits)
    assert told.code == 5, told
    row = as_it_was(stopped, before)
    assert row["status"] == "errored"
    assert "1 of 2 workers became ready" in row["error"]["message"]


def test_that_is_interrupted(stopped: Plane) -> None:
    before = known(stopped)
    (stopped.here / "slow.py").write_text("import time\ntime.sleep(300)\n")
    command = stopped.begin("start", "slow:app", *COMMON, "--ready-timeout", "300")
    wait_until(lambda: stopped.row()["status"] == "launching", 60.0)
    command.send_signal(signal.SIGINT)
    finish(command)
    row = as_it_was(stopped, before)
    assert (row["status"], row["error"]) == ("stopped", None)
