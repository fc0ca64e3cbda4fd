"""What is asked of each server, column by column, under a real ``rrdispatch run``."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness.ports import free_port
from tests.harness.processes import Process
from tests.harness.servers import START_TIMEOUT, Server, rrdispatch_command, wait_until
from tests.matrix.servers import APPS, Entry, Tools
from tests.matrix.talk import TALKS, Asked, Talk

WORKERS = 4
TRIES = 3  # of an even split, and of an answer by each worker
GOES_ON = 45.0  # seconds: a program that has not ended by then will not
IN_USE = re.compile(r"(?i)(address|port)\b.*\bin use|EADDRINUSE|(os error|errno) 98")
OF_A_WORKER = re.compile(r"^\S+\.\d+ \| ")
ENDED = re.compile(r"worker \d+ \(pid \d+\) ended: (.*?) before it was ready")


@dataclass(frozen=True)
class Cell:
    """A yes or a no, and what was seen."""

    good: bool
    seen: str


@dataclass
class Row:
    """What was measured of one server; a column that is not there was not reached."""

    entry: Entry
    version: str = ""
    cells: dict[str, Cell] = field(default_factory=dict)

    @property
    def surprises(self) -> list[str]:
        """Columns that are not as they are declared to be."""
        return [
            f"{name}: {cell.seen}"
            for name, cell in self.cells.items()
            if cell.good == (name in self.entry.no)
        ]


@dataclass(frozen=True)
class Sizes:
    """How much is asked."""

    connections: int = 400
    around: int = 40  # requests before and after the replacement of all workers


SHORT = Sizes(connections=40, around=10)


class Clustered(Server):
    """Every worker is ready when the constructor returns."""

    def __init__(self, entry: Entry, tools: Tools, port: int) -> None:
        self.port = port
        self.talk: Talk = TALKS[entry.talk]
        super().__init__(clustered(entry, tools, port), cwd=APPS, env=entry.env)
        try:
            self.output.wait(r": ready after", START_TIMEOUT)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Clustered:
        return self

    def leaders(self) -> list[int]:
        """The session of each worker, by who answers: some servers hide their environment.

        Again if not all do: whoever is late is passed over.
        """
        found: set[int] = set()
        for _ in range(TRIES):
            found |= {_session(pid) for pid in self.talk.ask(self.port, 2 * WORKERS).by_pid}
            if len(found) >= WORKERS:
                break
        return sorted(found)

    def members(self, leaders: Collection[int]) -> list[Process]:
        """Every process of these workers."""
        return [each for each in self.processes() if _session(each.pid) in leaders]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def clustered(entry: Entry, tools: Tools, port: int) -> list[str]:
    # Who has no core for 50 ms would be passed over, and the split uneven.
    options = ("-i", str(WORKERS), "--name", "matrix", "--probation", "0.2")
    patient = ("--stall-timeout", "0.5")
    return rrdispatch_command("run", *options, *patient, "--", *entry.filled(tools, port))


def even_split(server: Clustered, sizes: Sizes) -> Cell:
    """One after the other: the difference between the workers is at most one. Again if not: whoever
    needs long, for its first imports or on a busy machine, is passed over.
    """
    seen: list[str] = []
    good = False
    while not good and len(seen) < TRIES:
        good, told = _split_once(server, sizes)
        seen.append(told)
    return Cell(good, ", then ".join(seen))


def _split_once(server: Clustered, sizes: Sizes) -> tuple[bool, str]:
    asked = server.talk.ask(server.port, sizes.connections)
    counts = sorted(asked.by_pid.values())
    good = asked.answered == sizes.connections and len(counts) == WORKERS
    seen = "/".join(map(str, counts)) + _failures(asked)
    return good and counts[-1] - counts[0] <= 1, seen


def right_peer(server: Clustered, _: Sizes) -> Cell:
    seen, own = server.talk.peer(server.port)
    return Cell(seen == own, "yes" if seen == own else f"{seen} for {own}")


def stopped_worker(server: Clustered, _: Sizes) -> Cell:
    """All processes of one worker stand still."""
    stopped = server.members(server.leaders()[:1])
    for each in stopped:
        os.kill(each.pid, signal.SIGSTOP)
    try:
        asked = server.talk.ask(server.port, 100, concurrency=10)
    finally:
        for each in stopped:
            os.kill(each.pid, signal.SIGCONT)
    return Cell(asked.answered == 100, f"{asked.answered} of 100{_failures(asked)}")


def reload_under_load(server: Clustered, sizes: Sizes) -> Cell:
    leaders = server.leaders()
    old = server.members(leaders)
    with server.talk.beside(server.port) as load:
        load.wait_more(sizes.around)
        server.send_signal(signal.SIGHUP)
        server.output.wait(r": reloaded in", 90.0)
        wait_until(lambda: not any(each.alive() for each in old), 60.0, "the old workers ended")
        load.wait_more(sizes.around)
        asked = load.stop()
    failed = asked.count - asked.answered
    replaced = len(leaders) == WORKERS and not set(leaders) & set(server.leaders())
    seen = f"{failed} of {asked.count}{_failures(asked)}"
    return Cell(not failed and replaced, seen if replaced else f"{seen}; not replaced")


def clean_end(server: Clustered, _: Sizes) -> Cell:
    """By itself, as if nothing had been wrong, and with all that came from it."""
    try:
        code = server.stop(timeout=60.0)
    except (AssertionError, TimeoutError) as error:
        return Cell(False, str(error).splitlines()[0])
    text = server.output.text()
    killed = re.findall(r".*(?:killed|SIGKILL).*", text)
    return Cell(code == 0 and not killed, killed[0] if killed else f"exit {code}")


def _failures(asked: Asked) -> str:
    told = ", ".join(f"{count} x {what}" for what, count in asked.failures.items())
    return f" ({told})" if told else ""


# ---- an address that somebody else has -----------------------------------------------------------


def in_use(entry: Entry, tools: Tools) -> Cell:
    """The same words, and the same end, as the program has by itself."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        alone, end = _run_to_end(entry, entry.filled(tools, port))
        ours, code = _run_to_end(entry, clustered(entry, tools, port))
    missing = sorted(_reasons(alone) - _reasons(ours))
    if missing or not _reasons(alone):
        return Cell(False, f"not said: {missing[0]}" if missing else "alone it says nothing")
    if end is None:
        return Cell(code is None, "goes on" if code is None else f"exit {code}, alone it goes on")
    ended = set(ENDED.findall(ours))
    same = ended == {f"exit code {end}"} and code == 5
    return Cell(same, f"exit {end}" if same else f"{sorted(ended)}, alone {end}")


