"""--no-autorestart, --stop-exit-codes: who is replaced, and what becomes of the service."""

from __future__ import annotations

import json

import pytest

from rrdispatch.cluster import actions as act
from rrdispatch.cluster import news
from rrdispatch.cluster.ends import exit_code
from rrdispatch.cluster.freeze import Freezer, thaw
from rrdispatch.cluster.report import state_of
from rrdispatch.cluster.view import Finish, Rules
from tests.cluster.fake import Bench, Script

NEVER = Rules(autorestart=False)


def ended(bench: Bench) -> list[Finish]:
    return bench.world.finishes("ended")


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("exit code 3", 3), ("exit code 0", 0), ("exit code unknown", None),
        ("killed by SIGTERM", None), ("not started", None), ("3", None),
    ],
)  # fmt: skip
def test_the_code_of_an_end(how: str, code: int | None) -> None:
    assert exit_code(how) == code


def test_a_worker_that_ends_is_not_replaced_and_the_others_serve_on() -> None:
    bench = Bench(2, NEVER).started()
    bench.tell(news.Exited(bench.worker(1), "exit code 1"))
    bench.world.run(seconds=600)
    assert not bench.world.of(act.Spawn)
    assert bench.states() == {0: [(1, "ready")]}
    assert state_of(bench.view) == "serving"
    assert not bench.view.finished


@pytest.mark.parametrize(
    ("how", "replaced"),
    [("exit code 0", 0), ("exit code 3", 0), ("exit code 1", 1), ("killed by SIGKILL", 1)],
)
def test_only_the_named_exit_codes_are_not_replaced(how: str, replaced: int) -> None:
    bench = Bench(2, Rules(stop_exit_codes=(0, 3))).started()
    bench.tell(news.Exited(bench.worker(1), how))
    bench.world.run(seconds=60)
    assert len(bench.world.of(act.Spawn)) == replaced
    assert bench.view.slots[1].ended is not bool(replaced)


@pytest.mark.parametrize("how", ["exit code 0", "exit code 3"])
def test_when_all_have_ended_well_the_service_ends_without_a_failure(how: str) -> None:
    bench = Bench(2, Rules(autorestart=False, stop_exit_codes=(3,))).started()
    for slot in range(2):
        bench.tell(news.Exited(bench.worker(slot), how))
    bench.world.run()
    assert ended(bench) == [Finish("ended")]
    assert bench.world.finishes("stop") == [Finish("stop")]
    assert bench.view.finished


def test_one_that_ended_badly_is_the_reason_of_the_end() -> None:
    bench = Bench(2, NEVER).started()
    bench.tell(news.Exited(bench.worker(1), "exit code 7"))
    bench.tell(news.Exited(bench.worker(0), "exit code 0"))
    bench.world.run()
    (finish,) = ended(bench)
    assert finish.failure is not None
    assert "worker 1: exit code 7" in finish.failure.reason
    assert bench.world.finishes("stop")[0].failure is not None


def test_a_job_that_is_done_before_min_uptime_has_started_well() -> None:
    rules = Rules(autorestart=False, listen=False, min_uptime=5.0)
    bench = Bench(3, rules, script=lambda spawn: Script(ready=None))
    bench.engine.settle()
    for _ in range(3):
        alive = bench.view.alive
        assert alive, "each slot has its turn"
        bench.tell(news.Exited(alive[0].id, "exit code 0"))
    bench.world.run()
    assert bench.world.finishes("start") == [Finish("start")]
    assert ended(bench) == [Finish("ended")]
    assert len(bench.world.of(act.Spawn)) == 3


def test_a_server_that_ends_before_it_is_ready_is_a_failed_start_whatever_its_code() -> None:
    bench = Bench(1, NEVER, script=lambda spawn: Script(ready=None))
    bench.engine.settle()
    bench.tell(news.Exited(bench.worker(0), "exit code 0"))
    bench.world.run()
    assert bench.world.finishes("start")[0].failure is not None


def test_a_worker_that_leaves_by_itself_is_replaced_as_its_exit_code_says() -> None:
    for how, replaced in (("exit code 0", 0), ("exit code 1", 1)):
        bench = Bench(2, Rules(stop_exit_codes=(0,))).started()
        leaving = bench.worker(1)
        bench.world.scripts[leaving].drains = float("inf")
        bench.tell(news.Leaves(leaving))
        bench.world.run(seconds=3)
        assert not bench.world.of(act.Spawn), "nobody knows yet"
        bench.tell(news.Exited(leaving, how))
        bench.world.run(seconds=60)
        assert len(bench.world.of(act.Spawn)) == replaced


def test_a_reload_starts_ended_ones_again() -> None:
    bench = Bench(2, NEVER).started()
    bench.tell(news.Exited(bench.worker(1), "exit code 0"))
    bench.world.run(seconds=5)
    assert bench.result(bench.reload(probation=0.5)).failure is None
    bench.world.run(seconds=5)
    assert bench.states() == {0: [(2, "ready")], 1: [(2, "ready")]}
    bench.tell(news.Exited(bench.worker(1), "exit code 0"))
    bench.world.run(seconds=60)
    assert bench.states() == {0: [(2, "ready")]}


def test_an_old_worker_that_ends_in_a_reload_does_not_close_its_successors_place() -> None:
    bench = Bench(2, NEVER).started()
    token = bench.reload(probation=5.0)
    bench.world.run(seconds=2)
    old = next(w.id for w in bench.view.of_slot(0) if w.generation == 1)
    bench.tell(news.Exited(old, "exit code 0"))
    assert bench.result(token).failure is None
    assert bench.states()[0] == [(2, "ready")]
    assert not bench.view.slots[0].ended


def test_a_reload_that_fails_without_parking_fills_the_places_again() -> None:
    bench = Bench(2, NEVER).started()
    bench.world.script = lambda s: Script() if s.generation == 1 or s.slot == 0 else Script(None)
    token = bench.reload(park=False)
    bench.world.run(until=lambda: len(bench.view.of_slot(1)) == 2)
    bench.tell(news.Exited(bench.worker(1, 2), "exit code 0"))
    assert bench.result(token).failure is not None
    bench.world.run(seconds=60)
    assert bench.states() == {0: [(1, "ready")], 1: [(1, "ready")]}


def test_who_waits_for_a_clock_or_a_changed_file_stays_and_starts_again() -> None:
    rules = Rules(autorestart=False, listen=False, awaits=True)
    bench = Bench(2, rules, script=lambda spawn: Script(ready=None)).started()
    for slot in range(2):
        bench.tell(news.Exited(bench.worker(slot), "exit code 0"))
    bench.world.run(seconds=3600)
    assert not bench.view.finished
    assert state_of(bench.view) == "ended"
    token = bench.reload(probation=0.0)
    for _ in range(2):
        bench.world.run(seconds=0.1)
        bench.tell(news.Exited(bench.view.alive[0].id, "exit code 0"))
    assert bench.result(token).failure is None, "done before min_uptime is as good as ready"
    assert state_of(bench.view) == "ended"
    assert len(bench.world.of(act.Spawn)) == 2, "each once"


def test_an_heir_knows_what_has_ended() -> None:
    bench = Bench(2, Rules(autorestart=False, stop_exit_codes=(0, 3))).started()
    bench.tell(news.Exited(bench.worker(1), "exit code 3"))
    again = thaw(json.loads(Freezer().text(bench.view)))
    assert again.rules == bench.view.rules
    assert again.slots[1].ended
