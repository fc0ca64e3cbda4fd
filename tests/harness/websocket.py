"""WebSocket clients of a load: each keeps one connection and asks on it, over and over.

A server that is replaced says so by closing with 1012 (service restart): the client then connects
again and asks again, and its record says how often. Whatever else ends a connection is a failure.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.harness.records import EOF, OK, REFUSED, RESET, STATUS, TIMEOUT, Plan, Record

RESTART = 1012
MOST_RESTARTS = 20  # of one question


@dataclass
class Talk:
    """One client's connection, if it has one."""

    plan: Plan
    connection: ClientConnection | None = None
    port: int = 0
    connected: int = 0  # when

    async def ask(self, question: str, record: Record) -> Record:
        """The answer, however often the server has us come again for it."""
        outcome, detail, text = OK, "", ""
        restarts: list[int] = []
        fresh = self.connection is None
        try:
            asked = self._until_answered(question, restarts)
            text = await asyncio.wait_for(asked, self.plan.timeout)
        except asyncio.TimeoutError:
            outcome = TIMEOUT
        except Exception as error:
            outcome, detail = _ended(error)
        record = replace(
            record, outcome=outcome, detail=detail or " ".join(map(str, restarts)),
            fresh=fresh or bool(restarts), ended=time.monotonic_ns(), port=self.port,
            connected=self.connected,
        )  # fmt: skip
        if outcome != OK:
            await self.close()
            return record
        pid, slot, version = text.split()
        return replace(record, status=101, pid=int(pid), slot=int(slot), version=version)

    async def _until_answered(self, question: str, restarts: list[int]) -> str:
        while True:
            try:
                return await self._once(question)
            except ConnectionClosed as error:  # noqa: PERF203 (a wish of the server, not a fault)
                if error.rcvd is None or error.rcvd.code != RESTART:
                    raise
                restarts.append(RESTART)
                if len(restarts) > MOST_RESTARTS:
                    raise
                await self.close()

    async def _once(self, question: str) -> str:
        if self.connection is None:
            address = f"ws://{self.plan.address}{self.plan.path}"
            self.connection = await connect(
                address, open_timeout=None, ping_interval=None, compression=None, proxy=None
            )
            self.port, self.connected = self.connection.local_address[1], time.monotonic_ns()
        await self.connection.send(question)
        answer = await self.connection.recv()
        return str(answer)

    async def close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close_timeout = 1.0
            await connection.close()


def _ended(error: Exception) -> tuple[str, str]:
    """How, in the words of a record."""
    if isinstance(error, ConnectionClosed):
        code = error.rcvd.code if error.rcvd else "no close frame"
        return EOF, f"closed: {code}"
    if isinstance(error, InvalidStatus):
        return STATUS, str(error)
    if isinstance(error, (ConnectionRefusedError, FileNotFoundError)):
        return REFUSED, str(error)
    if isinstance(error, EOFError):
        return EOF, str(error)
    return RESET, f"{type(error).__name__}: {error}"


async def keep_talking(client: Any, number: int, written: Any) -> None:
    """One client of the load: asks ``rate`` times a second until told to stop."""
    plan: Plan = client.plan
    talk = Talk(plan)
    begin = time.monotonic_ns() + int(number / plan.concurrency / plan.rate * 1e9)
    turn = 0
    while not plan.count or turn < plan.count:
        intended = begin + int(turn / plan.rate * 1e9)
        await client._until(intended)
        if client.stopped.is_set():
            break
        record = Record(plan.base + number * 1_000_000 + turn, number, "", intended)
        written(await talk.ask(f"{record.number}", record), None)
        turn += 1
        if plan.turns and turn % plan.turns == 0:
            await talk.close()
    await talk.close()
