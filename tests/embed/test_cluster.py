"""Cluster inside a service: threads, a running loop, forks, signals, a service that is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rrdispatch
from rrdispatch import Cluster, aio
from rrdispatch.errors import (
    BindError,
    ConfigError,
    ControlError,
    ReloadError,
    StartError,
    TargetError,
)
from tests.cluster.service import APPS, LIMIT, PLAIN, app, more_fds, own_fds, version
from tests.harness import processes
from tests.harness.ports import kept_port
from tests.harness.servers import ROOT, Output


def settings(folder: Path = APPS, **more: Any) -> dict[str, Any]:
    return {
        "bind": "127.0.0.1:0", "workers": 2, "cwd": str(folder), "probation": 0.2,
        "env": {"PYTHONDONTWRITEBYTECODE": "1"}, **more,
    }  # fmt: skip


def ask(address: str) -> tuple[str, int]:
    """(version, pid) of who answers."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), LIMIT) as connection:
        text, pid = connection.recv(100).decode().split()
    return text, int(pid)


@pytest.fixture
def port() -> int:
    """Nobody else's, also afterwards."""
    return kept_port()


@pytest.fixture(autouse=True)
def nothing_left(port: int) -> Iterator[None]:
    """No descriptor and no child more than before."""
    before, children = own_fds(), set(processes.descendants(os.getpid()))
    yield
    assert not more_fds(before)
    assert not set(processes.descendants(os.getpid())) - children


def test_it_serves_reloads_scales_and_ends(tmp_path: Path, port: int) -> None:
    app(tmp_path)
    # One that only waits for a core is to have its turn.
    more = {"bind": f"127.0.0.1:{port}", "stall_timeout": 60.0}
    with Cluster("app:serve", **settings(tmp_path, **more)) as cluster:
        (address,) = cluster.addresses
        assert len({ask(address)[1] for _ in range(6)}) == 2
        app(tmp_path, version(2))
        assert cluster.reload().generation == 2
        assert ask(address)[0] == "2"
        cluster.scale(3)
        assert len(cluster.stats()["slots"]) == 3
    assert cluster.exit_code == 0
    with pytest.raises(ControlError):
        cluster.stats()
    with pytest.raises(ConnectionRefusedError):
        ask(address)


def test_it_can_be_started_again(tmp_path: Path) -> None:
    app(tmp_path)
    cluster = Cluster("app:serve", **settings(tmp_path))
    for _ in range(2):
        with cluster:
            assert ask(cluster.addresses[0])[0] == "1"


@pytest.mark.parametrize(
    ("target", "more", "kind", "match"),
    [
        ("absent:app", {}, TargetError, "absent"),
        ("app:absent", {}, TargetError, "absent"),
        ("app:serve", {"bind": "127.0.0.1:1", "workers": 0}, ConfigError, "0"),
        ("app:serve", {"bind": "256.1.1.1:80"}, BindError, r"256\.1\.1\.1"),
        ("app:serve", {"worker_count": 3}, ConfigError, "worker_count"),
        ("app:serve", {"cwd": "/absent"}, ConfigError, "/absent"),
        ("exits:serve", {}, StartError, "exit code 9"),
    ],
)
def test_what_is_wrong_is_raised_as_in_the_foreground(
    tmp_path: Path, target: str, more: dict[str, Any], kind: type[Exception], match: str
) -> None:
    app(tmp_path)
    app(tmp_path, "import os; os._exit(9)", name="exits")
    with pytest.raises(kind, match=match):
        Cluster(target, **{**settings(tmp_path), **more}).start()


def test_a_traceback_of_the_app_comes_with_the_error(tmp_path: Path) -> None:
    app(tmp_path, "def broken():\n    raise ValueError('no luck')\nbroken()\n")
    with pytest.raises(TargetError, match="no luck") as failed:
        Cluster("app:serve", **settings(tmp_path)).start()
    assert "in broken" in failed.value.traceback


