"""The load generator: ``python -m loadtests.generator PLAN_JSON``, a process of its own.

It speaks the language of ``tests.harness.client`` (plans in, one record per request out, ``stop``
on stdin) and is faster: one protocol object per connection, no timer per request. No request is
ever tried twice.

Modes: ``open`` and ``closed`` as there; ``kept`` asks on each kept connection again as soon as it
was answered; ``slow`` sends a request byte by byte; ``idle`` connects and says nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Coroutine, Iterator
from typing import Any

from tests.harness.records import EOF, OK, REFUSED, RESET, STATUS, TIMEOUT, Plan, Record

MOST = 1_000_000_000
FLUSH_S = 0.05
SWEEP_S = 0.1
SLOW_BYTE_S = 0.05
SLOW = "slow"  # the detail of an answer to the slow path


class Asker(asyncio.Protocol):
    """One connection, and the request on it."""

    def __init__(self, generator: Generator, client: int, number: int, intended: int) -> None:
        self.generator = generator
        self.client = client
        self.transport: asyncio.Transport | None = None
        self.connected = self.port = 0
        self.fresh = True
        self.over = asyncio.get_running_loop().create_future()
        self.begin(number, intended)

    def begin(self, number: int, intended: int) -> None:
        self.number, self.intended, self.first = number, intended, 0
        self.data, self.missing, self.due, self.slow = b"", -1, True, False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's are no asyncio.Transport
        self.connected = time.monotonic_ns()
        self.port = transport.get_extra_info("sockname")[1]
        self.ask()

    def ask(self) -> None:
        assert self.transport is not None
        plan = self.generator.plan
        if plan.mode == "idle":
            self.finish(OK)
        elif plan.mode == "slow":
            self.generator.spawn(self._ask_slowly(self.generator.request))
        else:
            self.slow = bool(plan.slow_path) and self.generator.draw() < plan.slow_share
            request = self.generator.slow_request if self.slow else self.generator.request
            self.transport.write(request)

    async def _ask_slowly(self, request: bytes) -> None:
        assert self.transport is not None
        for byte in request:
            if self.transport.is_closing():
                return
            self.transport.write(bytes([byte]))
            await asyncio.sleep(SLOW_BYTE_S)

    def data_received(self, data: bytes) -> None:
        self.first = self.first or time.monotonic_ns()
        self.data += data
        if self.missing < 0:
            end = self.data.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _header(self.data[:end], b"content-length")
            self.missing = end + 4 + int(length or b"0")
        if len(self.data) >= self.missing and self.due:
            status = self.data[9:12]
            self.finish(OK if status == b"200" else STATUS, SLOW if self.slow else "")

    def finish(self, outcome: str, detail: str = "") -> None:
        """The request is over; ask again, or close."""
        self.due = False
        self.generator.write(self, outcome, detail)
        mode = self.generator.plan.mode
        if mode == "idle":
            return
        head = self.data.partition(b"\r\n\r\n")[0]
        keeps = mode == "kept" and outcome == OK and not self.generator.stopped.is_set()
        number = next(self.generator.numbers, None) if keeps else None
        if number is None or _header(head, b"connection").lower() == b"close":
            self.close()
        else:
            self.fresh = False
            self.begin(number, time.monotonic_ns())
            self.ask()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()
        self._end()

    def connection_lost(self, error: Exception | None) -> None:
        if self.due:
            self.due = False
            self.generator.write(self, RESET if error else EOF, str(error or "closed early"))
        self._end()

    def _end(self) -> None:
        self.generator.asking.discard(self)
        if not self.over.done():
            self.over.set_result(None)


def _header(head: bytes, name: bytes) -> bytes:
    lowered = head.lower()
    start = lowered.find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    start += len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else len(head)].strip()


class Generator:
    """Carries a plan out."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        host, _, port = plan.address.rpartition(":")
        self.where = (host, int(port))
        self.stopped = asyncio.Event()
        self.moments = random.Random(plan.seed)
        self.choices = random.Random(plan.seed + 1_000_000)
        self.numbers = iter(range(plan.base, plan.base + (plan.count or MOST)))
        self.asking: set[Asker] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.lines: list[str] = []
        self.request = self._request(plan.path)
        self.slow_request = self._request(plan.slow_path) if plan.slow_path else b""

    def _request(self, path: str) -> bytes:
        token = "keep-alive" if self.plan.mode == "kept" else "close"
        return f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: {token}\r\n\r\n".encode()

    def draw(self) -> float:
        return self.choices.random()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def run(self) -> None:
        helpers = [asyncio.create_task(self._sweep()), asyncio.create_task(self._flush())]
        if self.plan.mode == "open":
            await self._open()
        else:
            clients = range(self.plan.concurrency)
            await asyncio.gather(*(self._client(client) for client in clients))
        if self.plan.mode == "idle":
            await self.stopped.wait()
        await asyncio.gather(*self.tasks)
        for helper in helpers:
            helper.cancel()
        self.flush()

    async def _open(self) -> None:
        begin = time.monotonic_ns()
        for number, offset in zip(self.numbers, self._starts(), strict=False):
            intended = begin + int(offset * 1e9)
            delay = (intended - time.monotonic_ns()) / 1e9
            if delay > 0:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self.stopped.wait(), delay)
            elif number % 64 == 0:
                await asyncio.sleep(0)  # far behind: answers come in all the same
            if self.stopped.is_set():
                break
            self.spawn(self._once(0, number, intended))

    def _starts(self) -> Iterator[float]:
        moment = 0.0
        while True:
            yield moment
            if self.plan.rate:
                poisson = self.plan.poisson
                moment += (
                    self.moments.expovariate(self.plan.rate) if poisson else 1 / self.plan.rate
                )

    async def _client(self, client: int) -> None:
        """One connection after another; with ``kept`` a connection lasts for many requests."""
        for number in self.numbers:
            if self.stopped.is_set():
                break
            await self._once(client, number, time.monotonic_ns())
            if self.plan.mode == "idle":
                break

    async def _once(self, client: int, number: int, intended: int) -> None:
        asker = Asker(self, client, number, intended)
        self.asking.add(asker)
        loop = asyncio.get_running_loop()
        connecting = loop.create_connection(lambda: asker, *self.where)
        try:
            await asyncio.wait_for(connecting, self.plan.timeout)
        except (asyncio.TimeoutError, OSError) as error:
            if asker.due:
                asker.due = False
                self.write(asker, _kind(error), str(error))
            asker.close()
        if self.plan.mode != "idle":
            await asker.over

    async def _sweep(self) -> None:
        """Requests that took too long end as timeouts."""
        while True:
            await asyncio.sleep(SWEEP_S)
            oldest = time.monotonic_ns() - int(self.plan.timeout * 1e9)
            late = [each for each in self.asking if each.due and each.intended < oldest]
            for each in late:
                if each.transport is not None:
                    each.due = False
                    self.write(each, TIMEOUT, "")
                    each.close()

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            self.flush()

    def flush(self) -> None:
        if self.lines:
            sys.stdout.write("".join(self.lines))
            sys.stdout.flush()
            self.lines.clear()

    def write(self, asker: Asker, outcome: str, detail: str) -> None:
        head = asker.data.partition(b"\r\n\r\n")[0]
        record = Record(
            asker.number, asker.client, outcome, asker.intended, asker.connected, asker.first,
            time.monotonic_ns(), asker.port, int(head[9:12] or 0),
            int(_header(head, b"x-pid") or 0), -1, _header(head, b"x-version").decode(), 0,
            asker.fresh, detail,
        )  # fmt: skip
        self.lines.append(record.to_line() + "\n")


def _kind(error: Exception) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return TIMEOUT
    return REFUSED if isinstance(error, ConnectionRefusedError) else RESET


async def _orders(generator: Generator) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if line.strip() == b"stop":
            break
    generator.stopped.set()


async def main(plan: Plan) -> None:
    generator = Generator(plan)
    orders = asyncio.create_task(_orders(generator))
    sys.stdout.write(json.dumps({"pid": os.getpid(), "begin": time.monotonic_ns()}) + "\n")
    sys.stdout.flush()
    await generator.run()
    orders.cancel()


def run(plan: Plan) -> None:
    """On uvloop where it is installed."""
    gc.disable()  # bounded life; a collection would show as latency of the server
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started us says when it is over
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        import uvloop
    except ImportError:
        asyncio.run(main(plan))
    else:
        uvloop.run(main(plan))


if __name__ == "__main__":
    run(Plan(**json.loads(sys.argv[1])))
