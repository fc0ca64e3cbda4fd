"""The ledger's journal: whole whoever appends to it at once, and wherever a writer is killed."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import socket
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rrdispatch import _core, ledger
from rrdispatch._core.layout import Kind, LedgerEvent, LedgerRole, Message

NAMES = ["pure", "native"] if _core.NATIVE else ["pure"]
ROOT = Path(__file__).parents[2]

# Appends entries that can be checked: cookie = pid << 32 | number, detail = its low bits.
WRITER = """
import importlib, os, sys
sys.path.insert(0, sys.argv[1])
core = importlib.import_module("rrdispatch._core." + sys.argv[2])
core.ledger_open(sys.argv[3], 2, 7, 9)
print("open", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[4])):
    core.ledger_note(11, os.getpid() << 32 | number, number & 0xFFFF)
print("done", flush=True)
"""


@pytest.fixture(params=NAMES)
def core(request: pytest.FixtureRequest) -> Iterator[Any]:
    """One after the other; what it opened is closed."""
    module = importlib.import_module(f"rrdispatch._core.{request.param}")
    yield module
    module.ledger_close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    made = str(tmp_path / "ledger")
    ledger.create(made, 400_000)
    return made


Start = Callable[[str, str, int], "Writer"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Writers: module, path, how many entries. None of them outlives its test."""
    made: list[Writer] = []

    def one_more(name: str, path: str, count: int) -> Writer:
        made.append(Writer(name, path, count))
        return made[-1]

    yield one_more
    for writer in made:
        writer.process.kill()
        writer.end()