def _run_to_end(entry: Entry, command: list[str]) -> tuple[str, int | None]:
    """What a command says, and its exit code; None if it would go on."""
    with _closed(Server(command, cwd=APPS, env=entry.env)) as server:
        try:
            code = server.wait(GOES_ON)
        except TimeoutError:
            code = None
        return server.output.text(), code


def _reasons(text: str) -> set[str]:
    """Lines that name the reason, without what differs from run to run."""
    lines = (OF_A_WORKER.sub("", line) for line in text.splitlines() if IN_USE.search(line))
    return {re.sub(r"\x1b\[[\d;]*m|\d+", "", line).strip() for line in lines}


@contextmanager
def _closed(server: Server) -> Iterator[Server]:
    try:
        yield server
    finally:
        server.close()


# ---- a row ---------------------------------------------------------------------------------------

WHILE_UP: dict[str, Callable[[Clustered, Sizes], Cell]] = {
    "even split": even_split,
    "peer": right_peer,
    "one stopped": stopped_worker,
    "reload": reload_under_load,
    "ends": clean_end,
}
COLUMNS = ("starts", "even split", "peer", "port in use", "one stopped", "reload", "ends")


def measure(entry: Entry, python: str, sizes: Sizes, columns: tuple[str, ...] = COLUMNS) -> Row:
    """One server, from its start to its end."""
    with tempfile.TemporaryDirectory(prefix="matrix-") as folder:
        os.chmod(folder, 0o755)  # for servers that give up root
        tools = Tools(python, Path(folder))
        row = Row(entry, entry.found(tools))
        if not row.version or not _built(entry, tools):
            return Row(entry)
        row.cells["starts"] = _starts(row, tools, sizes, columns)
        if row.cells["starts"].good and "port in use" in columns:
            row.cells["port in use"] = in_use(entry, tools)
    return row


def _built(entry: Entry, tools: Tools) -> bool:
    """False where a compiler, its static C library or openssl is missing."""
    try:
        entry.build(tools)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return False
    return True


def _starts(row: Row, tools: Tools, sizes: Sizes, columns: tuple[str, ...]) -> Cell:
    """Whether it does; if so, all that is asked of it while it is up."""
    try:
        server = Clustered(row.entry, tools, free_port())
    except TimeoutError as error:
        told = re.findall(r"(?:error|hint): .*", str(error)) or str(error).splitlines()[-1:]
        return Cell(False, told[0] if told else "silence")
    with _closed(server):
        client = _own_client(row.entry, server)
        for name, column in WHILE_UP.items():
            if name in columns:
                row.cells[name] = _tried(column, server, sizes)
    return client


def _own_client(entry: Entry, server: Clustered) -> Cell:
    if not entry.client:
        return Cell(True, "yes")
    command = [word.format(port=server.port) for word in entry.client]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60.0)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        return Cell(False, str(error))
    good = done.returncode == 0
    return Cell(good, f"yes, {command[0]} too" if good else done.stderr.strip())


def _tried(column: Callable[[Clustered, Sizes], Cell], server: Clustered, sizes: Sizes) -> Cell:
    try:
        return column(server, sizes)
    except (OSError, RuntimeError, TimeoutError, subprocess.SubprocessError) as error:
        return Cell(False, f"{type(error).__name__}: {error}".splitlines()[0])
