"""What ``list`` may import, and how long it may take: it is typed all day, and scripts poll it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from rrdispatch.cli import group, quick, table
from rrdispatch.cli import list as list_
from rrdispatch.cli.errors import INTERRUPTED
from tests.test_light_imports import SUBPROCESS, cli, loaded

ALLOWED = {
    "rrdispatch", "rrdispatch.checks", "rrdispatch.cli", "rrdispatch.cli.errors",
    "rrdispatch.cli.group", "rrdispatch.cli.list", "rrdispatch.cli.listing",
    "rrdispatch.cli.table", "rrdispatch.control",
    "rrdispatch.control.ask", "rrdispatch.control.definitions", "rrdispatch.control.kept",
    "rrdispatch.control.protocol", "rrdispatch.control.rows", "rrdispatch.control.selectors",
    "rrdispatch.control.statedir", "rrdispatch.errors", "rrdispatch.options",
}  # fmt: skip


@pytest.mark.parametrize("command", ["list", "ls", "jlist", "stop", "delete"])
def test_what_it_imports(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RRDISPATCH_HOME", str(tmp_path / "home"))
    found = loaded(cli(command, *(["nope"] if command in ("stop", "delete") else [])))
    ours = {name for name in found if name.split(".")[0] == "rrdispatch"}
    more = {f"rrdispatch.cli.{command}", "rrdispatch.cli.each", "rrdispatch.control.ending"}
    assert ours - more <= ALLOWED
    heavy = {"asyncio", "psutil", "ssl", "cffi", "logging", "rich", "tomllib"}
    assert not found & (heavy | SUBPROCESS)


QUICK = ALLOWED - {"rrdispatch.cli.group", "rrdispatch.cli.list", "rrdispatch.options"}


@pytest.mark.parametrize("typed", [("list",), ("ps", "--workers"), ("jlist",)])
def test_the_plainest_forms_do_without_click(
    typed: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RRDISPATCH_HOME", str(tmp_path / "home"))
    found = loaded(cli(*typed).replace("cli.group", "cli.quick"))
    ours = {name for name in found if name.split(".")[0] == "rrdispatch"}
    assert "rrdispatch.cli.listing" in ours
    assert ours <= QUICK | {"rrdispatch.cli.quick"}
    assert not found & {"click", "shutil", "lzma", "uuid", "asyncio", "subprocess"}


def test_names_and_options_are_those_of_click() -> None:
    names = {alias for alias, name in group.ALIASES.items() if name == "list"}
    assert names | {"list", "jlist"} == quick.LIST
    assert {flag for option in list_.command.params for flag in option.opts} - {"selectors"} == (
        quick.FLAGS
    )
    assert quick.INTERRUPTED == INTERRUPTED


@pytest.mark.parametrize(
    "typed",
    [("show",), (), ("list", "--help"), ("list", "nope"), ("jlist", "web"), ("list", "--", "x")],
)
def test_what_is_not_plain_is_left_to_click(
    typed: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RRDISPATCH_HOME", str(tmp_path / "home"))
    assert quick.run(typed) is None


def test_completion_is_left_to_click() -> None:
    assert quick.run(["list"], {"_RRDISPATCH_COMPLETE": "bash_complete"}) is None


@pytest.mark.parametrize("width", ["60", "0", "x", "²"])
def test_the_width_that_is_said(width: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", width)
    assert table.width() == (60 if width == "60" else table.PIPED)


def test_it_starts_within_five_times_bare_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPU time, the least of several: what others do on the machine does not count."""
    monkeypatch.setenv("RRDISPATCH_HOME", str(tmp_path / "home"))
    bare = ours = 1000.0
    for turn in range(40):  # a busy machine's caches make both take longer, unevenly
        bare = min(bare, cpu_time("-c", "pass"))
        ours = min(ours, cpu_time("-m", "rrdispatch", "list"))
        if turn > 5 and ours <= 5 * bare:
            return
    pytest.fail(f"{ours} s are more than 5 x {bare} s")


def cpu_time(*arguments: str) -> float:
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, *arguments],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, used = os.wait4(pid, 0)
    assert status == 0
    return used.ru_utime + used.ru_stime
