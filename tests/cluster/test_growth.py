"""--max-memory-restart: whoever takes too much is replaced, one at a time, and not for ever."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rrdispatch.cluster import actions as act
from rrdispatch.cluster import memwatch, news
from rrdispatch.cluster.freeze import Freezer, thaw
from rrdispatch.cluster.growth import AT_ONCE, MOST_PAUSE
from rrdispatch.cluster.view import Rules
from tests.cluster.fake import Bench, Script
from tests.cluster.service import app, loaded, running

MIB = 1 << 20


def test_its_successor_is_ready_before_it_goes_and_no_death_is_counted() -> None:
    bench = Bench(2).started()
    bench.world.fewest_serving = 2
    old = bench.worker(1)
    bench.tell(news.Outgrown(old))
    bench.world.run(seconds=3)
    assert bench.world.fewest_serving == 2
    assert old not in bench.view.workers
    assert bench.view.slots[1].restarts == 0
    assert not bench.world.of(act.Kill)


def test_only_one_at_a_time_until_the_old_one_is_gone() -> None:
    bench = Bench(3, script=lambda spawn: Script(drains=10.0)).started()
    most = 0
    for _ in range(200):
        for worker in list(bench.view.workers.values()):
            if worker.id <= 3:
                bench.tell(news.Outgrown(worker.id))
        bench.world.run(seconds=0.25)
        most = max(most, len(bench.view.alive))
    assert most == 4, "three, and one that comes or goes"
    assert len(bench.world.of(act.Spawn)) == 3
    assert not any(worker.id <= 3 for worker in bench.view.workers.values())


def test_one_that_needs_more_than_the_limit_from_the_beginning_is_replaced_ever_more_rarely() -> (
    None
):
    bench = Bench(1).started()
    for _ in range(12 * 720):  # half a day, a look each five seconds
        bench.tell(news.Outgrown(bench.worker(0)))
        bench.world.run(seconds=5)
    times = bench.world.times(act.Spawn)
    gaps = [round(later - one) for one, later in itertools.pairwise(times)]
    assert gaps[0] >= AT_ONCE
    assert all(later >= one for one, later in itertools.pairwise(gaps))
    assert max(gaps) >= MOST_PAUSE
    assert len(times) < 60
    assert bench.states() == {0: [(1, "ready")]}


def test_a_slow_leak_is_replaced_each_time() -> None:
    bench = Bench(1).started()
    for _ in range(20):
        bench.world.run(seconds=AT_ONCE + 5)
        bench.tell(news.Outgrown(bench.worker(0)))
        bench.world.run(seconds=2)
    assert len(bench.world.of(act.Spawn)) == 20
    assert bench.view.slots[0].grows_until is None


def test_a_reload_under_way_replaces_it_and_a_new_generation_is_judged_anew() -> None:
    bench = Bench(1).started()
    for _ in range(2):
        bench.tell(news.Outgrown(bench.worker(0)))
        bench.world.run(seconds=3)
    assert bench.view.slots[0].growth_pause == AT_ONCE
    token = bench.reload(probation=1.0)
    bench.tell(news.Outgrown(bench.worker(0)))
    assert not any(worker.recycle for worker in bench.view.workers.values())
    assert bench.result(token).failure is None
    bench.world.run(seconds=1)
    before = bench.worker(0)
    bench.tell(news.Outgrown(before))
    bench.world.run(seconds=3)
    assert bench.worker(0) != before


def test_a_successor_that_never_boots_leaves_the_old_one_and_others_have_their_turn() -> None:
    bench = Bench(2, Rules(max_restarts=3)).started()
    bench.world.script = lambda s: Script(ready=None, dies=0.1) if s.slot == 0 else Script()
    first, second = bench.worker(0), bench.worker(1)
    bench.tell(news.Outgrown(first))
    bench.world.run(seconds=120)
    assert bench.view.slots[0].errored
    bench.tell(news.Outgrown(second))
    bench.world.run(seconds=5)
    assert first in bench.view.workers
    assert second not in bench.view.workers


def test_an_heir_knows_the_pause() -> None:
    bench = Bench(1).started()
    for _ in range(2):
        bench.tell(news.Outgrown(bench.worker(0)))
        bench.world.run(seconds=3)
    again = thaw(json.loads(Freezer().text(bench.view)))
    assert again.slots[0].grows_until == bench.view.slots[0].grows_until is not None


FORKED = """
import os, sys, time
page = bytearray(os.urandom(1 << 20) * 60)  # shared by all after the fork
for _ in range(3):
    if os.fork() == 0:
        break
else:
    print("ready", flush=True)
time.sleep(600)
"""


def test_what_a_worker_takes_is_of_all_that_come_from_it_and_counts_shared_pages_once() -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", FORKED], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == b"ready\n"
        family = list(memwatch.descent(program.pid))
        assert len(family) == 4
        resident = sum(map(memwatch.resident, family))
        assert resident > 4 * 60 * MIB
        assert memwatch.taken(program.pid, 10_000 * MIB) >= resident * 0.9, "cheap below the limit"
        assert 60 * MIB < memwatch.taken(program.pid, 100 * MIB) < 120 * MIB
        assert list(memwatch.descent(1 << 22)) == [1 << 22], "one that is gone"
        assert memwatch.taken(1 << 22, 1) == 0
    finally:
        os.killpg(program.pid, 9)
        program.wait()
        assert program.stdout is not None
        program.stdout.close()


GROWS = """
import os
held = []
def serve(listener):
    for connection, _ in listener:
        with connection:
            if os.path.exists("grow"):
                held.append(os.urandom(1 << 20) * 24)
            connection.sendall(b"%d %d" % (len(held), os.getpid()))
"""


def test_a_worker_that_grows_is_replaced_under_load_and_nobody_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memwatch, "EVERY", 0.2)
    limit = 300 * MIB

    async def main() -> None:
        folder = app(tmp_path, GROWS)
        async with running("app:serve", folder, max_memory_restart=limit) as service:
            before = service.pids()
            async with loaded(service) as errors:
                (folder / "grow").touch()
                told = await service.until("outgrown", replaced=True)
                (folder / "grow").unlink()
                assert told["memory"] > limit
                ready = await service.until(
                    "worker-ready", after=service.events.index(told), slot=told["slot"]
                )
                await service.until("removed", pid=told["pid"])
            assert not errors
            assert told["pid"] == before[told["slot"]]
            names = [
                (event["event"], event["pid"])
                for event in service.events
                if event.get("slot") == told["slot"]
                and event["event"] in ("worker-ready", "draining")
            ]
            assert names.index(("worker-ready", ready["pid"])) < names.index(
                ("draining", told["pid"])
            )
            (exited,) = [
                e for e in service.events if e["event"] == "exited" and e["pid"] == told["pid"]
            ]
            assert exited["how"] == "exit code 0"

    asyncio.run(main())
