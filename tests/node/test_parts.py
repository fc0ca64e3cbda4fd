"""The pure parts: emitter, wire, facts, the end of a script, a worker's command."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType

import pytest

from rrdispatch.errors import ConfigError
from rrdispatch.node import facts, setup, stay, wire
from rrdispatch.node.child import own_ports
from rrdispatch.node.emitter import Emitter
from rrdispatch.node.hub import ended
from rrdispatch.node.primary import ChildProcess, Pipes, signal_number

ROOT = Path(__file__).parents[2]


class Some(Emitter):
    EVENTS = frozenset(("one", "other"))


def test_handlers_are_called_in_order_and_taken_back() -> None:
    told: list[object] = []
    some = Some()
    first = some.on("one", lambda fact: told.append(("first", fact)))

    @some.once("one")
    def second(fact: object) -> None:
        told.append(("second", fact))

    assert some.emit("one", 1)
    assert some.emit("one", 2)
    some.off("one", first)
    assert not some.emit("one", 3)
    assert told == [("first", 1), ("second", 1), ("first", 2)]


def test_a_handler_may_change_the_handlers() -> None:
    some, told = Some(), []
    some.on("one", lambda: some.on("one", lambda: told.append("later")))
    some.emit("one")
    assert told == []
    some.emit("one")
    assert told == ["later"]


def test_a_wrong_event_is_named() -> None:
    with pytest.raises(ValueError, match=r"'onne': one of one, other"):
        Some().on("onne", print)
    with pytest.raises(TypeError):
        Some().on("one", 3)  # type: ignore[type-var]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_lines_in_any_pieces(size: int) -> None:
    messages = [1, "two\n\r\u2028", None, {"k": ["\x00", 1.5]}, "x" * 3000, [], ""]
    data = b"".join(wire.message(one) for one in messages) + wire.act("leave")
    lines = wire.Lines()
    found = [line for at in range(0, len(data), size) for line in lines.feed(data[at : at + size])]
    assert [wire.read(line) for line in found] == [*messages, {"act": "leave"}]
    assert [wire.is_ours(line) for line in found] == [False] * len(messages) + [True]


@pytest.mark.parametrize("junk", [b"", b"{}", b"[]", b"1", b'["m"]', b'["a",1]', b"[" * 100_000])
def test_what_is_no_line_is_refused(junk: bytes) -> None:
    with pytest.raises(ValueError, match="not a line"):
        wire.read(junk)


def test_an_outbox_never_waits_and_loses_nothing() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        box = wire.Outbox(ours)
        parts = [os.urandom(random.Random(i).randrange(1, 9000)) for i in range(500)]
        for part in parts:
            box.add(part)
        received = b""
        while not box.flush():
            assert box.size > 0
            received += theirs.recv(10_000)
        assert box.empty
        assert box.size == 0
        ours.close()
        while data := theirs.recv(1 << 20):
            received += data
    assert received == b"".join(parts)


def test_too_many_facts_are_held_back_until_there_are_few() -> None:
    flow: list[bool] = []
    taken: list[int] = []
    queue = facts.Facts(taken.append, flow.append)
    for number in range(facts.MANY + 2):
        queue.put(number)
    assert flow == [False]
    while not queue.empty:
        queue.wait()
    assert flow == [False, True]
    assert taken == list(range(facts.MANY + 2))


def frame_of(text: str) -> FrameType:
    """Of a script that ran, as it was left."""
    found: dict[str, FrameType] = {}
    code = compile(text, "script.py", "exec")
    try:
        exec(code, {"keep": lambda: found.update(frame=sys._getframe(1))})
    except (ValueError, SystemExit):
        pass
    return found["frame"]


@pytest.mark.parametrize(
    ("text", "came"),
    [
        ("keep()", True),
        ("keep()\nfor _ in range(3): pass\nx = 1", True),
        ("def f(): pass\nkeep()\nif f(): pass\nelse:\n    f()", True),
        ("keep()\nraise ValueError", False),
        ("keep()\nraise SystemExit(0)", False),
        ("import sys\nkeep()\nsys.exit()", False),
        ("keep()\ntry:\n    1\nfinally:\n    int('x')", False),
    ],
)
def test_the_end_of_a_script_is_told_from_an_exit(text: str, came: bool) -> None:
    assert stay.came_to_its_end(frame_of(text)) is came


def find(version: str) -> str | None:
    """A Python that runs: on PATH, or beside ours."""
    beside = Path(sys.base_prefix).parent.glob(f"{version}.*/bin/python")
    for python in filter(None, [shutil.which(f"python{version}"), *map(str, beside)]):
        if subprocess.run([python, "-c", ""], capture_output=True).returncode == 0:
            return python
    return None


@pytest.mark.parametrize("version", ["3.10", "3.12", "3.13"])
def test_so_in_other_pythons(version: str) -> None:
    python = find(version)
    if python is None:
        pytest.skip(f"there is no Python {version}")
    test = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from rrdispatch.node import stay\n"
        "def ended(text):\n"
        "    kept = []\n"
        "    try:\n"
        "        keep = lambda: kept.append(sys._getframe(1))\n"
        "        exec(compile(text, 's', 'exec'), {'keep': keep})\n"
        "    except (ValueError, SystemExit):\n"
        "        pass\n"
        "    return stay.came_to_its_end(kept[0])\n"
        "print([ended('keep()\\n' + t) for t in ('x = 1', 'if 1: pass', 'raise ValueError',\n"
        "       'import sys; sys.exit()', 'raise SystemExit')])\n"
    )
    command = [python, "-c", test, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout == "[True, True, False, False, False]\n", done.stderr


@pytest.mark.parametrize(
    ("typed", "flags"),
    [
        ("script.py -x", ""),
        ("-O script.py", "-O"),
        ("-X dev -W error -u script.py", "-X dev -W error -u"),
        ("-Xdev -Werror script.py -O", "-Xdev -Werror"),
        ("-O -m module -x", "-O"),
        ("-Im module", "-I"),
        ("-c pass", ""),
        ("", ""),
    ],
)
def test_options_of_the_interpreter(typed: str, flags: str) -> None:
    assert setup.interpreter_flags(["python", *typed.split()]) == flags.split()


def test_settings_are_checked() -> None:
    before = setup.Settings("a.py", ("x",))
    assert setup.changed(before, {"cwd": "/"}) == setup.Settings("a.py", ("x",), cwd="/")
    assert setup.changed(before, {"args": ["y"]}).args == ("y",)
    with pytest.raises(ConfigError, match="no option 'execc'"):
        setup.changed(before, {"execc": "b.py"})
    with pytest.raises(ConfigError, match="listens by itself"):
        setup.changed(before, {"bind": ":80"})
    with pytest.raises(ConfigError, match="no script"):
        setup.command(setup.Settings())


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("exit code 3", (3, None)),
        ("killed by SIGSEGV (core dumped)", (None, "SIGSEGV")),
        ("killed by SIGKILL (out of memory)", (None, "SIGKILL")),
        ("exit code unknown", (None, None)),
    ],
)
def test_code_and_signal(how: str, told: tuple[int | None, str | None]) -> None:
    assert ended(how) == told


def test_signals_by_name_and_number() -> None:
    assert [signal_number(one) for one in ("SIGTERM", "term", 9, 0)] == [15, 15, 9, 0]
    with pytest.raises(ValueError, match="'SIGNO' is no signal"):
        signal_number("SIGNO")


def test_facts_wake_who_waits() -> None:
    taken: list[int] = []
    queue = facts.Facts(taken.append, lambda _: None)
    threading.Timer(0.01, queue.put, [7]).start()
    assert queue.wait(60)
    assert taken == [7]
    assert not queue.wait(0.0)


def test_files_that_are_none_leave_nothing_open() -> None:
    class Asked:
        """Nothing is asked for."""

    before = set(os.listdir("/proc/self/fd"))
    process = ChildProcess(Asked(), 1)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        Pipes(process, ["ignore", "pipe", 3.5])
    assert process.stdout is not None
    process.stdout.close()
    assert set(os.listdir("/proc/self/fd")) <= before


def test_where_we_listen_is_asked_without_leaving_anything_open() -> None:
    before = set(os.listdir("/proc/self/fd"))
    with open(os.devnull, "rb"), socket.create_server(("127.0.0.1", 0)) as listener:
        assert listener.getsockname()[1] in own_ports()
    assert set(os.listdir("/proc/self/fd")) <= before
