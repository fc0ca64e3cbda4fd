"""A server as a real process: started, watched, ended by pid, and proven to leave nothing behind.

`Server` knows any program; `Service` is ``rrdispatch run``; `Gunicorn` is the peer that some
promises are measured against. All bind port 0 and are asked which port they got: tests can run
side by side.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from tests.harness import processes
from tests.harness.processes import Process

ROOT = Path(__file__).resolve().parents[2]
APPS = Path(__file__).with_name("apps")
MARK = "PROBE_MARK"
START_TIMEOUT = 60.0
MOST_LINES = 100_000


class Output:
    """The lines a process wrote, as they come, with a way to wait for one."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self._news = threading.Condition()
        self._open = 0

    def follow(self, name: str, stream: IO[str]) -> threading.Thread:
        """Read a stream to its end in a thread."""
        with self._news:
            self._open += 1
        thread = threading.Thread(target=self._read, args=(name, stream), daemon=True)
        thread.start()
        return thread

    def _read(self, name: str, stream: IO[str]) -> None:
        for line in stream:
            with self._news:
                if len(self.lines) < MOST_LINES:  # a service that runs mad must not fill the memory
                    self.lines.append((name, line.rstrip("\n")))
                self._news.notify_all()
        with self._news:
            self._open -= 1
            self._news.notify_all()

    def text(self, name: str | None = None) -> str:
        """Everything so far, or that of ``stdout`` or ``stderr`` alone."""
        with self._news:
            return "\n".join(line for stream, line in self.lines if name in (None, stream))

    def wait(self, pattern: str, timeout: float, after: int = 0) -> re.Match[str]:
        """Wait for a line that matches, looking from line number ``after`` on."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            matches = (re.search(pattern, line) for _, line in self.lines[after:])
            found.extend(match for match in matches if match)
            return bool(found) or self._open == 0

        with self._news:
            self._news.wait_for(look, timeout)
        if not found:
            ended = " (it ended)" if self._open == 0 else ""
            raise TimeoutError(f"no line matches {pattern!r}{ended}; output:\n{self.text()}")
        return found[0]


class Server:
    """A program and all processes that come from it."""

    def __init__(
        self, command: Sequence[str], *, cwd: Path = APPS, env: Mapping[str, str] | None = None
    ) -> None:
        self.command = list(command)
        self.mark = uuid.uuid4().hex
        self.output = Output()
        self.known: set[Process] = set()
        self.also = ExitStack()  # what must end with it
        environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        environment.update({MARK: self.mark, "PYTHONPATH": str(ROOT)}, **(env or {}))
        self.popen = subprocess.Popen(
            self.command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.popen.stdout is not None
        assert self.popen.stderr is not None
        self._readers = [
            self.output.follow("stdout", self.popen.stdout),
            self.output.follow("stderr", self.popen.stderr),
        ]

    @property
    def pid(self) -> int:
        return self.popen.pid

    def processes(self) -> list[Process]:
        """The program and everything that came from it, by descent and by environment."""
        found = set(processes.descendants(self.pid)) | set(processes.marked(MARK, self.mark))
        root = processes.process(self.pid)
        if root is not None and self.popen.returncode is None:
            found.add(root)
        self.known |= found
        return sorted(each for each in found if each.alive())

    def send_signal(self, signum: int) -> None:
        self.popen.send_signal(signum)

    def wait(self, timeout: float = 30.0) -> int:
        """Its exit code; the output is complete then."""
        try:
            code = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"still running after {timeout} s:\n{self.output.text()}") from None
        for reader in self._readers:
            reader.join(timeout)
        return code

    def stop(self, signum: int = signal.SIGTERM, timeout: float = 40.0) -> int:
        """End it in order; fails if any process of it is left afterwards."""
        self.processes()
        if self.popen.poll() is None:
            self.send_signal(signum)
        code = self.wait(timeout)
        self.assert_nothing_left()
        return code

    def assert_nothing_left(self, timeout: float = 20.0) -> None:
        """No process of it is alive ``timeout`` seconds after its end, nor a zombie."""
        self.processes()
        left = processes.wait_gone(self.known, timeout)
        named = [f"{each.pid} {processes.command(each.pid)}" for each in left]
        assert not left, f"left behind: {named}"

    def close(self) -> None:
        """Whatever state it is in: end every process of it."""
        self.also.close()
        for each in [*self.processes(), *self.known]:
            with suppress(ProcessLookupError):  # one that ends with the one before it
                if each.alive():
                    processes.kill(each.pid)
        self.popen.wait(30)
        for reader in self._readers:
            reader.join(30)
        for stream in (self.popen.stdout, self.popen.stderr):
            assert stream is not None
            stream.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.stop()
            else:
                tail = "\n".join(self.output.text().splitlines()[-40:])
                sys.stderr.write(f"--- last output of {self.command}\n{tail}\n---\n")
        finally:
            self.close()


def rrdispatch_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "rrdispatch", *arguments]


class Service(Server):
    """``rrdispatch run TARGET``, every worker ready when the constructor returns."""

    prefix: tuple[str, ...] = ()  # a command that runs ours: as somebody else, with other limits

    def __init__(
        self,
        target: str,
        *options: str,
        bind: Sequence[str] = ("127.0.0.1:0",),
        cwd: Path = APPS,
        env: Mapping[str, str] | None = None,
    ) -> None:
        binds = [part for address in bind for part in ("--bind", address)]
        command = [*self.prefix, *rrdispatch_command("run", target, *binds, *options)]
        super().__init__(command, cwd=cwd, env=env)
        try:
            self.addresses = [self._listening(address) for address in bind]
            self.output.wait(r"(: |\")ready after", START_TIMEOUT)
        except BaseException:
            self.close()
            raise

    def _listening(self, address: str) -> str:
        """The address as it was told at start-up, with the real port."""
        stem = re.escape(address.removesuffix(":0"))
        port = r":\d+" if address.endswith(":0") else ""
        match = self.output.wait(f"(?i)listening.*?({stem}{port})", START_TIMEOUT)
        return match[1]

    @property
    def address(self) -> str:
        return self.addresses[0]

    def __enter__(self) -> Service:
        return self

    def workers(self) -> dict[int, int]:
        """Pids of the living workers by slot; of the newest generation where there are two."""
        return workers(self.processes())

    def wait_workers(self, enough: Callable[[dict[int, int]], bool], timeout: float = 30.0) -> None:
        """Wait until the workers are as ``enough`` says; looks again after each end or 10 ms."""
        wait_until(lambda: enough(self.workers()), timeout)


def workers(candidates: Sequence[Process]) -> dict[int, int]:
    """The workers among some processes: slot to pid, the newest generation winning."""
    found: dict[int, tuple[int, int]] = {}
    for each in candidates:
        environment = processes.environment(each.pid)
        if "RRDISPATCH_SLOT" not in environment or not _leads(each.pid):
            continue
        slot = int(environment["RRDISPATCH_SLOT"])
        entry = (int(environment["RRDISPATCH_GENERATION"]), each.pid)
        found[slot] = max(entry, found.get(slot, entry))
    return {slot: pid for slot, (_, pid) in sorted(found.items())}


def _leads(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:  # it has just ended
        return False


def wait_until(condition: Callable[[], bool], timeout: float, what: str = "") -> None:
    """Wait for a state of the world that nobody announces, by looking at it every 10 ms; less
    often if a look takes long: what is waited for wants the core, too.
    """
    deadline = time.monotonic() + timeout
    tick = threading.Event()  # never set: a bounded pause between two looks, not a synchronisation
    while True:
        began = time.monotonic()
        if condition():
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout} s: {what or condition}")
        tick.wait(min(0.1, max(0.01, 2 * (time.monotonic() - began))))


class Gunicorn(Server):
    """``gunicorn`` with sync workers, listening when the constructor returns."""

    def __init__(self, target: str, workers: int, *options: str) -> None:
        program = [sys.executable, "-m", "gunicorn", target, "--workers", str(workers)]
        super().__init__([*program, "--bind", "127.0.0.1:0", "--no-control-socket", *options])
        try:
            self.address = self.output.wait(r"Listening at: http://(\S+)", START_TIMEOUT)[1]
            self._booted(workers)
        except BaseException:
            self.close()
            raise

    def _booted(self, workers: int) -> None:
        wait_until(
            lambda: self.output.text().count("Booting worker") >= workers,
            START_TIMEOUT,
            "gunicorn's workers booted",
        )

    def __enter__(self) -> Gunicorn:
        return self
