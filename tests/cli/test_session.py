"""Every line of rrdispatch that README and docs/commands.md show, typed in a terminal as it stands
there, with the exit codes that they promise; and no command is without a line.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from dataclasses import dataclass

import pytest

from rrdispatch.cli.errors import INTERRUPTED
from rrdispatch.cli.group import ALIASES, COMMANDS
from tests.cli.plane import APP, PATIENCE, Plane
from tests.cli.terminal import CTRL_C, Terminal
from tests.harness import processes
from tests.harness.ports import kept_port
from tests.harness.servers import ROOT

SAID = {
    "start": r"web: started, id 0: \d+ workers? on 127\.0\.0\.1:\d+",
    "list": r"│\s+0 │ web",
    "logs": r"web\.\d out \| hello from the app",
    "reload": r"web: reloaded in [\d.]+ s, generation 2",
    "scale": r"web: \d+ workers",
    "stop": r"web: stopped",
    "delete": r"web: deleted",
    "run": r": ready after [\d.]+ s",
}
GOES_ON = ("run", "logs")  # until Ctrl-C, if nothing else is said
HELLO = "print('hello from the app', flush=True)\n"
FACTORY = f"{APP}\ndef create_app():\n    return app\n"
SCRIPT = """
from http.server import SimpleHTTPRequestHandler as Handler, ThreadingHTTPServer as Server
Server(("127.0.0.1", {port}), Handler).serve_forever()
"""
NODE = "require('http').createServer((_, to) => to.end('hello')).listen({port}, '127.0.0.1')"


@dataclass(frozen=True)
class Typed:
    """One line, and how it ends."""

    words: tuple[str, ...]
    code: int

    @property
    def name(self) -> str:
        return ALIASES.get(self.words[0], self.words[0])

    @property
    def goes_on(self) -> bool:
        return self.name in GOES_ON and "--no-follow" not in self.words


def lines(text: str) -> list[Typed]:
    """Of the blocks of a page. A comment may promise an exit code."""
    found = []
    for line, comment in re.findall(r"^    rrdispatch (.+?)(?:  +(.*))?$", text, re.MULTILINE):
        code = re.search(r"exit code (\d+)", comment)
        words = tuple(shlex.split(line))
        follows = words[0] == "logs" and "--no-follow" not in words
        found.append(Typed(words, int(code[1]) if code else INTERRUPTED if follows else 0))
    return found


def pages() -> dict[str, list[Typed]]:
    """What is typed in one go: each in a home of its own."""
    readme = (ROOT / "README.md").read_text().partition("\n## Use\n")[2].partition("\n## ")[0]
    commands = (ROOT / "docs" / "commands.md").read_text()
    return {
        "README": lines(readme),
        "commands": lines(commands.partition("\n## ")[0]),
        "each": lines(commands.partition("\n## A session\n")[2].partition("\n## ")[0]),
    }


@pytest.fixture
def project(plane: Plane) -> Plane:
    """A folder in which all those lines mean something."""
    files = {
        "app.py": HELLO + APP,
        "shop/main.py": FACTORY,
        "server.py": SCRIPT.format(port=kept_port()),
        "server.js": NODE.format(port=kept_port()),
    }
    (plane.here / "shop.py").unlink()
    for name, text in files.items():
        (plane.here / name).parent.mkdir(exist_ok=True)
        (plane.here / name).write_text(text)
    return plane


def elsewhere(word: str, plane: Plane) -> str:
    """Addresses that a test may have."""
    word = re.sub(r"^0\.0\.0\.0:8000$", "127.0.0.1:0", word)
    return word.replace("unix:/run/", f"unix:{plane.here}/")


def typed(plane: Plane, line: Typed) -> tuple[int, str]:
    """Its exit code, and what was on the screen."""
    words = [elsewhere(word, plane) for word in line.words]
    # PORT is where an app listens, and nothing to a program that does not read it.
    env = plane.environment({"PORT": "0", "NO_COLOR": "1"})
    terminal = Terminal([sys.executable, "-m", "rrdispatch", *words], plane.here, env)
    try:
        if line.goes_on:
            terminal.until(SAID[line.name], PATIENCE)
            terminal.press(CTRL_C)
        return terminal.end(PATIENCE), terminal.seen
    finally:
        terminal.close()


@pytest.mark.parametrize("page", ["README", "commands", "each"])
def test_every_line_of_it(project: Plane, page: str) -> None:
    for line in pages()[page]:
        if "node" in line.words and shutil.which("node") is None:
            continue
        code, seen = typed(project, line)
        assert code == line.code, (line, seen)
        assert "Traceback" not in seen, (line, seen)
        assert ("error: " in seen) == (code not in (0, INTERRUPTED)), (line, seen)
        if page != "each" and line.name != "cpus":
            assert re.search(SAID[line.name], seen), (line, seen)
    assert processes.wait_gone(project.living(), 30.0) == []
    assert project.rows() == []


def test_no_command_is_without_a_line() -> None:
    shown = {line.name for found in pages().values() for line in found}
    missing = sorted(set(COMMANDS) - shown)
    assert not missing, f"docs/commands.md, A session: no line for {', '.join(missing)}"
    assert shown <= set(COMMANDS)
