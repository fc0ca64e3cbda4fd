"""The way into the app's interpreter: its path, its names, its package, its descriptors."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import venv
from collections import Counter
from pathlib import Path

import pytest

from rrdispatch import _core
from rrdispatch._core.layout import Field
from tests.harness import census
from tests.harness.servers import wait_until

from .client import Client
from .conftest import APPS, Start


def test_the_apps_own_modules_are_found(start: Start) -> None:
    """``main`` is also the name of a module beside boot.py."""
    primary = start("main:Holder.serve").ready()
    with primary.connect().makefile() as stream:
        path = stream.read().split("\n")
    assert path[0] == str(APPS)
    assert not any(item.endswith("rrdispatch/serve") for item in path)


@pytest.mark.parametrize("flags", [("-I",), ("-S", "-E")])
def test_interpreter_flags(start: Start, flags: tuple[str, ...]) -> None:
    primary = start("main:Holder.serve", arguments=flags).ready()
    with primary.connect().makefile() as stream:
        assert stream.readline() == f"{APPS}\n"


def test_an_interpreter_without_our_packages(start: Start, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = str(tmp_path / "env" / "bin" / "python")
    found = subprocess.run(
        [python, "-c", "import importlib.util as u; print(u.find_spec('cffi'))"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert found.stdout == "None\n"
    primary = start("main:Holder.serve", python=python).ready()
    with primary.connect().makefile() as stream:
        assert stream.readline() == f"{APPS}\n"
    primary.stop()
    assert primary.wait() == 0
    assert primary.output()[1] == ""


def test_without_the_extension(start: Start) -> None:
    primary = start("web:app", environment={"RRDISPATCH_PURE": "1"}).ready()
    assert Client(primary.connect()).get("/").body == b"hello"
    assert primary.load(Field.RECEIVED) == 1


def test_another_version_of_the_package_is_not_taken(start: Start, tmp_path: Path) -> None:
    (tmp_path / "rrdispatch").mkdir()
    (tmp_path / "rrdispatch" / "__init__.py").write_text("raise RuntimeError('the wrong one')\n")
    environment = {"PYTHONPATH": str(tmp_path)}
    primary = start("main:Holder.serve", environment=environment).ready()
    with primary.connect().makefile() as stream:
        assert stream.readline() == f"{APPS}\n"


def test_a_place_that_is_not_one(tmp_path: Path) -> None:
    boot = Path(__file__).parents[2] / "rrdispatch" / "serve" / "boot.py"
    ran = subprocess.run(
        [sys.executable, str(boot)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert ran.returncode != 0
    assert "workers are started by rrdispatch" in ran.stderr


@pytest.mark.parametrize(
    ("target", "loop", "own"),
    [
        ("plain:http", "auto", {"eventfd": 2}),
        # wake-ups of the loop and of the stop
        ("web:app", "asyncio", {"eventpoll": 1, "stream": 4}),
        ("web:app", "uvloop", {}),
        ("web:wsgi", "auto", {"pipe": 6}),
    ],
)
def test_descriptors(start: Start, target: str, loop: str, own: dict[str, int]) -> None:
    """What was given, what its loop needs, and nothing else."""
    primary = start(target, loop=loop, binds=["inet", "unix"]).ready()
    for front in (0, 1):  # what is opened for the first connection is there after it
        with primary.connect(front) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.recv(1)
    primary.until(Field.CLOSED, 2)
    given = {int(text) for text in primary.given}

    def others() -> list[census.Fd]:
        found = census.fds(primary.process.pid)
        assert given < {fd.number for fd in found}
        return [fd for fd in found if fd.number > 2 and fd.number not in given]

    if not _core.NATIVE:
        own = {**own, "memfd": 1}  # Python's mmap keeps a duplicate of what it maps
    if loop == "uvloop":
        allowed = {"eventpoll", "eventfd", "pipe", "io_uring", "unix stream", "/dev/null"}
        assert {fd.kind for fd in others()} <= allowed | own.keys()
        return

    def kinds() -> Counter[str]:
        return Counter(fd.kind.removeprefix("unix ") for fd in others())

    # A connection counts as closed just before it is.
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: kinds() == own, 20.0)
    assert kinds() == own


def test_children_of_the_app_get_nothing(start: Start) -> None:
    primary = start("children:serve").ready()
    with primary.connect().makefile() as stream:
        told = stream.read().split("\n")
    assert told[0] == "0 1 2"
    names = set(told[1].split()) - {"RRDISPATCH_PURE"}
    assert names == {f"RRDISPATCH_{key}" for key in ("GENERATION", "NAME", "SLOT", "WORKERS")}
