"""Cgroups of a test's own, and a client for ``apps/faulty.py``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.service import LIMIT, Service
from tests.harness.servers import wait_until

APPS = Path(__file__).with_name("apps")
CGROUPS = Path("/sys/fs/cgroup")


def skip(why: str) -> None:
    """Loudly: a fault that was not tried is worth a line."""
    print(f"NOT RUN: {why}", file=sys.__stderr__)
    pytest.skip(why)


class Group:
    """A cgroup below the one that this process is in, of version 1 or 2."""

    def __init__(self, parent: Path) -> None:
        self.parent = parent
        self.path = parent / f"rrdispatch-test-{uuid.uuid4().hex[:8]}"
        self.path.mkdir()

    def write(self, name: str, value: object) -> None:
        (self.path / name).write_text(str(value))

    def read(self, name: str) -> str:
        return (self.path / name).read_text()

    def has(self, name: str) -> bool:
        return (self.path / name).exists()

    def add(self, pid: int) -> None:
        self.write("cgroup.procs", pid)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This process is in it, so what it starts begins there."""
        self.add(os.getpid())
        try:
            yield
        finally:
            (self.parent / "cgroup.procs").write_text(str(os.getpid()))

    def close(self) -> None:
        """Whoever is left goes back to where it came from: it is ended by who started it."""
        for pid in self.read("cgroup.procs").split():
            with contextlib.suppress(OSError):
                (self.parent / "cgroup.procs").write_text(pid)
        wait_until(self._removed, 30.0, f"nobody is left in {self.path}")

    def _removed(self) -> bool:
        """Killed ones leave a group some time after their end."""
        with contextlib.suppress(OSError):
            self.path.rmdir()
        return not self.path.exists()


@contextlib.contextmanager
def cgroup(controller: str, name: str) -> Iterator[Group]:
    """A new group that has the file ``name``; skips the test where none may be made."""
    group = None
    for parent in parents(controller):
        try:
            found = Group(parent)
        except OSError:
            continue
        if found.has(name):
            group = found
            break
        found.close()
    if group is None:
        skip(f"no cgroup with {name} may be made here")
        raise AssertionError
    try:
        yield group
    finally:
        group.close()


def parents(controller: str) -> Iterator[Path]:
    """Where this process is: in the controller's own hierarchy, or in the unified one."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        tops = []
        if controller in controllers.split(","):
            tops = [CGROUPS / controller]
        elif number == "0":
            tops = [CGROUPS, CGROUPS / "unified"]
        for top in tops:
            folder = top / path.strip("/")
            if (folder / "cgroup.procs").exists():
                yield folder


async def ask(service: Service, said: str = "") -> tuple[int, int, str]:
    """(slot, pid, answer) of who serves a new connection."""
    host, _, port = service.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(f"{said}\n".encode())
        slot, pid, done = (await asyncio.wait_for(reader.read(), LIMIT)).decode().split()
    finally:
        writer.close()
    return int(slot), int(pid), done
