"""asyncio servers over a worker's listeners."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

import rrdispatch.aio
from rrdispatch.worker.listener import Listener
from rrdispatch.worker.streams import Server
from tests.serve.conftest import TLS

from .conftest import Bench


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    new_loop = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop

    def run_one(main: Coroutine[Any, Any, None]) -> None:
        loop = new_loop()
        try:
            loop.run_until_complete(asyncio.wait_for(main, 60))
        finally:
            loop.close()

    return run_one


Run = Callable[[Coroutine[Any, Any, None]], None]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
    writer.close()


async def talk(bench: Bench, **options: Any) -> bytes:
    client = bench.connect()
    client.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=client, **options)
    writer.write(b"hello")
    data = await reader.read(5)
    writer.close()
    return data


async def closed(bench: Bench, count: int) -> None:
    await until(bench, (count, count))


async def until(bench: Bench, numbers: tuple[int, int]) -> None:
    """Let the loop turn until the scoreboard has these numbers."""
    while bench.numbers() != numbers:  # noqa: ASYNC110 (a page in memory tells nobody)
        await asyncio.sleep(0)


def test_start_server(bench: Bench, run: Run) -> None:
    async def main() -> None:
        server = await rrdispatch.aio.start_server(echo, sock=bench.listener)
        async with server:
            assert isinstance(server, Server)
            assert server.is_serving()
            assert server.sockets == (bench.listener,)
            assert server.get_loop() is asyncio.get_running_loop()
            assert await talk(bench) == b"hello"
            assert await talk(bench) == b"hello"
            await closed(bench, 2)
        assert not server.is_serving()
        assert server.sockets == ()

    run(main())


def test_not_serving_until_it_is_told(bench: Bench, run: Run) -> None:
    async def main() -> None:
        server = await rrdispatch.aio.start_server(echo, sock=bench.listener, start_serving=False)
        bench.connect()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert bench.numbers() == (0, 0)
        forever = asyncio.ensure_future(server.serve_forever())
        await until(bench, (1, 0))
        server.close_clients()  # type: ignore[attr-defined]
        server.close()
        await forever
        assert bench.numbers() == (1, 1)

    run(main())


def test_tls(bench: Bench, run: Run) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE

    async def main() -> None:
        server = await rrdispatch.aio.start_server(
            echo, sock=bench.listener, ssl=context, ssl_handshake_timeout=60
        )
        async with server:
            assert await talk(bench, ssl=trusting, server_hostname="x") == b"hello"
            not_tls = bench.connect()
            not_tls.sendall(b"nonsense, not a handshake\n")
            await closed(bench, 2)

    run(main())


def test_close_waits_for_what_is_open(bench: Bench, run: Run) -> None:
    async def main() -> None:
        server = await rrdispatch.aio.start_server(echo, sock=bench.listener)
        client = bench.connect()
        await until(bench, (1, 0))
        server.close()
        waiting = asyncio.ensure_future(server.wait_closed())
        await asyncio.sleep(0)
        assert not waiting.done()
        client.close()
        await waiting
        assert bench.numbers() == (1, 1)

    run(main())


def test_abort(bench: Bench, run: Run) -> None:
    async def main() -> None:
        server = await rrdispatch.aio.start_server(echo, sock=bench.listener)
        bench.connect()
        await until(bench, (1, 0))
        await asyncio.sleep(0)
        server.abort_clients()  # type: ignore[attr-defined]
        server.close()
        await server.wait_closed()

    run(main())


def test_a_protocol_that_can_not_be_made(bench: Bench, run: Run) -> None:
    def broken() -> asyncio.Protocol:
        raise RuntimeError("no protocol")

    async def main() -> None:
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        server = await rrdispatch.aio.create_server(broken, sock=bench.listener)
        bench.connect()
        await closed(bench, 1)
        server.close()
        await server.wait_closed()

    run(main())


def test_outside_of_a_worker_they_are_asyncios(run: Run) -> None:
    async def main() -> None:
        server = await rrdispatch.aio.start_server(echo, "127.0.0.1", 0)
        assert not isinstance(server, Server)
        server.close()
        await server.wait_closed()
        with pytest.raises(ValueError, match="specified"):
            await asyncio.start_server(echo)
        with pytest.raises(ValueError, match="specified"):
            await rrdispatch.aio.start_server(echo)

    run(main())


def test_asyncios_own_server_takes_one_per_wake_up(bench: Bench) -> None:
    async def main() -> None:
        listener: Listener = bench.listener
        listener.setblocking(False)
        async with await asyncio.start_server(echo, sock=listener):
            assert await talk(bench) == b"hello"
            await closed(bench, 1)

    asyncio.run(main())
