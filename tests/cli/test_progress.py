"""Commands that wait, in a terminal: what is seen meanwhile, and what an interrupt does."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator

import pytest

from rrdispatch.cli.each import each
from rrdispatch.control.definitions import Definition
from rrdispatch.control.selectors import Target
from tests.cli.plane import APP, PATIENCE, Plane, finish
from tests.cli.terminal import CTRL_C, Terminal
from tests.harness.servers import wait_until


@pytest.fixture
def terminals(plane: Plane) -> Iterator[list[Terminal]]:
    found: list[Terminal] = []
    yield found
    for terminal in found:
        terminal.close()


def open_terminal(found: list[Terminal], plane: Plane, *arguments: str, **env: str) -> Terminal:
    words = [sys.executable, "-m", "rrdispatch", *arguments]
    terminal = Terminal(words, plane.here, plane.environment({"TERM": "xterm", **env}), 100)
    found.append(terminal)
    return terminal


def last_block(seen: str) -> str:
    return seen.rpartition("\033[J")[2]


def test_a_line_per_slot_from_start_to_scale(plane: Plane, terminals: list[Terminal]) -> None:
    common = ("--name", "web", "-i", "2", "-b", "127.0.0.1:0", "--no-access-log")
    start = open_terminal(terminals, plane, "start", "shop:app", *common)
    assert start.end(PATIENCE) == 0
    assert "waiting for ready" in start.seen
    assert re.search(r"web:0  .*ready, pid \d+.*\nweb:1  .*ready, pid", last_block(start.seen))
    reload = open_terminal(terminals, plane, "reload", "web", "--probation", "0.2")
    assert reload.end(PATIENCE) == 0
    for word in ("waiting for ready", "parked", "draining 0 connections"):
        assert word in reload.seen, word
    assert "\033[32mready" in reload.seen
    assert "web: reloaded in" in reload.seen.splitlines()[-1]
    less = open_terminal(terminals, plane, "scale", "web", "1", NO_COLOR="1")
    assert less.end(PATIENCE) == 0
    assert re.search(r"web:1  gone \(exit code 0\), pid", less.seen)
    assert not re.search(r"\033\[\d*m", less.seen)


def test_nothing_moves_where_nothing_can(plane: Plane, terminals: list[Terminal]) -> None:
    plane.start()
    dumb = open_terminal(terminals, plane, "reload", "web", "--probation", "0", TERM="dumb")
    assert dumb.end(PATIENCE) == 0
    assert "\033" not in dumb.seen
    assert "web:0 spawned, pid" in dumb.seen
    told = plane.type("scale", "web", "1")
    assert (told.code, told.out) == (0, "web: 1 worker\n")
    assert "web:1 draining 0 connections, pid" in told.err


WAITING = """
import pathlib, time
while not pathlib.Path("go on").exists():
    time.sleep(0.02)
"""


def test_an_interrupt_leaves_a_reload_alone(plane: Plane, terminals: list[Terminal]) -> None:
    plane.start()
    (plane.here / "shop.py").write_text(WAITING + APP)
    reload = open_terminal(terminals, plane, "reload", "web", "--probation", "0.2")
    reload.until("waiting for ready", PATIENCE)
    reload.press(CTRL_C)
    assert reload.end(PATIENCE) == 130
    assert "the reload goes on" in reload.seen
    assert "Traceback" not in reload.seen
    (plane.here / "go on").touch()

    def reloaded() -> bool:
        row = plane.row()
        return (row["generation"], row["serving"], len(row["workers"])) == (2, 2, 2)

    wait_until(reloaded, 60.0)


def test_an_interrupt_says_what_was_not_begun(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = [Target(Definition(name)) for name in ("one", "two", "three")]
    monkeypatch.setattr("rrdispatch.control.selectors.resolve", lambda *_, **__: targets)

    def action(target: Target) -> str:
        if target.name == "two":
            raise KeyboardInterrupt
        return "done"

    with pytest.raises(KeyboardInterrupt):
        each(["all"], action)
    said = capsys.readouterr()
    assert said.out == "one: done\n"
    assert said.err == "interrupted: not begun: three\n"


def test_an_interrupt_takes_a_start_back_and_says_so(
    plane: Plane, terminals: list[Terminal]
) -> None:
    script = ("--name", "job", "-i", "1", "--wait-ready", "--no-listen", "--", "sleep", "1000")
    start = open_terminal(terminals, plane, "start", *script)
    start.until(r"job:0  .*waiting for ready", PATIENCE)
    start.press(CTRL_C)
    assert start.end(PATIENCE) == 130
    assert "job: the start is taken back" in start.seen
    assert plane.rows() == []


def test_an_interrupted_command_without_a_terminal_says_it_too(plane: Plane) -> None:
    plane.start()
    reload = plane.begin("reload", "web", "--probation", "300")
    assert reload.stderr is not None
    while "parked" not in reload.stderr.readline():
        assert reload.poll() is None
    reload.send_signal(signal.SIGINT)
    told = finish(reload)
    assert told.code == 130
    assert "interrupted: web: the reload goes on: rrdispatch show web\n" in told.err
    plane.ok("stop", "web", "--now")
