"""Promise 9: one clear message with what to do, an exit code, and nothing left running."""

from __future__ import annotations

import shutil
import socket
import venv
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.acceptance.conftest import Show
from tests.harness.servers import APPS, Server, rrdispatch_command


@dataclass(frozen=True)
class Case:
    """Arguments that cannot work, the exit code, and what the message must say."""

    name: str
    arguments: tuple[str, ...]
    code: int
    says: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict, hash=False)
    hint: bool = True


BIND = ("--bind", "127.0.0.1:0")
CASES = [
    Case("port in use", ("probe:asgi", "--bind", "127.0.0.1:{port}"), 3, ("in use", "{port}")),
    Case("path in use", ("probe:asgi", "--bind", "unix:{socket}"), 3,
         ("another process", "{socket}")),
    Case("no such directory", ("probe:asgi", "--bind", "unix:/no/such/s.sock"), 3, ("/no/such",)),
    # sysfs lets nobody make a file, root neither.
    Case("no permission", ("probe:asgi", "--bind", "unix:/sys/s.sock"), 3, ("/sys/s.sock", "ermi")),
    Case("not our address", ("probe:asgi", "--bind", "192.0.2.1:8000"), 3, ("192.0.2.1",)),
    Case("bad address", ("probe:asgi", "--bind", "127.0.0.1:http"), 2, ("127.0.0.1:http",)),
    Case("port too big", ("probe:asgi", "--bind", "127.0.0.1:70000"), 2, ("70000",)),
    Case("no such module", ("prob:asgi", *BIND), 4, ("prob",)),
    Case("no such attribute", ("probe:asgy", *BIND), 4, ("asgy", "probe")),
    Case("not callable", ("notcallable:app", *BIND), 4, ("app", "int"),
         {"notcallable.py": "app = 42\n"}),
    Case("no attribute said", ("probe", *BIND), 4, ("did you mean probe:app?", "MODULE:ATTRIBUTE")),
    Case("raises at import", ("boom:app", *BIND), 4, ("no database", "Traceback"),
         {"boom.py": "raise RuntimeError('no database')\n"}),
    Case("syntax error", ("half:app", *BIND), 4, ("half.py", "SyntaxError"),
         {"half.py": "def app(:\n"}),
    Case("import inside fails", ("needs:app", *BIND), 4, ("nosuchlibrary",),
         {"needs.py": "import nosuchlibrary\n"}),
    Case("raises at start", ("start:app", *BIND), 5, ("no cache",), {"start.py": """
async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no cache"})
"""}),
    Case("exits at import", ("leaves:app", *BIND), 4, ("leaves",),
         {"leaves.py": "raise SystemExit(0)\n"}),
    Case("never ready", ("waits:app", *BIND, "--ready-timeout", "1s"), 5, ("ready",),
         {"waits.py": "import threading\nthreading.Event().wait()\n"}),
    Case("no config file", ("--config", "nosuch.toml"), 2, ("nosuch.toml",)),
    Case("half config file", ("--config", "half.toml"), 2, ("half.toml",),
         {"half.toml": 'target = "pro'}),
    Case("unknown key", ("--config", "bad.toml"), 2, ("polcy", "policy"),
         {"bad.toml": 'target = "probe:asgi"\npolcy = "strict"\n'}),
    Case("wrong type", ("--config", "bad.toml"), 2, ("backlog",),
         {"bad.toml": 'target = "probe:asgi"\nbacklog = "many"\n'}),
    Case("wrong choice", ("probe:asgi", "--policy", "stict"), 2, ("stict", "strict")),
    Case("unknown option", ("probe:asgi", "--instanses", "2"), 2, ("--instanses", "--instances")),
    Case("instances abc", ("probe:asgi", "-i", "abc"), 2, ("abc",)),
    Case("instances 0.5", ("probe:asgi", "-i", "0.5"), 2, ("0.5",)),
    Case("instances empty", ("probe:asgi", "-i", ""), 2, ("instances",)),
    Case("instances 0", ("probe:asgi", "-i", "0"), 2, ("0",)),
    Case("no target", (), 2, ("TARGET",)),
    Case("no such folder", ("probe:asgi", "--cwd", "/no/such/folder"), 2, ("/no/such/folder",)),
    Case("no such interpreter",
         ("probe:asgi", *BIND, "--python", "/no/python"), 2, ("/no/python",)),
    Case("no uvicorn", ("probe:asgi", *BIND, "--python", "{bare}"), 4,
         ("uvicorn", "rrdispatch[asgi]")),
    Case("no waitress", ("probe:wsgi", *BIND, "--python", "{bare}"), 4,
         ("waitress", "rrdispatch[wsgi]")),
    Case("no certificate",
         ("probe:asgi", *BIND, "--ssl-certfile", "/no/cert.pem"), 2, ("/no/cert.pem",)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_one_clear_message(case: Case, tmp_path: Path, show: Show) -> None:
    for path in (APPS / "probe.py", APPS / "journal.py", APPS / "version"):
        shutil.copy(path, tmp_path)
    for name, text in case.files.items():
        (tmp_path / name).write_text(text)
    with ExitStack() as stack:
        places = _places(case, tmp_path, stack)
        arguments = [each.format(**places) for each in case.arguments]
        server = Server(rrdispatch_command("run", *arguments), cwd=tmp_path)
        stack.callback(server.close)
        code = server.wait(40.0)
        server.assert_nothing_left()
    text = server.output.text("stderr")
    show("9", case.name, f"exit {code}: {_told(text)}")
    assert code == case.code, text
    _assert_one_message(text)
    for word in case.says:
        assert word.format(**places) in text, text


def _places(case: Case, directory: Path, stack: ExitStack) -> dict[str, str]:
    """What the arguments of a case may name: a taken port, a taken path, a bare interpreter."""
    taken = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    path = str(directory / "taken.sock")
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(path)
    listener.listen()
    bare = directory / "bare"
    if "{bare}" in case.arguments:
        venv.create(bare, symlinks=True)
    return {
        "port": str(taken.getsockname()[1]),
        "socket": path,
        "bare": str(bare / "bin" / "python"),
    }


def _told(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith(("error:", "hint:"))]
    return "  ".join(lines)


def _assert_one_message(text: str) -> None:
    """One error, one hint, at most one traceback and that the app's, not ours."""
    lines = text.splitlines()
    assert len([line for line in lines if line.startswith("error: ")]) == 1, text
    assert len([line for line in lines if line.startswith("hint: ")]) == 1, text
    assert text.count("Traceback (most recent call last)") <= 1, text
    assert "rrdispatch/" not in text.partition("Traceback")[2], text
