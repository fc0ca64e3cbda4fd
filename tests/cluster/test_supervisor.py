"""The primary with real workers: start, respawn, errored, scale, stop."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rrdispatch.errors import ConfigError, StartError, TargetError
from tests.cluster.service import (
    APPS,
    LIMIT,
    Service,
    app,
    kill,
    loaded,
    more_fds,
    own_fds,
    running,
)
from tests.harness.ports import kept_port
from tests.harness.servers import wait_until


async def counted(service: Service, least: int) -> dict[str, Any]:
    """Fresh stats; the dispatcher says its numbers within a second, or later than that."""
    while True:
        stats = await service.supervisor.fresh_stats()
        picks = sum(row["picks"] for row in stats["workers"])
        if min(stats["accepted"], picks) >= least:
            return stats


def test_it_serves_by_all_workers_and_counts_what_they_do() -> None:
    async def main() -> None:
        settings = {"instances": "3", "policy": "strict", "stall_timeout": 60.0}
        async with running("plain:serve", APPS, **settings) as service:
            pids = [(await service.ask())[1] for _ in range(9)]
            assert set(pids) == set(service.pids().values())
            stats = await asyncio.wait_for(counted(service, 9), LIMIT)
            assert stats["accepted"] == 9
            assert [row["connections"] for row in stats["workers"]] == [3, 3, 3]
            assert [row["picks"] for row in stats["workers"]] == [3, 3, 3]

    asyncio.run(main())


def test_a_killed_worker_comes_back_and_nothing_else_changes() -> None:
    async def main() -> None:
        async with running("plain:serve", APPS) as service:
            before = service.pids()
            mark = service.mark()
            kill(before[1])
            exited = await service.until("exited", mark, slot=1)
            assert exited["how"] == "killed by SIGKILL"
            await service.until("worker-ready", mark, slot=1)
            told = [event["event"] for event in service.events[mark:] if event.get("slot") == 1]
            assert told.count("spawned") == 1
            assert service.pids()[0] == before[0]
            assert service.supervisor.stats()["slots"][1]["restarts"] == 1

    asyncio.run(main())


def test_the_counts_of_a_dead_worker_stay_with_its_slot() -> None:
    async def main() -> None:
        async with running("plain:serve", APPS, instances="1") as service:
            for _ in range(5):
                await service.ask()
            mark = service.mark()
            kill(service.pids()[0])
            await service.until("worker-ready", mark)
            await service.ask()
            assert service.supervisor.stats()["slots"][0]["connections"] == 6

    asyncio.run(main())


def test_one_that_cannot_boot_is_errored_and_stops_nobody(tmp_path: Path) -> None:
    text = """
import os
if os.environ["RRDISPATCH_SLOT"] == "1":
    raise SystemExit(9)
from plain import serve
"""
    app(app(tmp_path, text), name="plain")

    async def main() -> None:
        settings = {"max_restarts": 3, "respawn_delay": 0.01}
        async with running("app:serve", tmp_path, instances="3", **settings) as service:
            told = await service.until("errored", slot=1)
            assert "exited with 9" in told["message"]
            assert sorted(service.pids()) == [0, 2]
            assert service.supervisor.stats()["slots"][1]["state"] == "errored"
            assert {(await service.ask())[0] for _ in range(4)} == {"1"}

    asyncio.run(main())


def test_when_all_are_errored_the_service_ends_with_the_reason(tmp_path: Path) -> None:
    text = """
import os
def serve(listener):
    listener.accept()
    print("I cannot go on", flush=True)
    os._exit(5)
