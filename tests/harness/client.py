"""A load client in a process of its own: ``python -m tests.harness.client PLAN_JSON``.

Writes one line per finished request on stdout. On stdin ``stop`` (or the end) means: start nothing
new, finish what runs, exit; ``go`` lets keep-alive clients that lost their connection connect
again. No request is ever tried twice, and one that hangs ends as ``timeout``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.harness.records import EOF, OK, REFUSED, RESET, STATUS, TIMEOUT, Plan, Record

MOST = 1_000_000_000  # requests of a load that runs until told to stop


class ClosedEarly(Exception):
    """The server closed the connection before the answer was complete."""


@dataclass
class Answer:
    status: int
    headers: dict[str, str]


class Connection:
    """One client connection over a raw non-blocking socket."""

    def __init__(self, address: str) -> None:
        family, self.target = _target(address)
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        if family != socket.AF_UNIX:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = 0
        self.connected = 0
        self.first = 0

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> None:
        await loop.sock_connect(self.socket, self.target)
        self.connected = time.monotonic_ns()
        name = self.socket.getsockname()
        self.port = name[1] if isinstance(name, tuple) else 0

    async def exchange(self, path: str, keep: bool, until_eof: bool) -> Answer:
        """Send one request, read its whole answer; connects at the first."""
        self.first = 0
        loop = asyncio.get_running_loop()
        if not self.connected:
            await self._connect(loop)
        token = "keep-alive" if keep else "close"
        request = f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: {token}\r\n\r\n"
        await loop.sock_sendall(self.socket, request.encode())
        data = b""
        while b"\r\n\r\n" not in data:
            data += await self._read(loop)
        head, _, body = data.partition(b"\r\n\r\n")
        answer = _parse(head)
        missing = int(answer.headers.get("content-length", "0")) - len(body)
        while missing > 0:
            missing -= len(await self._read(loop))
        if until_eof and await loop.sock_recv(self.socket, 1):
            raise ConnectionError("more than the answer")
        return answer

    async def _read(self, loop: asyncio.AbstractEventLoop) -> bytes:
        data = await loop.sock_recv(self.socket, 65536)
        if not data:
            raise ClosedEarly("closed before the whole answer")
        self.first = self.first or time.monotonic_ns()
        return data

    def close(self) -> None:
        self.socket.close()


def _target(address: str) -> tuple[int, str | tuple[str, int]]:
    if address.startswith("unix:"):
        return socket.AF_UNIX, address[5:]
    host, _, port = address.rpartition(":")
    if host.startswith("["):
        return socket.AF_INET6, (host.strip("[]"), int(port))
    return socket.AF_INET, (host, int(port))


def _parse(head: bytes) -> Answer:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Answer(int(first.split()[1]), headers)


class Client:
    """Carries a plan out."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        # Two streams: arrivals and paths are the same whatever the server does to the order.
        self.moments = random.Random(plan.seed)
        self.choices = random.Random(plan.seed + 1_000_000)
        self.stopped = asyncio.Event()
        self.told = asyncio.Event()
        self.numbers = iter(range(plan.base, plan.base + (plan.count or MOST)))

    async def run(self) -> None:
        modes = {
            "open": self._open,
            "closed": self._closed,
            "keepalive": self._keepalive,
            "websocket": self._websocket,
        }
        await modes[self.plan.mode]()

    def path(self, number: int) -> str:
        """The path of a request: its number rides along, the share of slow ones is the seed's."""
        slow = self.plan.slow_share and self.choices.random() < self.plan.slow_share
        path = self.plan.slow_path if slow else self.plan.path
        return f"{path}{'&' if '?' in path else '?'}id={number}"

    def starts(self) -> Iterator[float]:
        """Seconds after the beginning at which the requests of an open load are to start."""
        moment = 0.0
        while True:
            yield moment
            if self.plan.rate and self.plan.poisson:
                moment += self.moments.expovariate(self.plan.rate)
            elif self.plan.rate:
                moment += 1 / self.plan.rate

    async def _open(self) -> None:
        begin = time.monotonic_ns()
        running: set[asyncio.Task[None]] = set()
        for number, offset in zip(self.numbers, self.starts(), strict=False):
            intended = begin + int(offset * 1e9)
            await self._until(intended)
            if self.stopped.is_set():
                break
            task = asyncio.create_task(self._once(number, intended, self.path(number)))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)

    async def _until(self, moment: int) -> None:
        delay = (moment - time.monotonic_ns()) / 1e9
        if delay <= 0:
            return
        try:
            await asyncio.wait_for(self.stopped.wait(), delay)
        except asyncio.TimeoutError:
            pass  # nobody stopped us: it is time

    async def _closed(self) -> None:
        async def one_after_another() -> None:
            for number in self.numbers:
                if self.stopped.is_set():
                    break
                await self._once(number, time.monotonic_ns(), self.path(number))

        await asyncio.gather(*(one_after_another() for _ in range(self.plan.concurrency)))

    async def _once(self, number: int, intended: int, path: str) -> None:
        connection = Connection(self.plan.address)
        record = Record(number, 0, "", intended)
        try:
            await self._request(connection, record, path)
        finally:
            connection.close()

    async def _request(self, connection: Connection, record: Record, path: str) -> Record:
        """Carry one request out and write its record; an unused connection is connected first."""
        keep = self.plan.mode == "keepalive"
        answer: Answer | None = None
        outcome, detail = OK, ""
        fresh = not connection.connected
        try:
            whole = connection.exchange(path, keep, self.plan.until_eof)
            answer = await asyncio.wait_for(whole, self.plan.timeout)
        except asyncio.TimeoutError:
            outcome = TIMEOUT
        except ClosedEarly as error:
            outcome, detail = EOF, str(error)
        except (ConnectionRefusedError, FileNotFoundError) as error:
            outcome, detail = REFUSED, str(error)
        except OSError as error:
            outcome, detail = RESET, str(error)
        record = replace(
            record, outcome=outcome, detail=detail, connected=connection.connected, fresh=fresh,
            first=connection.first, ended=time.monotonic_ns(), port=connection.port,
        )  # fmt: skip
        return _written(record if answer is None else _answered(record, answer), answer)

    async def _keepalive(self) -> None:
        clients = range(self.plan.concurrency)
        await asyncio.gather(*(self._keep(client) for client in clients))

    async def _websocket(self) -> None:
        from tests.harness.websocket import keep_talking  # the other modes do without the package

        clients = range(self.plan.concurrency)
        await asyncio.gather(*(keep_talking(self, client, _written) for client in clients))

    async def _keep(self, client: int) -> None:
        connection: Connection | None = None
        # Spread over the interval, so that the clients do not ask in step.
        share = client / self.plan.concurrency / self.plan.rate
        begin = time.monotonic_ns() + int(share * 1e9)
        for turn in range(self.plan.count or MOST):
            intended = begin + int(turn / self.plan.rate * 1e9)
            await self._until(intended)
            if self.stopped.is_set():
                break
            connection = connection or Connection(self.plan.address)
            number = self.plan.base + client * 1_000_000 + turn
            record = Record(number, client, "", intended)
            record = await self._request(connection, record, self.path(number))
            if not record.ok or record.detail == "close":
                connection.close()
                connection = None
            if not record.ok and self.plan.reconnect_when_told:
                await self.told.wait()
        if connection:
            connection.close()


