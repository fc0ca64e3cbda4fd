"""Several shells at once: whatever they type, state and processes agree at the end."""

from __future__ import annotations

import random
import threading

import pytest

from tests.cli.plane import Plane, Told
from tests.harness import processes

NAMES = ("web", "api")
EXPECTED = {0, 2, 4, 5, 6, 8}  # done, or refused in words
SHELLS, COMMANDS = 4, 6


def command(rnd: random.Random) -> list[str]:
    name = rnd.choice(NAMES)
    new = ["start", "shop:app", "--name", name, "-i", "1", "-b", "127.0.0.1:0", "--no-access-log"]
    others = [
        ["start", name], ["stop", name], ["stop", "--now", name], ["delete", name],
        ["restart", name], ["scale", name, str(rnd.randint(1, 2))],
        ["reload", name, "--probation", "0.1"], ["list", "--json"], ["stop", "all"], ["ping"],
    ]  # fmt: skip
    return new if rnd.random() < 0.3 else rnd.choice(others)


@pytest.mark.parametrize("seed", [1, 2])
def test_random_commands_from_four_shells(plane: Plane, seed: int) -> None:
    said: list[tuple[list[str], Told]] = []

    def shell(number: int) -> None:
        rnd = random.Random(f"{seed}.{number}")
        for _ in range(COMMANDS):
            typed = command(rnd)
            said.append((typed, plane.type(*typed)))

    shells = [threading.Thread(target=shell, args=(number,)) for number in range(SHELLS)]
    for each in shells:
        each.start()
    for each in shells:
        each.join()
    for typed, told in said:
        assert told.code in EXPECTED, (typed, told)
        assert "Traceback" not in told.err, (typed, told)
        assert told.code == 0 or "error: " in told.err, (typed, told)
    rows = {row["name"]: row for row in plane.rows()}
    assert len({row["id"] for row in rows.values()}) == len(rows)
    assert {path.name for path in plane.home.iterdir() if path.is_dir()} - {"logs"} == set(rows)
    for row in rows.values():
        assert row["status"] in ("online", "stopped"), row
        assert row["serving"] == row["instances"], row
    alive = [row["primary_pid"] for row in rows.values() if row["primary_pid"]]
    assert bool(plane.living()) == bool(alive)
    if rows:
        plane.ok("delete", "all")
    assert processes.wait_gone(plane.living(), 5.0) == []
    assert plane.rows() == []
