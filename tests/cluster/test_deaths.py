"""What happens when a process of ours is killed: dispatcher, logger, primary."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rrdispatch import _core
from tests.cluster.service import APPS, LIMIT, app, kill, loaded, running
from tests.harness import processes
from tests.harness.processes import Process
from tests.harness.servers import ROOT, Output, Service, rrdispatch_command, wait_until, workers

KINDS = ["python"] if _core.dispatcher_program() is None else ["c", "python"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_lost_dispatcher_is_replaced(kind: str, number: signal.Signals) -> None:
    async def main() -> None:
        # Nothing is taken back meanwhile from a worker that waits for a core: that is lost, too.
        settings = {"dispatcher": kind, "stall_timeout": 60.0}
        async with running("plain:serve", APPS, **settings) as service:
            before = service.supervisor.stats()
            async with loaded(service) as errors:
                for _ in range(2):
                    mark = service.mark()
                    kill(service.supervisor.stats()["dispatcher_pid"], number)
                    await service.until("dispatcher-replaced", mark)
                    await service.versions(4)
            # What each had accepted and not yet sent is lost with it: at most one connection.
            assert len(errors) <= 2
            after = await service.supervisor.fresh_stats()
            assert after["dispatcher_pid"] != before["dispatcher_pid"]
            assert [row["pid"] for row in after["workers"]] == [
                row["pid"] for row in before["workers"]
            ]

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_dispatcher_knows_parked_and_draining_workers(kind: str, tmp_path: Path) -> None:
    app(tmp_path)

    async def main() -> None:
        # One that only waits for a core is to have its turn.
        settings = {"dispatcher": kind, "stall_timeout": 60.0}
        async with running("app:serve", tmp_path, **settings) as service:
            done = service.supervisor.reload(probation=1.5)
            await service.until("parked", slot=1)
            mark = service.mark()
            kill(service.supervisor.stats()["dispatcher_pid"])
            await service.until("dispatcher-replaced", mark)
            new = set(service.pids().values())
            assert {(await service.ask())[1] for _ in range(8)} == new
            await done
            await service.settled(
                lambda: service.states() == {slot: [(2, "ready")] for slot in range(2)}
            )

    asyncio.run(main())


def test_a_dispatcher_that_cannot_live_ends_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with running("plain:serve", APPS) as service:
            # Quick, whatever else the machine does: it is given up for six ends within ten seconds.
            broken = [shutil.which("true") or "/bin/true"]
            monkeypatch.setattr("rrdispatch.dispatch.process.command", lambda _: broken)
            kill(service.supervisor.stats()["dispatcher_pid"])
            with pytest.raises(Exception, match="the dispatcher ended 6 times"):
                await asyncio.wait_for(service.task, LIMIT)

    asyncio.run(main())


def test_one_that_worked_is_replaced_however_often() -> None:
    async def main() -> None:
        async with running("plain:serve", APPS) as service:
            for _ in range(8):
                mark = service.mark()
                while not service.supervisor.world.dispatching.link.worked:
                    await service.supervisor.fresh_stats()  # it answers, or not within a second
                kill(service.supervisor.stats()["dispatcher_pid"])
                await service.until("dispatcher-replaced", mark)
            await service.versions(4)

    asyncio.run(main())


def test_a_killed_logger_is_replaced_and_the_lines_go_on() -> None:
    with Service("probe:serve", "-i", "2") as service:
        (logger,) = [
            each.pid
            for each in processes.descendants(service.pid)
            if any(word.endswith("logger.py") for word in processes.command(each.pid))
        ]
        processes.kill(logger)
        service.output.wait("logger was replaced", LIMIT)
        victim = service.workers()[0]
        processes.kill(victim, signal.SIGKILL)
        service.wait_workers(lambda workers: workers.get(0, victim) != victim)


TALKATIVE = """
import sys
def serve(listener):
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"1 1")
            for number in range(500):  # a drain waits for as long as the connection is open
                print("out", number, flush=False)
                print("err", number, file=sys.stderr)
            sys.stdout.flush()
