"""``start --watch``: it watches in the background, and its heir does."""

from __future__ import annotations

from tests.cli.plane import Plane, get
from tests.harness import processes
from tests.harness.servers import wait_until


def changed_until(plane: Plane, version: int) -> None:
    """Nobody says when a watcher has begun to watch: write until it has seen it."""
    path = plane.here / "shop.py"
    text = path.read_text()

    looks = 0

    def served() -> bool:
        nonlocal looks
        if looks % 10 == 0:  # between two writes there is time for a reload
            path.write_text(text.rpartition("VERSION = ")[0] + f"VERSION = {version}\n")
        looks += 1
        return get(plane.row())["version"] == version

    wait_until(served, 90.0, f"version {version} is served")


def test_it_reloads_in_the_background_and_an_heir_goes_on(plane: Plane) -> None:
    row = plane.start("shop:app", "--watch", "--probation", "0")
    changed_until(plane, 2)
    processes.kill(row["primary_pid"])
    wait_until(lambda: plane.row()["primary_pid"] not in (None, row["primary_pid"]), 60.0)
    changed_until(plane, 3)
    log = (plane.home / "web" / "primary.log").read_text()
    assert "shop.py has changed" in log
