"""``start`` of a program that listens on port 0: said while it waits."""

from __future__ import annotations

import pytest

from tests.cli.plane import Plane
from tests.programs.program import APPS


def test_start_says_it_while_it_waits(plane: Plane) -> None:
    command = plane.begin(
        "start", "--ready-timeout", "600", "--", "python3", str(APPS / "hello.py"), "0"
    )
    assert command.stderr is not None
    for line in command.stderr:
        if "by itself" in line:
            break
    else:
        pytest.fail("it ended without a word")
    command.terminate()
    command.communicate(timeout=60)