"""


def test_no_line_is_lost_at_the_end_and_each_has_its_prefix(tmp_path: Path) -> None:
    app(tmp_path, TALKATIVE)
    with Service("app:serve", "-i", "2", "--name", "shop", cwd=tmp_path) as service:
        host, _, port = service.address.rpartition(":")
        for _ in range(4):
            with socket.create_connection((host, int(port))) as connection:
                assert connection.recv(10) == b"1 1"
        service.stop()
        for name, word in (("stdout", "out"), ("stderr", "err")):
            lines = service.output.text(name).splitlines()
            bursts = 0
            for slot in (0, 1):
                mine = [line for line in lines if line.startswith(f"shop.{slot} | {word} ")]
                burst = [f"shop.{slot} | {word} {n}" for n in range(500)]
                assert mine == burst * (len(mine) // 500)
                bursts += len(mine) // 500
            assert bursts == 4


def test_a_broken_stdout_does_not_stop_the_service(tmp_path: Path) -> None:
    app(tmp_path, TALKATIVE)
    command = rrdispatch_command("run", "app:serve", "-i", "1", "-b", "127.0.0.1:0")
    popen = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert popen.stdout is not None
    assert popen.stderr is not None
    popen.stdout.close()
    output = Output()
    reader = output.follow("stderr", popen.stderr)
    try:
        port = int(output.wait(r"listening on .*:(\d+)", LIMIT)[1])
        output.wait("ready after", LIMIT)
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                assert connection.recv(10) == b"1 1"
    finally:
        popen.terminate()
        assert popen.wait(LIMIT) == 0
        reader.join(LIMIT)
        popen.stderr.close()


@pytest.mark.parametrize("kind", KINDS)
def test_when_the_primary_is_killed_the_workers_finish_and_exit(kind: str) -> None:
    with Service("probe:serve", "-i", "3", "--dispatcher", kind) as service:
        family = service.processes()
        assert len(family) >= 6
        processes.kill(service.pid)
        service.wait()
        left = processes.wait_gone(family, LIMIT)
        assert not left, [processes.command(each.pid) for each in left]


@pytest.mark.parametrize("kind", KINDS)
def test_when_primary_and_dispatcher_are_killed_the_workers_exit(kind: str) -> None:
    with Service("probe:asgi", "-i", "3", "--dispatcher", kind) as service:
        family = service.processes()
        own = [each for each in family if not _is_worker(each)]
        for each in sorted(own, key=lambda each: each.pid != service.pid):
            with contextlib.suppress(ProcessLookupError):  # without the others it ends by itself
                if each.alive():
                    processes.kill(each.pid)
        service.wait()
        left = processes.wait_gone(family, LIMIT)
        assert not left, [processes.command(each.pid) for each in left]


def _is_worker(process: Process) -> bool:
    return "RRDISPATCH_SLOT" in processes.environment(process.pid)


def test_it_is_a_good_process_1(tmp_path: Path) -> None:
    """Adopted orphans are reaped, its own children are not taken from their handles."""
    if os.geteuid() != 0:
        print("NOT RUN: a pid namespace needs root", file=sys.__stderr__)
        return
    text = """
import os
def serve(listener):
    while True:
        connection, _ = listener.accept()
        with connection:
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os._exit(0)  # its parent may be gone before: process 1 reaps it
                os._exit(0)
            os.wait()
            connection.sendall(b"1 1")
"""
    app(tmp_path, text)
    command = [
        "unshare", "-pf", "--mount-proc",
        *rrdispatch_command("run", "app:serve", "-i", "2", "-b", "127.0.0.1:0"),
    ]  # fmt: skip
    popen = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert popen.stdout is not None
    assert popen.stderr is not None
    output = Output()
    readers = [output.follow("stdout", popen.stdout), output.follow("stderr", popen.stderr)]
    try:
        port = int(output.wait(r"listening on .*:(\d+)", LIMIT)[1])
        output.wait("ready after", LIMIT)
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                assert connection.recv(10) == b"1 1"
        first = min(processes.descendants(popen.pid), key=lambda each: each.started).pid
        wait_until(lambda: not zombies(popen.pid), LIMIT, "no zombie is left")
        processes.kill(workers(processes.descendants(popen.pid))[0])
        output.wait("killed by SIGKILL", LIMIT)
        wait_until(lambda: not zombies(popen.pid), LIMIT, "no zombie is left")
        processes.kill(first, signal.SIGTERM)
        assert popen.wait(LIMIT) == 0
    finally:
        popen.kill()
        popen.wait()
        for reader in readers:
            reader.join(LIMIT)
        popen.stdout.close()
        popen.stderr.close()


def zombies(root: int) -> list[int]:
    return [each.pid for each in processes.descendants(root) if processes.state(each.pid) == "Z"]
