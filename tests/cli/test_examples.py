"""The examples start from their rrdispatch.toml, and come back when everything was killed."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from rrdispatch import apps
from tests.cli.plane import Plane
from tests.harness import processes
from tests.harness.servers import ROOT
from tests.test_examples import get

FILE = ROOT / "examples" / "rrdispatch.toml"
NAMES = ["hello", "fastapi", "flask", "echo"]
EACH = 4  # processes of an app at least: a primary, a dispatcher, a logger and a worker


def answers(row: dict[str, Any]) -> str:
    if row["name"] != "echo":
        return get(row["listeners"][0])
    host, _, port = row["listeners"][0].rpartition(":")
    with socket.create_connection((host, int(port)), 30) as connection:
        return connection.makefile().readline()


def serving(plane: Plane) -> dict[str, tuple[int, str, int]]:
    """Each answers; its id, state and workers."""
    rows = plane.rows()
    assert all(answers(row) for row in rows)
    return {row["name"]: (row["id"], row["status"], row["serving"]) for row in rows}


@pytest.mark.timeout(600)
def test_kill_9_of_everything_then_resurrect(plane: Plane, tmp_path: Path) -> None:
    plane.ok("start", str(FILE), "-b", "127.0.0.1:0", "--no-access-log", cwd=tmp_path)
    before = serving(plane)
    assert before == {name: (number, "online", 2) for number, name in enumerate(NAMES)}
    killed = plane.living()
    assert len(killed) >= EACH * len(NAMES)
    plane.close()
    assert processes.wait_gone(killed, 60.0) == []
    assert {row["status"] for row in plane.rows()} == {"killed"}
    said = plane.ok("resurrect", cwd=tmp_path)
    assert said == "".join(f"{name}: started\n" for name in NAMES)
    assert serving(plane) == before
    assert not set(killed) & set(plane.living())


def test_the_file_says_what_the_readme_says() -> None:
    found = apps.load(FILE)
    assert found is not None
    assert list(found.apps) == NAMES
    page = (ROOT / "examples" / "README.md").read_text()
    for app in found.apps.values():
        module = app.config.table["target"].partition(":")[0]
        assert f"({module}.py)" in page
