"""What a worker is told when it is parked and unparked, whether it listens or not."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from rrdispatch.cluster.handle import WorkerHandle
from rrdispatch.cluster.workers import receive
from rrdispatch.errors import ReloadError
from tests.cluster.service import LIMIT, app, kill, running
from tests.harness.servers import wait_until

TELLS = """
import os
import threading
import rrdispatch

parked = threading.Event()
generation = os.environ["RRDISPATCH_GENERATION"]

def tell(word):
    with open("told", "a") as file:
        file.write(f"{generation} {word}\\n")

@rrdispatch.on_park
def park():
    tell("parked")
    parked.set()

@rrdispatch.on_resume
def resume():
    parked.clear()
    tell("resumed")

def serve(listener):
    for connection, _ in listener:
        connection.close()
    if generation == "1":
        parked.wait(60)
        tell("drained")
"""


def pair() -> tuple[WorkerHandle, socket.socket]:
    kind = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK
    near, far = socket.socketpair(socket.AF_UNIX, kind)
    return WorkerHandle(1, 0, 1, notify=near), far


def test_one_that_never_reads_is_told_in_vain() -> None:
    handle, far = pair()
    for _ in range(1000):
        handle.tell("PARK=1")
    assert far.recv(100) == b"PARK=1"
    far.close()
    handle.tell("PARK=1")
    handle.close()
    handle.tell("PARK=1")


@pytest.mark.parametrize("late", [False, True], ids=["before", "between two reads"])
def test_the_last_words_of_one_that_did_not_read_are_heard(late: bool) -> None:
    handle, far = pair()
    assert handle.notify is not None
    handle.tell("PARK=1")
    far.send(b"ERROR={}")
    if not late:
        far.close()
    assert receive(handle.notify, 100, socket.MSG_PEEK) == b"ERROR={}"
    far.close()
    assert receive(handle.notify, 1) == b"E"
    assert receive(handle.notify, 100) == b""
    handle.close()


async def told(folder: Path, count: int) -> list[str]:
    """Waits for so many lines of the app."""
    file = folder / "told"
    enough = lambda: len(file.read_text().splitlines()) >= count  # noqa: E731
    await asyncio.to_thread(wait_until, enough, LIMIT)
    return file.read_text().splitlines()


def test_an_app_is_told_in_a_reload_that_fails_and_in_one_that_succeeds(tmp_path: Path) -> None:
    app(tmp_path, TELLS)
    (tmp_path / "told").touch()
    expected = ["1 parked", "1 resumed", "1 parked", "1 drained"]

    async def main() -> None:
        async with running("app:serve", tmp_path, instances="1") as service:
            failing = asyncio.ensure_future(service.supervisor.reload(probation=300.0))
            assert await told(tmp_path, 1) == expected[:1]
            kill(service.pids()[0])
            with pytest.raises(ReloadError):
                await failing
            assert await told(tmp_path, 2) == expected[:2]
            await service.supervisor.reload(probation=0.0)
            assert await told(tmp_path, 4) == expected

    asyncio.run(main())
