"""A user with a home of their own: types commands, sees what they answer, leaves no process."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrdispatch.control import rows, selectors
from tests.harness import processes
from tests.harness.servers import MARK, ROOT, wait_until

PATIENCE = 120.0  # a bound for a busy machine, no measure
ANSWER = 60.0  # the same, for the primaries that a look asks

APP = """
import json, os, sys

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    told = {"pid": os.getpid(), "cwd": os.getcwd(), "python": sys.executable, "version": VERSION,
            "colour": os.environ.get("COLOUR"), "sid": os.getsid(0)}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})

VERSION = 1
"""


@dataclass
class Told:
    """What a command said."""

    code: int
    out: str
    err: str


class Plane:
    """One home; ``here`` is the folder that commands are typed in."""

    def __init__(self, folder: Path) -> None:
        self.here = folder / "project"
        self.home = folder / "home"
        self.here.mkdir()
        self.mark = uuid.uuid4().hex
        (self.here / "shop.py").write_text(APP)

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        gone = ("VIRTUAL_ENV", "XDG_STATE_HOME", "COLUMNS", "NO_COLOR")
        ours = {key: value for key, value in os.environ.items() if key not in gone}
        ours = {key: value for key, value in ours.items() if not key.startswith("RRDISPATCH_")}
        told = {MARK: self.mark, "PYTHONPATH": str(ROOT), "HOME": str(self.home.parent)}
        return {**ours, **told, "RRDISPATCH_HOME": str(self.home), **(env or {})}

    def begin(
        self, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.Popen[str]:
        """A command that is not waited for."""
        return subprocess.Popen(
            [sys.executable, "-m", "rrdispatch", *arguments],
            cwd=cwd or self.here, env=self.environment(env), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def type(
        self, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Told:
        """A command to its end. Its pipes must end with it: whoever stays behind has neither."""
        return finish(self.begin(*arguments, env=env, cwd=cwd))

    def ok(self, *arguments: str, **more: Any) -> str:
        """Of a command that must succeed: its stdout."""
        told = self.type(*arguments, **more)
        assert told.code == 0, told
        return told.out

    def start(self, *arguments: str, name: str = "web", **more: Any) -> dict[str, Any]:
        """An app of two workers, and its row."""
        common = ("--name", name, "-i", "2", "-b", "127.0.0.1:0", "--no-access-log")
        self.ok("start", *(arguments or ("shop:app",)), *common, **more)
        return self.row(name)

    def rows(self, answer: float = ANSWER) -> list[dict[str, Any]]:
        """What ``list --json`` prints, without a start of Python for each look; and who has no core
        for some seconds is not taken for one that does not answer.
        """
        before, within = os.environ.get("RRDISPATCH_HOME"), rows.ANSWER
        os.environ["RRDISPATCH_HOME"] = str(self.home)
        rows.ANSWER = answer
        try:
            found: list[dict[str, Any]] = json.loads(json.dumps(rows.collect(selectors.known())))
        finally:
            rows.ANSWER = within
            if before is None:
                del os.environ["RRDISPATCH_HOME"]
            else:  # at no moment without: other threads look, too
                os.environ["RRDISPATCH_HOME"] = before
        return found

    def row(self, name: str = "web", answer: float = ANSWER) -> dict[str, Any]:
        return next(row for row in self.rows(answer) if row["name"] == name)

    def living(self) -> list[processes.Process]:
        """All processes that came from what was typed: by environment, or (dispatchers and loggers
        have none of it) by an open file of this home.
        """
        found = set(processes.marked(MARK, self.mark))
        others = {entry.name for entry in processes.PROC.iterdir()} - {str(os.getpid())}
        for entry in map(processes.PROC.joinpath, others):
            if entry.name.isdigit() and self._held(entry):
                found.add(processes.process(int(entry.name)) or processes.Process(0, 0))
        return sorted(each for each in found if each.pid and each.alive())

    def _held(self, process: Path) -> list[str]:
        """Files of this home that it has open."""
        try:
            targets = [_target(fd) for fd in (process / "fd").iterdir()]
        except OSError:
            return []  # gone, or somebody else's
        return [target for target in targets if target.startswith(f"{self.home}/")]

    def close(self) -> None:
        """Ends them all, and the heirs that come meanwhile; not us, who may have left one open."""
        wait_until(self._end, 60.0, "everything of this home has ended")
        assert self._held(processes.PROC / "self") == [], "the test itself has them open"

    def _end(self) -> bool:
        living = self.living()
        for each in living:
            with contextlib.suppress(ProcessLookupError):
                processes.kill(each.pid)
        return not living


def _target(fd: Path) -> str:
    try:
        return os.readlink(fd)
    except OSError:
        return ""  # closed meanwhile, which says nothing of the others


def free_address() -> tuple[str, int]:
    """Where nobody listens, nor will: all of 127/8 is this machine's, and nobody else has this part
    of it. A free port of 127.0.0.1 may be another's by the time that it is used.
    """
    host = ".".join(["127", *(str(1 + secrets.randbelow(254)) for _ in range(3))])
    with socket.create_server((host, 0)) as probe:
        return host, int(probe.getsockname()[1])


def finish(command: subprocess.Popen[str]) -> Told:
    out, err = command.communicate(timeout=PATIENCE)
    return Told(command.returncode, out, err)


def get(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the app answers at its first address."""
    with urllib.request.urlopen(f"http://{row['listeners'][0]}/", timeout=30) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found
