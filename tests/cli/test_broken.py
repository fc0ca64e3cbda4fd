"""``start`` of what is broken: an exit code, the reason on screen, and nothing is left of it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from rrdispatch.control import definitions, detach
from rrdispatch.errors import StartError
from tests.cli.plane import APP, Plane, free_address
from tests.harness import processes

LIMIT = 100  # seconds: of what sleeps for 1000

AT_START = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
"""
SERVE_RAISES = "def serve(listener):\n    raise RuntimeError('no licence')\n"
NEVER = "import time\nprint('waiting for Godot', flush=True)\ntime.sleep(1000)\n"
TAKES = """
import os, socket
listener = socket.create_server(("127.0.0.1", int(os.environ["TAKEN"])))
listener.accept()
"""
APP_TARGET = ("broken:app", "-b", "{free}", "-b", "unix:{folder}/s.sock")
SCRIPT = ("broken.py",)


@dataclass(frozen=True)
class Broken:
    """A file ``broken.py``, how it is started, the exit code, what must be said."""

    text: str
    arguments: tuple[str, ...]
    code: int
    said: str


CASES = {
    "a missing package": Broken("import nosuchthing", APP_TARGET, 4, "No module named 'nosuchth"),
    "a syntax error": Broken("def app(:", APP_TARGET, 4, "SyntaxError"),
    "no such attribute": Broken("apps = 1", APP_TARGET, 4, "'app'"),
    "raises at import": Broken("raise RuntimeError('nope')", APP_TARGET, 4, "RuntimeError: nope"),
    "raises at start": Broken(AT_START, APP_TARGET, 5, "no database"),
    "serve raises": Broken(SERVE_RAISES, ("broken:serve", "-b", "{free}"), 5, "no licence"),
    "exits at boot": Broken("import os; os._exit(3)", APP_TARGET, 5, "exit code 3"),
    "leaves at boot": Broken("import sys; sys.exit('no config')", APP_TARGET, 4, "no config"),
    "killed at boot": Broken("import os; os.kill(os.getpid(), 9)", APP_TARGET, 5, "SIGKILL"),
    "a port in use": Broken(APP, ("broken:app", "-b", "127.0.0.1:{taken}"), 3, "127.0.0.1:{taken}"),
    "never ready": Broken(NEVER, (*APP_TARGET, "--ready-timeout", "3s"), 5, "not ready within 3 s"),
    "a script that never listens": Broken(
        NEVER, (*SCRIPT, "--ready-timeout", "8s"), 5, "waiting for Godot"
    ),
    "a script that ends": Broken("print('bye')", SCRIPT, 5, "bye"),
    "a script that fails": Broken("raise RuntimeError('nope')", SCRIPT, 5, "RuntimeError: nope"),
    "a script whose port is in use": Broken(TAKES, ("broken.py",), 5, "Address already in use"),
    "no such program": Broken("", ("--name", "broken", "--", "/nosuch/program"), 4, "/nosuch"),
}


@dataclass(frozen=True)
class Ports:
    free: str
    taken: int


@pytest.fixture
def ports() -> Iterator[Ports]:
    """One that somebody listens on, and one that nobody does."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield Ports(":".join(map(str, free_address())), taken.getsockname()[1])


@pytest.mark.parametrize("heir", ["--heir", "--no-heir"])
@pytest.mark.parametrize("what", CASES)
def test_it_is_told_and_nothing_is_left(plane: Plane, ports: Ports, what: str, heir: str) -> None:
    case, facts = CASES[what], {"folder": plane.here, **vars(ports)}
    (plane.here / "broken.py").write_text(case.text)
    arguments = [argument.format(**facts) for argument in case.arguments]
    limits = ("-i", "2", heir, "--max-restarts", "1", "--respawn-delay", "10ms")
    began = time.monotonic()
    told = plane.type("start", *limits, *arguments, env={"TAKEN": str(ports.taken)})
    assert time.monotonic() - began < LIMIT
    assert told.code == case.code, told
    assert case.said.format(**facts) in told.err
    assert "\nerror: " in f"\n{told.err}"
    assert "rrdispatch/cli" not in told.err  # no traceback of ours
    nothing_left(plane, ports)


def nothing_left(plane: Plane, ports: Ports) -> None:
    assert processes.wait_gone(plane.living(), 60.0) == []
    assert {path.name for path in plane.home.glob("*")} <= {"logs", ".ids"}
    assert not (plane.here / "s.sock").exists()
    with socket.socket() as again:
        host, _, port = ports.free.rpartition(":")
        again.bind((host, int(port)))
    assert plane.rows() == []


@pytest.mark.parametrize("how", ["raise SystemExit('as it began')", "def main(:"])
def test_a_primary_that_dies_before_it_has_a_name(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("RRDISPATCH_HOME", str(plane.home))
    monkeypatch.setattr(detach, "_RUN", how)
    made = definitions.Definition("web", cwd=str(plane.here), environ=plane.environment())
    with pytest.raises(StartError, match="ended without a word") as caught:
        detach.start(made, 30.0, lambda _: None)
    assert "as it began" in caught.value.output or "SyntaxError" in caught.value.output
    assert not (plane.home / "web").exists()


def test_a_start_that_is_mended_is_the_first_one(plane: Plane) -> None:
    """Nothing of the failure is in its way: name, id, port."""
    (plane.here / "broken.py").write_text("raise RuntimeError('nope')")
    host, port = free_address()
    command = ("start", "broken:app", "-b", f"{host}:{port}", "-i", "1")
    assert plane.type(*command).code == 4
    (plane.here / "broken.py").write_text(APP)
    assert plane.ok(*command).startswith(f"broken: started, id 0: 1 worker on {host}:")


@pytest.mark.parametrize("dispatcher", ["c", "python"])
def test_a_port_of_another_app_names_who_can_be_stopped(plane: Plane, dispatcher: str) -> None:
    """Its dispatcher holds the port, too; a dispatcher that somebody kills is replaced."""
    (plane.here / "broken.py").write_text(APP)
    command = ("start", "broken:app", "-i", "1", "-b")
    plane.ok(*command, "127.0.0.1:0", "--name", "first", "--dispatcher", dispatcher)
    (first,) = plane.rows()
    told = plane.type(*command, first["listeners"][0], "--name", "second")
    assert told.code == 3
    assert f"in use by rrdispatch (pid {first['primary_pid']}): the app first" in told.err
    assert "hint: rrdispatch stop first, or" in told.err


def test_a_restart_onto_broken_code_does_not_say_that_somebody_serves(plane: Plane) -> None:
    plane.ok("start", "shop:app", "--name", "web", "-i", "1", "-b", "127.0.0.1:0")
    (plane.here / "shop.py").write_text("raise RuntimeError('nope')")
    told = plane.type("restart", "web")
    assert told.code == 6, told
    assert "RuntimeError: nope" in told.err
    assert "hint: rrdispatch list web: who serves now; mend the app" in told.err
    (plane.here / "shop.py").write_text(APP)
    plane.ok("restart", "web")
    assert plane.row()["status"] == "online"