def test_a_failed_reload_is_raised_with_the_last_output(tmp_path: Path) -> None:
    app(tmp_path)
    with Cluster("app:serve", **settings(tmp_path)) as cluster:
        app(tmp_path, "import os; print('last words', flush=True); os._exit(9)")
        with pytest.raises(ReloadError, match="exit code 9") as failed:
            cluster.reload()
        assert "last words" in failed.value.output
        assert ask(cluster.addresses[0])[0] == "1"


def test_events_come_by_callback_and_by_iterator() -> None:
    heard: list[str] = []
    cluster = Cluster("plain:serve", on_event=lambda e: heard.append(e["event"]), **settings())
    with cluster:
        events = cluster.events()
        victim = cluster.stats()["workers"][0]["pid"]
        processes.kill(victim)
        names = []
        for event in events:
            names.append(event["event"])
            if event["event"] == "worker-ready":
                break
        assert "exited" in names
    assert {"listening", "ready", "exited", "stopped"} <= set(heard)
    assert list(cluster.events()) == []


def test_events_end_with_the_cluster() -> None:
    cluster = Cluster("plain:serve", **settings()).start()
    names: list[str] = []
    reader = threading.Thread(target=lambda: names.extend(e["event"] for e in events))
    events = cluster.events()
    reader.start()
    cluster.stop()
    reader.join(LIMIT)
    assert names[-1] == "stopped"


def test_it_is_used_from_many_threads() -> None:
    with Cluster("plain:serve", **settings()) as cluster:
        address = cluster.addresses[0]
        results: list[object] = []

        def work() -> None:
            for _ in range(5):
                results.append(cluster.stats()["state"])
                results.append(ask(address)[0])

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        assert sorted(map(str, results)) == ["1"] * 20 + ["serving"] * 20


def test_the_sync_one_works_inside_of_a_running_loop() -> None:
    async def main() -> None:
        with Cluster("plain:serve", **settings()) as cluster:
            assert ask(cluster.addresses[0])[0] == "1"

    asyncio.run(main())


def test_run_in_a_thread_leaves_signals_alone() -> None:
    cluster = Cluster("plain:serve", **settings()).start()
    before = signal.getsignal(signal.SIGTERM)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(cluster.run()))
    thread.start()
    assert signal.getsignal(signal.SIGTERM) == before
    cluster.ask_to_stop()
    thread.join(LIMIT)
    assert codes == [0]


def test_run_in_the_main_thread_ends_by_a_signal_and_gives_handlers_back() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def at_event(event: dict[str, Any]) -> None:
        if event["event"] == "ready":
            os.kill(os.getpid(), signal.SIGTERM)

    cluster = Cluster("plain:serve", on_event=at_event, **settings())
    assert cluster.run() == 0
    assert signal.getsignal(signal.SIGTERM) == before


def test_run_raises_what_ended_the_service(tmp_path: Path) -> None:
    app(tmp_path, "import os\ndef serve(listener):\n    listener.accept()\n    os._exit(5)\n")
    cluster = Cluster("app:serve", **settings(tmp_path, workers=1, max_restarts=1)).start()

    def connect() -> None:
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", port), LIMIT) as connection:
                connection.recv(1)

    port = int(cluster.addresses[0].rpartition(":")[2])
    thread = threading.Thread(target=connect)
    thread.start()
    with pytest.raises(StartError, match="more than 1 times"):
        cluster.run()
    thread.join(LIMIT)
    assert cluster.exit_code == StartError.exit_code


def test_a_primary_that_is_killed_is_an_error_and_no_hang() -> None:
    with Cluster("plain:serve", **settings()) as cluster:
        stats = cluster.stats()
        family = processes.descendants(stats["primary_pid"])
        processes.kill(stats["primary_pid"])
        assert cluster.wait(LIMIT)
        with pytest.raises(ControlError):
            cluster.stats()
    assert cluster.exit_code == -signal.SIGKILL
    assert not processes.wait_gone(family, LIMIT)


