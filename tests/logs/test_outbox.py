"""A logger that is given much at once, before it reads, is given all of it and lives."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from rrdispatch.cluster import logs as module
from rrdispatch.cluster.handle import WorkerHandle
from rrdispatch.cluster.logs import Logs
from rrdispatch.cluster.outbox import Outbox
from rrdispatch.settings import Settings

MANY = 300  # more than a socket's buffer takes while nobody reads


def overrun() -> None:
    pytest.fail("nothing was too much")


async def read_all(sock: socket.socket, count: int) -> list[tuple[bytes, int]]:
    """Each message, and how many fds came with it."""
    found = []
    sock.setblocking(False)
    while len(found) < count:
        try:
            data, fds, _, _ = socket.recv_fds(sock, 100, 4)
        except BlockingIOError:
            await asyncio.sleep(0.01)
            continue
        for fd in fds:
            os.close(fd)
        found.append((data, len(fds)))
    return found


async def until(true: Callable[[], bool]) -> None:
    async def wait() -> None:
        while not true():  # noqa: ASYNC110 (a file tells nobody)
            await asyncio.sleep(0.02)

    await asyncio.wait_for(wait(), 60.0)


def test_what_the_other_one_does_not_read_yet_waits_with_its_fds() -> None:
    async def main() -> None:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        near.setblocking(False)
        gc.collect()  # what other tests left is not closed meanwhile
        before = len(os.listdir("/proc/self/fd"))
        outbox = Outbox(near, overrun)
        with far:
            for number in range(MANY):
                outbox.put(b"%d" % number, [0])
            outbox.end()
            got = await asyncio.wait_for(read_all(far, MANY), 30.0)
            assert got == [(b"%d" % number, 1) for number in range(MANY)]
            assert far.recv(1) == b""
        assert len(os.listdir("/proc/self/fd")) == before - 2

    asyncio.run(main())


@pytest.mark.parametrize("number", [errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM])
def test_fds_for_which_there_is_no_room_in_flight_are_sent_later(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, refused = socket.send_fds, [1, 1, 1]

    def short(*arguments: object) -> int:
        if refused:
            refused.pop()
            raise OSError(number, os.strerror(number))
        return send(*arguments)  # type: ignore[arg-type]

    async def main() -> None:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        near.setblocking(False)
        monkeypatch.setattr(socket, "send_fds", short)
        outbox = Outbox(near, overrun)
        outbox.put(b"one", [0, 1])
        outbox.put(b"two")
        with far:
            assert await asyncio.wait_for(read_all(far, 2), 30.0) == [(b"one", 2), (b"two", 0)]
        outbox.close()

    asyncio.run(main())


def test_loggers_that_die_at_once_follow_each_other_ever_more_slowly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        loop, replaced = asyncio.get_running_loop(), []
        monkeypatch.setattr(module, "_RUN", "import os; os._exit(1)")
        monkeypatch.setattr(module, "SOON", 600.0)  # whenever it gets a core, it died at once
        logs = Logs(Settings(), lambda: replaced.append(loop.time()))
        kept: list[list[int]] = []
        logs.on_gone = lambda: kept.append(logs.fds())
        before = loop.time()
        await until(lambda: len(replaced) == 4)
        assert kept[:4] == [[]] * 4, "an heir is left no descriptor of one that is gone"
        assert replaced[-1] - before >= 15 * module.FIRST_PAUSE  # 1 + 2 + 4 + 8
        await until(lambda: logs._pidfd < 0)
        monkeypatch.setattr(module, "LAST_WAIT", 600.0)
        await asyncio.wait_for(logs.close(), 60.0)  # there is nobody to wait for

    asyncio.run(main())


def test_a_logger_that_takes_over_for_hundreds_of_workers_is_not_killed(tmp_path: Path) -> None:
    async def main() -> None:
        replaced: list[int] = []
        log = tmp_path / "log"
        logs = Logs(Settings(log_file=str(log)), lambda: replaced.append(logs.pid))
        out, write = os.pipe()
        handles = []
        for number in range(MANY):
            pipes = {"stdout": os.dup(out), "stderr": os.dup(out)}
            handles.append(WorkerHandle(number, number, 1, **pipes))
            logs.adopt(handles[-1])
        first = logs.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: bool(replaced))
        os.write(write, b"a line\n")
        os.close(write)
        await until(lambda: log.exists() and b"a line" in log.read_bytes())
        assert len(replaced) == 1
        os.close(out)
        await logs.close()
        for handle in handles:
            handle.close()

    asyncio.run(main())
