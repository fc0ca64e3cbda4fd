"""The test's end of a load client: start it, watch its records come in, stop it, get them all."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from tests.harness.records import Plan, Record, Tally, record_from_line
from tests.harness.servers import Server

_BASES = itertools.count(0, 1_000_000_000)
ROOT = Path(__file__).resolve().parents[2]


class Load:
    """A running load; as a context manager it never outlives the block."""

    program = "tests.harness.client"

    def __init__(self, plan: Plan) -> None:
        # Numbers are never used twice in a run, so that a journal names the request.
        self.plan = plan = replace(plan, base=next(_BASES))
        self.records: list[Record] = []
        self._news = threading.Condition()
        self._ended = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", self.program, plan.to_json()],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the load client did not start:\n{self._process.communicate()[1]}")
        self.begin: int = json.loads(line)["begin"]
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self.records.append(record_from_line(line))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def wait_for(self, enough: Callable[[list[Record]], bool], timeout: float = 60.0) -> None:
        """Wait until the records so far satisfy ``enough``."""
        with self._news:
            if not self._news.wait_for(lambda: enough(self.records) or self._ended, timeout):
                raise TimeoutError(f"load: still waiting after {timeout} s; {Tally(self.records)}")
            if not enough(self.records):
                raise RuntimeError(f"load: ended before it was enough; {Tally(self.records)}")

    def wait_more(self, number: int, timeout: float = 60.0) -> None:
        """Wait until ``number`` more requests have ended than now."""
        goal = len(self.records) + number
        self.wait_for(lambda records: len(records) >= goal, timeout)

    def order(self, word: str) -> None:
        """``go`` or ``stop``."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(word + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has just ended by itself: nothing to order any more

    def stop(self) -> Tally:
        """Let it start nothing new, and wait for the rest."""
        self.order("stop")
        return self.finish()

    def finish(self, timeout: float = 120.0) -> Tally:
        """Wait for its end; all records."""
        code = self._process.wait(timeout)
        self._reader.join(timeout)
        assert self._process.stderr is not None
        complaint = self._process.stderr.read()
        if code or complaint:
            raise RuntimeError(f"the load client ended with {code}:\n{complaint}")
        return Tally(list(self.records))

    def __enter__(self) -> Load:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.join(10)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            with suppress(BrokenPipeError):  # an order for one that had ended is in there still
                pipe.close()


def run_load(plan: Plan, timeout: float = 120.0) -> Tally:
    """Carry a bounded plan out to its end."""
    with Load(plan) as load:
        return load.finish(timeout)


def load_beside(server: Server, plan: Plan) -> Load:
    """A load that never outlives the server it is put on."""
    return server.also.enter_context(Load(plan))
