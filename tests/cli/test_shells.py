"""Several shells at once: whatever they type, state and processes agree at the end."""

from __future__ import annotations

import contextlib
import random
import threading
from pathlib import Path

import pytest

from rrdispatch.control import definitions
from rrdispatch.control.definitions import RUN, STOP
from tests.cli.plane import Plane, Told, finish
from tests.harness import processes
from tests.harness.servers import wait_until
from tests.harness.sizes import size

NAMES = ("web", "api")
EXPECTED = {0, 2, 4, 5, 6, 8}  # done, or refused in words
SHELLS, COMMANDS = 4, 6
SLEEP = ("--no-listen", "--min-uptime", "0", "--", "sleep", "1e6")
KILL = "SIGKILL"  # to its primary
AGREE = ((RUN, "online"), (STOP, "stopped"), (RUN, "stopped"))  # the last by ``kill``


def command(rnd: random.Random) -> list[str]:
    name = rnd.choice(NAMES)
    new = ["start", "shop:app", "--name", name, "-i", "1", "-b", "127.0.0.1:0", "--no-access-log"]
    job = ["start", "--name", name, "-i", "2", *SLEEP]
    others = [
        ["start", name], ["stop", name], ["stop", "--now", name], ["delete", name],
        ["restart", name], ["restart", f"{name}:0"], ["restart", "--update-env", name],
        ["scale", name, str(rnd.randint(1, 3))], ["scale", name, "+1"],
        ["reload", name, "--probation", "0.1"], ["reload", "--no-wait", name],
        ["list", "--json"], ["show", name], ["pid", name], ["ping"], ["reset", name],
        ["logs", name, "--no-follow"], ["flush", name],
        ["stop", "all"], ["kill", "--now"], ["resurrect"], ["delete", "all"], [KILL, name],
    ]  # fmt: skip
    kind = rnd.random()
    return new if kind < 0.2 else job if kind < 0.35 else rnd.choice(others)


def kill_primary(plane: Plane, name: str) -> None:
    """An heir follows it; if it is stopping or starting, whoever waits for that is told."""
    for pid in plane.type("pid", "--primary", name).out.split():
        with contextlib.suppress(ProcessLookupError):
            processes.kill(int(pid))


def settled(plane: Plane) -> bool:
    """Nothing is under way: neither a reload that nobody waits for nor an heir's first steps."""
    rows = plane.rows()
    still = all(row["status"] in ("online", "stopped") for row in rows)
    return still and all(row["serving"] == row["instances"] for row in rows)


def test_two_starts_in_a_fresh_home(tmp_path: Path) -> None:
    """One app, that of who was told so, and one clear answer to the other."""
    for number in range(size(4, 20)):
        folder = tmp_path / str(number)
        folder.mkdir()
        plane = Plane(folder)
        try:
            one_of_two(plane)
        finally:
            plane.close()


def one_of_two(plane: Plane) -> None:
    own = [
        ("start", "--name", "web", "-i", "1", *SLEEP[:-1], seconds) for seconds in ("1e6", "2e6")
    ]
    commands = [plane.begin(*typed) for typed in own]
    told = [finish(command) for command in commands]
    assert sorted(each.code for each in told) == [0, 8], told
    winner = next(number for number, each in enumerate(told) if each.code == 0)
    assert told[winner].out.startswith("web: started, id 0: 1 worker"), told
    assert told[1 - winner].err == (
        "error: web runs already\nhint: stop it, or give this one another --name\n"
    )
    (row,) = plane.rows()
    assert (row["id"], row["status"], row["serving"]) == (0, "online", 1)
    assert processes.command(row["workers"][0]["pid"])[-1] == own[winner][-1]
    assert plane.ok("delete", "web") == "web: deleted\n"
    assert processes.wait_gone(plane.living(), 20.0) == []
    assert {path.name for path in plane.home.iterdir()} == {".ids", "logs"}


@pytest.mark.parametrize("seed", size([1], [1, 2]))
def test_random_commands_from_four_shells(plane: Plane, seed: int) -> None:
    said: list[tuple[list[str], Told]] = []

    def shell(number: int) -> None:
        rnd = random.Random(f"{seed}.{number}")
        for _ in range(COMMANDS):
            typed = command(rnd)
            if typed[0] == KILL:
                kill_primary(plane, typed[1])
            else:
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
    wait_until(lambda: settled(plane), 60.0, "everything stands still")
    rows = {row["name"]: row for row in plane.rows()}
    assert len({row["id"] for row in rows.values()}) == len(rows)
    assert {path.name for path in plane.home.iterdir() if path.is_dir()} - {"logs"} == set(rows)
    for name, row in rows.items():
        found = definitions.load(name, plane.home)
        assert found is not None
        assert (found.wanted, row["status"]) in AGREE, row
    alive = [row["primary_pid"] for row in rows.values() if row["primary_pid"]]
    # Dispatchers and loggers end a moment after their primary.
    wait_until(lambda: bool(plane.living()) == bool(alive), 30.0, "no process without an app")
    if rows:
        plane.ok("delete", "all")
    assert processes.wait_gone(plane.living(), 20.0) == []
    assert plane.rows() == []