def _answered(record: Record, answer: Answer) -> Record:
    headers = answer.headers
    return replace(
        record,
        outcome=OK if answer.status == 200 else STATUS,
        detail="close" if headers.get("connection", "").lower() == "close" else "",
        status=answer.status,
        pid=int(headers.get("x-pid", "0")),
        slot=int(headers.get("x-slot", "-1")),
        version=headers.get("x-version", ""),
        service=int(headers.get("x-service", "0")),
    )


def _written(record: Record, answer: Answer | None) -> Record:
    sys.stdout.write(record.to_line() + "\n")
    sys.stdout.flush()
    return record


async def _listen_to_orders(client: Client) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if line.strip() == b"go":
            client.told.set()
        elif line.strip() == b"stop":
            break
    client.stopped.set()
    client.told.set()


async def _main(plan: Plan) -> None:
    client = Client(plan)
    orders = asyncio.create_task(_listen_to_orders(client))
    sys.stdout.write(json.dumps({"pid": os.getpid(), "begin": time.monotonic_ns()}) + "\n")
    sys.stdout.flush()
    await client.run()
    orders.cancel()


if __name__ == "__main__":
    gc.disable()  # bounded life; a collection would show as latency of the server
    asyncio.run(_main(Plan(**json.loads(sys.argv[1]))))