"""
    app(tmp_path, text)

    async def main() -> None:
        settings = {"max_restarts": 2, "respawn_delay": 0.01}
        async with running("app:serve", tmp_path, instances="1", **settings) as service:
            for _ in range(3):
                with pytest.raises(IndexError):
                    await service.ask()
            with pytest.raises(StartError, match="more than 2 times"):
                await asyncio.wait_for(service.task, LIMIT)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("text", "kind", "match"),
    [
        ("raise ValueError('no luck')", TargetError, "no luck"),
        ("import os; os._exit(3)", StartError, "exit code 3"),
        ("serve = 7", TargetError, "serve"),
        ("import signal, os; os.kill(os.getpid(), signal.SIGSEGV)", StartError, "SIGSEGV"),
    ],
    ids=["raises", "exits", "not callable", "crashes"],
)
def test_a_start_that_fails_says_why_and_leaves_nothing(
    tmp_path: Path, text: str, kind: type[Exception], match: str
) -> None:
    app(tmp_path, text)
    before = own_fds()

    async def main() -> None:
        with pytest.raises(kind, match=match):
            async with running("app:serve", tmp_path):
                pass

    asyncio.run(main())
    assert not more_fds(before)


def test_bad_facts_are_errors_before_anything_starts(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(ConfigError, match="no folder"):
            async with running("plain:serve", tmp_path / "absent"):
                pass

    asyncio.run(main())


def test_a_silent_worker_is_a_failed_one(tmp_path: Path) -> None:
    app(tmp_path, "import threading\ndef serve(listener):\n    threading.Event().wait()\n")

    async def main() -> None:
        with pytest.raises(StartError, match=r"not ready within 0\.5 s"):
            async with running(
                "app:serve", tmp_path, instances="1", ready_timeout=0.5, wait_ready=True
            ):
                pass

    asyncio.run(main())


def test_scale_up_and_down_without_an_error() -> None:
    async def main() -> None:
        context = running("plain:serve", APPS, instances="1")
        async with context as service, loaded(service) as errors:
            service.supervisor.scale(3)
            await service.settled(lambda: sorted(service.pids()) == [0, 1, 2])
            service.supervisor.scale(1)
            await service.settled(lambda: service.states() == {0: [(1, "ready")]})
            with pytest.raises(ConfigError):
                service.supervisor.scale(0)
        assert errors == []

    asyncio.run(main())


def test_a_worker_that_asks_for_a_successor_is_replaced_without_an_error(tmp_path: Path) -> None:
    text = """
import os
from rrdispatch.worker.runtime import current
def serve(listener):
    for count in range(10**9):
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"1 %d" % os.getpid())
        if count == 20:
            current().notifier.recycle()
"""
    app(tmp_path, text)

    async def main() -> None:
        async with running("app:serve", tmp_path) as service:
            old = service.pids()
            async with loaded(service) as errors:
                for slot in (0, 1):
                    await service.until("exited", slot=slot, pid=old[slot])
            assert errors == []
            assert [row["restarts"] for row in service.supervisor.stats()["slots"]] == [0, 0]

    asyncio.run(main())


def test_a_hung_worker_is_killed_if_that_was_asked_for() -> None:
    async def main() -> None:
        async with running("plain:serve", APPS, heartbeat_timeout=4.0) as service:
            victim, other = service.pids()[0], service.pids()[1]
            mark = service.mark()
            kill(victim, signal.SIGSTOP)
            answers = [await service.ask() for _ in range(4)]
            # On a busy machine all this may have taken longer than it was given.
            late = [e["pid"] for e in service.events[mark:] if e["event"] == "worker-ready"]
            assert {pid for _, pid in answers} <= {other, *late}
            told = await service.until("exited", mark, pid=victim)
            assert "hung" in told["message"]
            await service.until("worker-ready", mark, slot=0)

    asyncio.run(main())


def test_stop_answers_everything_that_came_before_it(tmp_path: Path) -> None:
    text = """
import time
def serve(listener):
    while True:
        connection, _ = listener.accept()
        with connection:
            time.sleep(0.1)
            connection.sendall(b"1 1")