class Writer:
    """A process that appends when it is told to."""

    def __init__(self, name: str, path: str, count: int) -> None:
        command = [sys.executable, "-c", WRITER, str(ROOT), name, path, str(count)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.read("open")

    def read(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == word

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def end(self) -> int:
        """Wait for it; its pid."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.communicate(timeout=60)
        return self.process.pid


def numbers(path: str) -> dict[int, list[int]]:
    """By writer, in the order of the journal; every entry must be whole."""
    found: dict[int, list[int]] = defaultdict(list)
    for entry in ledger.read(path).entries:
        if entry.event == LedgerEvent.OPENED:
            continue
        assert entry.event == LedgerEvent.FIRST
        assert entry.cookie >> 32 == entry.pid
        number = entry.cookie & 0xFFFFFFFF
        assert (entry.slot, entry.generation, entry.detail) == (7, 9, number & 0xFFFF)
        assert entry.ns > 0
        found[entry.pid].append(number)
    return found


def test_what_is_noted_is_read(core: Any, path: str):
    core.ledger_open(path, LedgerRole.WORKER, 3, 2)
    before = _core.now_ns()
    core.ledger_note(LedgerEvent.DONE, 1 << 63, 5)
    opened, done = ledger.read(path).entries
    assert (opened.event, opened.detail) == (LedgerEvent.OPENED, LedgerRole.WORKER)
    assert done[0] == 1 << 63
    assert done[2:] == (0, os.getpid(), 2, 3, 5, LedgerEvent.DONE)
    assert before <= done.ns <= _core.now_ns()


def test_four_processes_append_at_once(start: Start, path: str):
    """The C and its twin into one file, as a Python dispatcher and workers with the extension."""
    plan = [(NAMES[number % len(NAMES)], 50_000 if number % 2 else 3_000) for number in range(4)]
    writers = [start(name, path, count) for name, count in plan]
    for writer in writers:
        writer.begin()
    expected = {
        writer.end(): list(range(count)) for writer, (_, count) in zip(writers, plan, strict=True)
    }
    assert numbers(path) == expected
    assert ledger.read(path).unsaid == 0


@pytest.mark.parametrize("name", NAMES)
def test_killed_while_they_append(name: str, start: Start, tmp_path: Path):
    """Each has left all that it had noted, but for the one at which it was."""
    for turn in range(5):
        path = str(tmp_path / f"ledger{turn}")
        ledger.create(path, 1_000_000)
        writers = [start(name, path, 900_000) for _ in range(2)]
        for writer in writers:
            writer.begin()
        pids = {writer.process.pid for writer in writers}
        while pids - numbers(path).keys():  # until both are at work
            continue
        for writer in writers:
            writer.process.send_signal(signal.SIGKILL)
            writer.end()
        book = ledger.read(path)
        assert book.unsaid <= 2
        if not book.dropped:
            for counted in numbers(path).values():
                assert counted == list(range(len(counted)))


@pytest.mark.parametrize("name", NAMES)
def test_full(name: str, start: Start, tmp_path: Path):
    path = str(tmp_path / "small")
    ledger.create(path, 100)
    writers = [start(name, path, 90) for _ in range(4)]
    for writer in writers:
        writer.begin()
    for writer in writers:
        writer.end()
        assert writer.process.returncode == 0
    book = ledger.read(path)
    assert 100 <= len(book.entries) <= 104  # those without the C may be off by a writer each
    assert book.dropped == (364 - 100 if name == "native" else 1)
    assert not book.unsaid


def test_it_can_be_read_while_it_grows(start: Start, path: str):
    writer = start(NAMES[-1], path, 50_000)
    writer.begin()
    lengths = []
    while writer.process.poll() is None and len(lengths) < 20:
        lengths.append(sum(map(len, numbers(path).values())))
    writer.end()
    assert lengths == sorted(lengths)
    assert sum(map(len, numbers(path).values())) == 50_000


def test_no_ledger(core: Any, tmp_path: Path):
    wrong = tmp_path / "wrong"
    with pytest.raises(FileNotFoundError):
        core.ledger_open(str(wrong), LedgerRole.WORKER)
    for text in (b"", b"x" * 10_000, ledger.LEDGER_HEAD.pack(0x474C5252, 1, 1 << 60, 0)):
        wrong.write_bytes(text.ljust(len(text) and 5000, b"\0"))
        assert refused(core, str(wrong)) == errno.EINVAL
    core.ledger_note(LedgerEvent.DONE, 1)  # none is open: nothing


def test_one_per_process(core: Any, path: str):
    core.ledger_open(path, LedgerRole.WORKER)
    assert refused(core, path) == errno.EBUSY


def test_the_cookie_survives_passing(core: Any):
    for ends in (tcp_pair(), socket.socketpair()):
        sending, receiving = core.channel_pair()
        cookie = core.ledger_cookie(ends[0].fileno())
        assert cookie > 0
        assert cookie != core.ledger_cookie(ends[1].fileno())
        core.send(sending, Message().pack(), [ends[0].fileno()])
        (fd,) = core.take(receiving).fds
        assert core.ledger_cookie(fd) == cookie
        for end in ends:
            end.close()
        for number in (fd, sending, receiving):
            os.close(number)


def test_what_is_no_socket_has_no_cookie(core: Any):
    before = set(os.listdir("/proc/self/fd"))
    with open("/dev/null", "rb") as file:
        assert core.ledger_cookie(file.fileno()) == 0
    assert set(os.listdir("/proc/self/fd")) <= before
    assert core.ledger_cookie(1 << 20) == 0


def test_taking_is_noted_around_the_take(core: Any, path: str):
    sending, receiving = core.channel_pair()
    pairs = [socket.socketpair() for _ in range(3)]
    cookies = [core.ledger_cookie(left.fileno()) for left, _ in pairs]
    core.ledger_open(path, LedgerRole.WORKER, 1, 1)
    core.send(sending, Message(count=2).pack(), [left.fileno() for left, _ in pairs[:2]])
    core.send(sending, Message(kind=Kind.PROBE).pack(), [pairs[2][1].fileno()])
    core.send(sending, Message().pack(), [pairs[2][0].fileno()])
    taken = [fd for _ in range(2) for fd in core.take(receiving).fds]
    with pytest.raises(BlockingIOError):
        core.take(receiving)  # an empty queue is no entry
    told = [(one.event, one.cookie, one.detail) for one in ledger.read(path).entries[1:]]
    assert told == [
        (LedgerEvent.TAKING, 0, 2),
        (LedgerEvent.TAKEN, cookies[0], 0),
        (LedgerEvent.TAKEN, cookies[1], 1),
        (LedgerEvent.TAKING, 0, 1),
        (LedgerEvent.TOOK_NOTHING, 0, 0),
        (LedgerEvent.TAKING, 0, 1),
        (LedgerEvent.TAKEN, cookies[2], 1),
    ]
    for fd in (*taken, sending, receiving):
        os.close(fd)
    for pair in pairs:
        for end in pair:
            end.close()


def test_the_primary_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    environ = {ledger.VARIABLE: "made"}
    ledger.prepare(environ)
    assert environ[ledger.VARIABLE] == str(tmp_path / "made")
    assert ledger.read(tmp_path / "made") == ledger.Book([])
    ledger.prepare(environ)  # one that is there is left as it is
    with pytest.raises(ledger.ConfigError, match=ledger.VARIABLE):
        ledger.prepare({ledger.VARIABLE: str(tmp_path / "absent" / "made")})


def test_only_who_is_told_keeps_it(path: str):
    environ = {ledger.VARIABLE: path}
    ledger.join(LedgerRole.WORKER, 1, 1, {})
    assert not ledger.opened()
    ledger.join(LedgerRole.WORKER, 1, 1, environ)
    try:
        assert ledger.opened()
        assert not environ  # its children do not
    finally:
        ledger.leave()
    assert Counter(one.event for one in ledger.read(path).entries) == {LedgerEvent.OPENED: 1}


def refused(core: Any, path: str) -> int | None:
    try:
        core.ledger_open(path, LedgerRole.WORKER)
    except OSError as error:
        return error.errno
    return None


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as front:
        client = socket.create_connection(front.getsockname())
        return front.accept()[0], client
