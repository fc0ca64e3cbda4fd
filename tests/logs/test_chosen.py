"""Which logs are shown and which are emptied, of apps that do not run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rrdispatch.control import definitions
from rrdispatch.control.definitions import Definition
from tests.cli.plane import Plane

LINE = "2026-11-26T05:00:0{slot}.000Z {name}.{slot} out | of {slot}\n"


@pytest.fixture
def plane(tmp_path: Path) -> Plane:
    """Nothing is started in it."""
    return Plane(tmp_path)


def known(plane: Plane, name: str, number: int, *, merge: bool = True) -> Path:
    """An app with a line of each of three slots; its log file."""
    (plane.home / name).mkdir(parents=True, mode=0o700)
    log = plane.home / f"{name}.log"
    settings = {"name": name, "log_file": str(log), "merge_logs": merge, "log_keep": 2}
    definitions.save(Definition(name, id=number, settings=settings), plane.home)
    for slot in range(3):
        path = log if merge else plane.home / f"{name}-{slot}.log"
        with open(path, "a") as file:
            file.write(LINE.format(name=name, slot=slot))
    return log


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize(
    ("chosen", "slots"),
    [(("web:0", "web:2"), "02"), (("web", "web:1"), "012"), (("web:1", "web"), "012"), ((), "012")],
)
def test_slots_of_an_app(plane: Plane, chosen: tuple[str, ...], slots: str, merge: bool) -> None:
    known(plane, "web", 0, merge=merge)
    shown = plane.ok("logs", *chosen, "--no-follow")
    assert shown == "".join(f"web.{slot} out | of {slot}\n" for slot in slots)


def test_a_slot_of_a_file_of_all_is_not_emptied(plane: Plane) -> None:
    web, other = known(plane, "web", 0), known(plane, "other", 1)
    told = plane.type("flush", "other", "web:0")
    assert told.code == 2
    assert "hint: rrdispatch flush web\n" in told.err
    assert web.stat().st_size
    assert other.stat().st_size


def test_a_slot_with_a_file_of_its_own_is(plane: Plane) -> None:
    known(plane, "web", 0, merge=False)
    plane.ok("flush", "web:0", "web:2")
    sizes = [(plane.home / f"web-{slot}.log").stat().st_size for slot in range(3)]
    assert [bool(size) for size in sizes] == [False, True, False]


@pytest.mark.parametrize("suffix", ["", ".1"])
def test_no_symlink_is_followed_and_the_others_go_on(plane: Plane, suffix: str) -> None:
    precious = plane.home.parent / "precious"
    precious.write_text("keep")
    link = Path(f"{known(plane, 'web', 0)}{suffix}")
    link.unlink(missing_ok=True)
    link.symlink_to(precious)
    other = known(plane, "other", 1)
    old = Path(f"{other}.2")
    old.write_text("old")
    told = plane.type("flush")
    assert told.code == 8
    assert f"{link} cannot be emptied: it is a symlink" in told.err
    assert precious.read_text() == "keep"
    assert other.stat().st_size == 0
    assert not old.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to give a file to somebody else")
@pytest.mark.parametrize("suffix", ["", ".1"])
def test_files_of_somebody_else_are_left_alone(plane: Plane, suffix: str) -> None:
    theirs = Path(f"{known(plane, 'web', 0)}{suffix}")
    theirs.write_text("theirs")
    os.chown(theirs, 12345, 12345)
    told = plane.type("flush", "web")
    assert told.code == 8
    assert "belongs to user 12345" in told.err
    assert theirs.read_text() == "theirs"
