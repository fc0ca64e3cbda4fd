"""save and resurrect: what was saved, what should run, and files that are half written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from rrdispatch.control import definitions, saved
from rrdispatch.control.kept import previous
from tests.cli.plane import Plane


def start(plane: Plane, *names: str) -> None:
    for name in names:
        plane.ok("start", "-n", name, "-i", "1", "--no-listen", "--min-uptime", "0", "--", "sleep",
                 "1000")  # fmt: skip


def statuses(plane: Plane) -> dict[str, str]:
    return {row["name"]: row["status"] for row in plane.rows()}


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def test_what_was_saved_comes_back_when_nothing_else_is_left(plane: Plane) -> None:
    start(plane, "one", "two")
    plane.ok("stop", "two")
    path = plane.home / saved.FILE
    assert plane.ok("save") == f"saved: 2 apps, of which 1 should run: {path}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    plane.ok("delete", "all")
    assert plane.ok("resurrect") == "one: started\n"
    assert statuses(plane) == {"one": "online"}
    assert plane.ok("resurrect") == "nothing to start\n"


def test_what_was_killed_comes_back_and_what_was_stopped_does_not(plane: Plane) -> None:
    start(plane, "one", "two")
    plane.ok("stop", "two")
    plane.ok("kill")
    assert statuses(plane) == {"one": "stopped", "two": "stopped"}
    assert plane.ok("resurrect") == "one: started\n"
    plane.ok("save")
    plane.ok("stop", "all")
    assert plane.ok("resurrect") == "nothing to start\n"


def test_what_was_stopped_since_stays_so_unless_it_is_said(plane: Plane) -> None:
    start(plane, "one", "two", "three")
    plane.ok("save")
    plane.ok("stop", "two")
    plane.ok("delete", "three")
    told = plane.type("resurrect")
    assert (told.code, told.out) == (0, "nothing to start\n"), told
    assert "stopped or deleted since the last save: two, three" in told.err
    assert plane.ok("resurrect", "--saved") == "two: started\nthree: started\n"
    assert statuses(plane) == dict.fromkeys(("one", "two", "three"), "online")


def test_an_empty_list_does_not_replace_what_was_saved(plane: Plane) -> None:
    start(plane, "one")
    plane.ok("save")
    plane.ok("delete", "all")
    told = plane.type("save")
    assert (told.code, "nothing was saved" in told.err) == (0, True), told
    assert plane.ok("resurrect") == "one: started\n"
    plane.ok("delete", "all")
    plane.ok("save", "--force")
    assert plane.ok("resurrect") == "nothing to start\n"


def test_half_written_files_are_told_and_the_ones_before_are_used(plane: Plane) -> None:
    start(plane, "one")
    plane.ok("save")
    plane.ok("save")
    plane.close()
    halve(plane.home / "one" / definitions.FILE)
    shown = plane.type("show", "one")
    told = plane.type("resurrect")
    assert (told.code, told.out) == (0, "one: started\n"), told
    assert f"{plane.home / 'one' / definitions.FILE} is spoilt" in told.err
    assert f"{plane.home / 'one' / definitions.FILE} is spoilt" in shown.err
    plane.ok("delete", "all")
    halve(plane.home / saved.FILE)
    told = plane.type("resurrect")
    assert (told.code, told.out) == (0, "one: started\n"), told
    assert f"{plane.home / saved.FILE} is spoilt" in told.err


def test_an_app_without_a_whole_file_is_started_as_it_was_saved(plane: Plane) -> None:
    start(plane, "one", "two")
    plane.ok("save")
    plane.close()
    file = plane.home / "one" / definitions.FILE
    previous(file).unlink()
    file.write_bytes(b"\0" * 4096)
    told = plane.type("start", "one")
    assert (told.code, told.err.startswith(f"error: {file} is spoilt: ")) == (8, True)
    assert file.exists(), "somebody may mend it"
    told = plane.type("resurrect")
    assert (told.code, told.out) == (0, "two: started\none: started\n"), told
    assert f"{file} is spoilt" in told.err
    assert statuses(plane) == {"one": "online", "two": "online"}