"""
    app(tmp_path, text)

    async def main() -> None:
        address = f"127.0.0.1:{kept_port()}"  # nobody else's afterwards
        async with running("app:serve", tmp_path, bind=[address]) as service:
            host, _, port = service.address.rpartition(":")
            opened = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
            service.supervisor.stop()
            answers = await asyncio.gather(*(reader.read() for reader, _ in opened))
            assert answers == [b"1 1"] * 20
            assert await asyncio.wait_for(service.task, LIMIT) == 0
            for _, writer in opened:
                writer.close()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(host, int(port))

    asyncio.run(main())


def test_a_second_stop_ends_now(tmp_path: Path) -> None:
    app(tmp_path, "import signal\n" + (APPS / "plain.py").read_text().replace(
        "    while True:", "    signal.pthread_sigmask(signal.SIG_BLOCK, {15})\n    while True:"
    ))  # fmt: skip

    async def main() -> None:
        async with running("app:serve", tmp_path, drain_timeout=600.0) as service:
            service.look()
            service.supervisor.stop()
            await service.until("draining")
            service.supervisor.stop()
            assert await asyncio.wait_for(service.task, LIMIT) == 0

    asyncio.run(main())


def test_programs_that_do_not_listen_are_supervised_too(tmp_path: Path) -> None:
    app(tmp_path, "import threading\ndef work():\n    threading.Event().wait()\n")

    async def main() -> None:
        settings = {"listen": False, "min_uptime": 0.2}
        async with running("app:work", tmp_path, **settings) as service:
            assert sorted(service.pids()) == [0, 1]
            mark = service.mark()
            kill(service.pids()[0])
            await service.until("worker-ready", mark, slot=0)
            assert (await service.supervisor.reload(probation=0.1)).generation == 2

    asyncio.run(main())


@pytest.mark.parametrize("head", ["def", "async def"])
def test_a_program_that_returns_is_run_again(tmp_path: Path, head: str) -> None:
    app(tmp_path, f"{head} work(listener):\n    assert listener is None\n")

    async def main() -> None:
        settings = {"listen": False, "min_uptime": 0.0, "instances": "1", "max_restarts": 0}
        async with running("app:work", tmp_path, **settings) as service:
            mark = service.mark()
            assert (await service.until("exited", mark))["how"] == "exit code 0"
            await service.until("worker-ready", mark)

    asyncio.run(main())


def test_an_app_that_needs_connections_says_so_without_listeners(tmp_path: Path) -> None:
    app(tmp_path, "async def app(scope, receive, send): ...\n")

    async def main() -> None:
        with pytest.raises(TargetError, match="no address"):
            async with running("app:app", tmp_path, listen=False, min_uptime=15.0):
                pass

    asyncio.run(main())


def test_an_import_that_fails_late_is_a_start_that_failed(tmp_path: Path) -> None:
    """However small min_uptime is, and however slow the machine."""
    app(tmp_path, "import time\ntime.sleep(1)\nraise RuntimeError('no database')\n")

    async def main() -> None:
        with pytest.raises(TargetError, match="no database"):
            async with running("app:work", tmp_path, listen=False, min_uptime=0.0):
                pass

    asyncio.run(main())


def test_without_connections_too_an_app_may_say_when_it_is_ready(tmp_path: Path) -> None:
    app(tmp_path, "import threading, rrdispatch\n"
        "def work():\n    rrdispatch.ready()\n    threading.Event().wait()\n")  # fmt: skip

    async def main() -> None:
        settings = {"listen": False, "wait_ready": True, "min_uptime": 900.0}
        async with running("app:work", tmp_path, **settings) as service:
            assert sorted(service.pids()) == [0, 1]

    asyncio.run(main())


def test_descriptors_are_the_same_before_and_after() -> None:
    before = own_fds()

    async def main() -> None:
        async with running("plain:serve", APPS) as service:
            inside = own_fds()
            for _ in range(3):
                mark = service.mark()
                kill(service.pids()[1])
                await service.until("worker-ready", mark)
            await service.supervisor.reload(probation=0.0)
            await service.settled(
                lambda: service.states() == {0: [(2, "ready")], 1: [(2, "ready")]}
            )
            # A dead worker's output is read to its end first.
            await asyncio.to_thread(wait_until, lambda: not more_fds(inside), LIMIT)

    asyncio.run(main())
    assert not more_fds(before)


EARLY = """
import asyncio, os, signal, sys
from rrdispatch.cluster.supervisor import Supervisor
from rrdispatch.settings import from_values

class Early(Supervisor):
    def _begin(self):
        super()._begin()
        os.kill(os.getpid(), signal.SIGTERM)  # the dispatcher is there, and no handler yet

values = {"target": "app:serve", "bind": ["127.0.0.1:0"], "instances": "1"}
sys.exit(asyncio.run(Early(from_values(values)).run()))
"""


def test_a_signal_that_comes_before_its_handler_is_heard(tmp_path: Path) -> None:
    app(tmp_path, "def serve(listener):\n    listener.accept()\n")
    done = subprocess.run([sys.executable, "-c", EARLY], cwd=tmp_path, timeout=60, check=False)
    assert done.returncode == 0