def test_a_forked_child_does_not_keep_the_cluster() -> None:
    with Cluster("plain:serve", **settings()) as cluster:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writer)
            try:
                cluster.stats()
            except ControlError:
                os.read(reader, 1)
                os._exit(7)
            os._exit(1)
        os.close(reader)
        assert cluster.stop() == 0  # while the child lives
        os.close(writer)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


SERVICE = """
import sys, threading, time
from rrdispatch import Cluster
cluster = Cluster("plain:serve", bind="127.0.0.1:0", workers=2).start()
print(cluster.addresses[0], flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_service_is_killed_everything_drains_and_ends(number: signal.Signals) -> None:
    popen = subprocess.Popen(
        [sys.executable, "-c", SERVICE], cwd=APPS, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert popen.stdout is not None
    output = Output()
    reader = output.follow("stdout", popen.stdout)
    output.wait(r"127\.0\.0\.1", LIMIT)
    family = processes.descendants(popen.pid)
    assert len(family) == 5  # primary, dispatcher, logger, two workers
    popen.send_signal(number)
    assert popen.wait(LIMIT) == -number
    assert not processes.wait_gone(family, LIMIT)
    reader.join(LIMIT)
    popen.stdout.close()


# ---- rrdispatch.aio.Cluster -------------------------------------------------------------------


def test_the_same_with_await(tmp_path: Path) -> None:
    app(tmp_path)

    async def main() -> None:
        heard: list[str] = []
        cluster = aio.Cluster(
            "app:serve", on_event=lambda e: heard.append(e["event"]), **settings(tmp_path)
        )
        async with cluster:
            (address,) = await cluster.addresses()
            assert (await asyncio.to_thread(ask, address))[0] == "1"
            app(tmp_path, version(2))
            assert (await cluster.reload()).generation == 2
            app(tmp_path, "import os; os._exit(9)")
            with pytest.raises(ReloadError, match="exit code 9"):
                await cluster.reload()
            assert (await asyncio.to_thread(ask, address))[0] == "2"
            await cluster.scale(3)
            assert len((await cluster.stats())["slots"]) == 3
        assert cluster.exit_code == 0
        assert {"ready", "reloaded", "reload-failed", "stopped"} <= set(heard)
        with pytest.raises(ControlError):
            await cluster.stats()

    asyncio.run(main())


def test_with_await_a_failed_start_is_raised(tmp_path: Path) -> None:
    app(tmp_path, PLAIN)

    async def main() -> None:
        with pytest.raises(TargetError, match="absent"):
            await aio.Cluster("app:absent", **settings(tmp_path)).start()
        with pytest.raises(BindError):
            await aio.Cluster("app:serve", **settings(tmp_path, bind="256.1.1.1:80")).start()

    asyncio.run(main())


def test_with_await_events_are_an_async_iterator() -> None:
    async def main() -> None:
        names: list[str] = []
        cluster = await aio.Cluster("plain:serve", **settings()).start()

        async def listen() -> None:
            async for event in cluster.events():
                names.append(event["event"])  # noqa: PERF401

        task = asyncio.ensure_future(listen())
        running = asyncio.ensure_future(cluster.run())
        await asyncio.sleep(0)
        assert await cluster.stop() == 0
        await asyncio.wait_for(task, LIMIT)
        assert await asyncio.wait_for(running, LIMIT) == 0
        assert names[-1] == "stopped"

    asyncio.run(main())


@pytest.mark.parametrize("word", ["instances", "worker"])
def test_how_many_is_said_by_workers_alone(word: str) -> None:
    said: dict[str, Any] = {word: 2}
    with pytest.raises(ConfigError, match=f"(?s)Cluster: .*'{word}'.*did you mean 'workers'"):
        Cluster("app:app", **said)


def test_public_names() -> None:
    assert rrdispatch.Cluster is Cluster
    assert aio.Cluster.__module__ != Cluster.__module__
