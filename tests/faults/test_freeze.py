"""Frozen, stopped, starved: time goes on, and nobody is to blame for it afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from rrdispatch._core.layout import ControlKind
from tests.cluster.service import APPS as PLAIN
from tests.cluster.service import app, loaded, running
from tests.dispatch.conftest import KINDS
from tests.dispatch.rig import MS, SECOND, Rig, rig
from tests.dispatch.workers import Worker
from tests.faults.kit import APPS, Group, cgroup
from tests.faults.test_shortage import PATIENT, Asking, dispatcher_of, logger_of, still
from tests.harness import processes
from tests.harness.servers import Service, wait_until

LONG = 2.5  # seconds; longer than anything of ours waits for a sign of life
LIMIT = 8  # for a boot, on a machine that is busy with other things


def passes(seconds: float) -> None:
    """Time itself is what is tried here."""
    threading.Event().wait(seconds)


def freeze(group: Group, seconds: float) -> None:
    """Everybody in it stands still for so long."""
    group.write("cgroup.freeze", 1)
    wait_until(lambda: "frozen 1" in group.read("cgroup.events"), 30.0, "they are frozen")
    try:
        passes(seconds)
    finally:
        group.write("cgroup.freeze", 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_service_is_frozen_under_load(kind: str) -> None:
    options = ("--heartbeat-timeout", "2", "--dispatcher", kind)
    with cgroup("none", "cgroup.freeze") as group:
        with group.inside():
            service = Service("faulty:serve", "-i", "2", *options, cwd=APPS)
        with service:
            before = service.processes()
            with Asking(service.address) as asking:
                asking.more()
                freeze(group, LONG)
                asking.more()
            assert asking.errors == []
            still(service, before)
            assert "replaced" not in service.output.text()


def test_the_workers_are_frozen_under_load() -> None:
    """They are stalled, no more: what waits for them waits."""
    with (
        cgroup("none", "cgroup.freeze") as group,
        Service("faulty:serve", "-i", "2", cwd=APPS) as service,
    ):
        before = service.processes()
        for pid in service.workers().values():
            group.add(pid)
        with Asking(service.address) as asking:
            asking.more()
            freeze(group, LONG)
            asking.more()
        assert asking.errors == []
        still(service, before)


SLOW_BOOT = """
import os, time
time.sleep(float(os.environ["BOOT"]))
def serve(listener):
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"1 1")
"""


def test_a_boot_and_a_drain_are_not_cut_short_by_a_freeze(tmp_path: Path) -> None:
    """The limits are for time in which they could run."""
    app(tmp_path, SLOW_BOOT)
    options = ("--ready-timeout", str(LIMIT), "--drain-timeout", str(LIMIT))
    with cgroup("none", "cgroup.freeze") as group:
        with group.inside():
            service = Service("app:serve", "-i", "2", *options, cwd=tmp_path, env={"BOOT": "0.3"})
        with service:
            first = service.workers()
            seen = len(service.output.lines)
            service.send_signal(signal.SIGHUP)
            service.output.wait("reload begins", 20.0, seen)
            freeze(group, LIMIT + 1)
            service.output.wait("reloaded in", 30.0, seen)
            service.wait_workers(lambda workers: not set(workers.values()) & set(first.values()))
            assert "killed" not in service.output.text()


@pytest.mark.parametrize("which", ["primary", "dispatcher", "logger"])
def test_one_of_ours_is_stopped_for_a_while(which: str) -> None:
    with Service("faulty:serve", "-i", "2", *PATIENT, cwd=APPS) as service:
        find = {"dispatcher": dispatcher_of, "logger": logger_of}.get(which)
        pid = find(service) if find else service.pid
        workers = service.workers()
        with Asking(service.address) as asking:
            asking.more()
            processes.kill(pid, signal.SIGSTOP)
            try:
                if which == "dispatcher":
                    service.output.wait("the dispatcher was replaced", 60.0)
                else:
                    passes(LONG)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    processes.kill(pid, signal.SIGCONT)
            asking.more()
        # A dispatcher that is silent for a second is replaced: one connection was in its hand.
        assert len(asking.errors) <= (which == "dispatcher")
        assert service.workers() == workers
        assert ("the dispatcher was replaced" in service.output.text()) == (which == "dispatcher")


@pytest.mark.parametrize("kind", KINDS)
def test_a_dispatcher_that_did_not_run_calls_nobody_hung(kind: str) -> None:
    with rig(kind) as made:
        made.settings(stall=20 * MS, heartbeat=3 * SECOND)
        made.listen()
        (one,) = made.add(1)
        while not _is_stopped_in_time(made, one):
            one.take().close()
        made.event(ControlKind.HUNG, one)  # but if it goes on like this
        one.take().close()


def _is_stopped_in_time(made: Rig, worker: Worker) -> bool:
    """Else it did run for so long that it may call somebody hung: we had no core."""
    made.events.clear()
    began = time.monotonic()
    made.connect()
    made.until(lambda: worker.pending() == 1, "it waits")
    made.ping()
    signal.pidfd_send_signal(made.dispatcher.pidfd, signal.SIGSTOP)
    os.waitid(os.P_PIDFD, made.dispatcher.pidfd, os.WSTOPPED)
    ran = time.monotonic() - began
    passes(4.0)
    again = time.monotonic()
    signal.pidfd_send_signal(made.dispatcher.pidfd, signal.SIGCONT)
    for _ in range(3):
        made.ping()
    hung = made.count(ControlKind.HUNG)
    if ran + time.monotonic() - again > 2.5:
        return False
    assert hung == 0
    return True


def test_a_primary_without_a_core() -> None:
    """Its loop is blocked for seconds, as by a machine that has no time for it."""

    async def main() -> None:
        async with running("plain:serve", PLAIN, ready_timeout=float(LIMIT)) as service:
            async with loaded(service) as errors:
                before = service.supervisor.stats()
                mark = service.mark()
                reload = service.supervisor.reload()
                await service.until("spawned", mark)
                time.sleep(LIMIT + 1)  # noqa: ASYNC251 (that is the fault)
                await reload
            assert errors == []
            assert service.supervisor.stats()["dispatcher_pid"] == before["dispatcher_pid"]
            told = {event["event"] for event in service.events[mark:]}
            assert not told & {"killed", "reload-failed", "errored", "dispatcher-replaced"}

    asyncio.run(main())
