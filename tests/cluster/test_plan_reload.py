"""Reloads, good and bad, in a world without processes."""

from __future__ import annotations

from typing import Any

import pytest

from rrdispatch.cluster import actions as act
from rrdispatch.cluster import news
from rrdispatch.cluster.lifecycle import State, Wanted
from rrdispatch.cluster.view import Rules, Worker
from tests.cluster.fake import Bench, Script


def generation(number: int, script: Script) -> Any:
    """That generation behaves so, all others well."""
    return lambda spawn: script if spawn.generation == number else Script()


def test_a_reload_goes_slot_by_slot_and_never_serves_with_fewer() -> None:
    bench = Bench(4).started()
    bench.world.fewest_serving = 4
    began = bench.world.clock
    result = bench.result(bench.reload())
    assert result.failure is None
    assert bench.world.clock == pytest.approx(began + 4 * 0.5 + 3.0)
    assert [spawn.slot for spawn in bench.world.of(act.Spawn)] == [0, 1, 2, 3]
    parked = len(bench.world.of(act.Park))
    assert parked == len(bench.world.of(act.Drain)) == 4
    bench.world.run(seconds=1)
    assert bench.states() == {slot: [(2, "ready")] for slot in range(4)}
    assert bench.world.fewest_serving == 4
    assert bench.view.generation == 2


def test_a_batch_boots_slot_0_alone_and_then_several() -> None:
    bench = Bench(5).started()
    began = bench.world.clock
    bench.result(bench.reload(batch=2, probation=1.0))
    assert bench.world.clock == pytest.approx(began + 0.5 + 2 * 0.5 + 1.0)


@pytest.mark.parametrize(
    "script",
    [Script(ready=None, dies=0.3), Script(ready=None), Script(ready=0.5, dies=2.0)],
    ids=["dies at boot", "never ready", "dies in probation"],
)
def test_a_bad_generation_is_withdrawn_and_the_old_one_takes_first(script: Script) -> None:
    bench = Bench(4, Rules(ready_timeout=5.0)).started()
    bench.world.script = generation(2, script)
    bench.world.fewest_serving = 4
    result = bench.result(bench.reload())
    assert result.failure is not None
    assert not result.degraded
    bench.world.run(seconds=30)
    assert bench.states() == {slot: [(1, "ready")] for slot in range(4)}
    assert bench.world.fewest_serving is not None
    assert bench.world.fewest_serving >= 3  # but the one that died itself
    kinds = [type(a) for _, a in bench.world.log if isinstance(a, (act.Unpark, act.Drain))]
    assert kinds == sorted(kinds, key=lambda kind: kind is act.Drain)
    assert bench.view.generation == 1
    assert not bench.view.degraded


def test_a_respawn_after_a_rollback_is_of_the_old_generation_and_degraded() -> None:
    bench = Bench(2).started()
    bench.world.script = generation(2, Script(ready=None, dies=0.3))
    bench.result(bench.reload())
    bench.world.log.clear()
    bench.tell(news.Exited(bench.worker(1), "SIGKILL"))
    bench.world.run(seconds=2)
    assert [spawn.generation for spawn in bench.world.of(act.Spawn)] == [1]
    assert bench.view.degraded
    bench.world.script = lambda spawn: Script()
    assert bench.result(bench.reload()).failure is None
    assert not bench.view.degraded


def test_without_parking_the_old_one_drains_when_its_successor_is_ready() -> None:
    bench = Bench(3).started()
    bench.world.fewest_serving = 3
    result = bench.result(bench.reload(park=False))
    assert result.failure is None
    assert not bench.world.of(act.Park)
    assert bench.world.fewest_serving == 3


def test_without_parking_a_rollback_replaces_what_is_new() -> None:
    bench = Bench(3).started()

    def script(spawn: act.Spawn) -> Script:
        bad = spawn.generation == 2 and spawn.slot == 2
        return Script(ready=None, dies=0.2) if bad else Script()

    bench.world.script = script
    bench.world.fewest_serving = 3
    result = bench.result(bench.reload(park=False))
    assert result.failure is not None
    assert result.degraded
    assert bench.view.degraded
    bench.world.run(seconds=5)
    assert bench.states() == {slot: [(1, "ready")] for slot in range(3)}
    assert bench.world.fewest_serving == 3


def test_stop_first_never_has_two_in_a_slot() -> None:
    bench = Bench(3).started()
    seen: list[int] = []
    note = bench.world.note

    def watch() -> None:
        note()
        seen.append(max(len(states) for states in bench.states().values()))

    bench.world.note = watch  # type: ignore[method-assign]
    bench.world.fewest_serving = 3
    result = bench.result(bench.reload(stop_first=True, probation=1.0))
    assert result.failure is None
    assert max(seen) == 1
    assert bench.world.fewest_serving == 2


def test_stop_first_with_bad_code_goes_back_as_far_as_it_can() -> None:
    bench = Bench(2).started()
    bench.world.script = generation(2, Script(ready=None, dies=0.2))
    result = bench.result(bench.reload(stop_first=True))
    assert result.failure is not None
    assert result.degraded
    bench.world.run(seconds=5)
    assert bench.states() == {slot: [(1, "ready")] for slot in range(2)}


def test_a_reload_during_a_reload_withdraws_the_unproven_one() -> None:
    bench = Bench(3).started()
    generations: set[int] = set()
    note = bench.world.note

    def watch() -> None:
        note()
        generations.add(len({w.generation for w in bench.view.alive}))

    bench.world.note = watch  # type: ignore[method-assign]
    bench.world.fewest_serving = 3
    first = bench.reload()
    bench.world.run(seconds=1.2)
    second = bench.reload()
    failed = bench.result(first)
    assert failed.failure is not None
    assert "another reload" in failed.failure.reason
    assert bench.result(second).failure is None
    bench.world.run(seconds=5)
    assert bench.states() == {slot: [(3, "ready")] for slot in range(3)}
    assert max(generations) == 2
    assert bench.world.fewest_serving == 3


def test_of_three_reloads_the_middle_one_is_never_begun() -> None:
    bench = Bench(2).started()
    tokens = [bench.reload(), bench.reload(), bench.reload()]
    results = [bench.result(token) for token in tokens]
    assert [result.failure is None for result in results] == [False, False, True]


def test_stop_during_a_reload_is_acted_on_at_once() -> None:
    bench = Bench(3).started()
    token = bench.reload()
    bench.world.run(seconds=1.2)
    began = bench.world.clock
    bench.tell(news.StopAsked())
    assert bench.result(token).failure is not None
    bench.world.run()
    assert bench.world.clock < began + 1
    assert bench.view.finished


def test_scale_during_a_reload_is_acted_on_at_once() -> None:
    bench = Bench(2).started()
    token = bench.reload(probation=5.0)
    bench.world.run(seconds=0.7)
    bench.tell(news.ScaleAsked(4))
    bench.world.run(seconds=0.6)
    assert bench.result(token).failure is None
    bench.world.run(seconds=1)
    assert bench.states() == {slot: [(2, "ready")] for slot in range(4)}


def test_scale_down_during_a_reload() -> None:
    bench = Bench(4).started()
    token = bench.reload()
    bench.world.run(seconds=1.2)
    bench.tell(news.ScaleAsked(1))
    assert bench.result(token).failure is None
    bench.world.run(seconds=1)
    assert bench.states() == {0: [(2, "ready")]}


def test_an_old_worker_that_dies_during_a_reload_is_replaced_by_a_new_one() -> None:
    bench = Bench(4).started()
    token = bench.reload()
    bench.world.run(seconds=0.6)
    bench.tell(news.Exited(bench.worker(3, 1), "SIGKILL"))
    assert bench.result(token).failure is None
    bench.world.run(seconds=1)
    assert bench.states() == {slot: [(2, "ready")] for slot in range(4)}


def test_a_reload_brings_errored_slots_back() -> None:
    bench = Bench(2, Rules(max_restarts=1)).started()
    bench.world.script = lambda spawn: Script(ready=0.1, dies=0.2)
    bench.tell(news.Exited(bench.worker(1), "SIGKILL"))
    bench.world.run(seconds=5)
    assert bench.view.slots[1].errored
    bench.world.script = lambda spawn: Script()
    assert bench.result(bench.reload()).failure is None
    assert not bench.view.slots[1].errored


def test_a_reload_in_the_service_that_stops_is_refused() -> None:
    bench = Bench(2).started()
    bench.tell(news.StopAsked())
    assert bench.result(bench.reload()).failure is not None


def test_no_generation_starts_while_an_older_one_than_the_last_drains() -> None:
    bench = Bench(2, script=lambda spawn: Script(drains=10.0)).started()
    assert bench.result(bench.reload(probation=0.1)).failure is None
    began = bench.world.clock
    token = bench.reload(probation=0.1)
    assert bench.result(token).failure is None
    assert bench.world.clock == pytest.approx(began + 10 + 1.1, abs=0.1)


@pytest.mark.parametrize("other", [State.READY, State.STARTING])
def test_a_slot_never_has_three_generations_while_another_slot_serves(other: State) -> None:
    bench = Bench(2)
    view = bench.view
    view.operation, view.generation, view.last_worker = None, 2, 9
    view.workers = {
        1: Worker(1, 1, 1, 0.0, State.STOPPING, Wanted.GONE, asked_at=999.0),
        2: Worker(2, 1, 3, 0.0, State.STOPPING, Wanted.GONE, asked_at=999.0),
        3: Worker(3, 0, 2, 999.0, other),
    }
    bench.engine.settle()
    spawned = [spawn.slot for spawn in bench.world.of(act.Spawn)]
    assert spawned == ([] if other is State.READY else [1])
    bench.tell(news.Exited(1, "exit code 0"))
    bench.engine.settle()
    assert [spawn.slot for spawn in bench.world.of(act.Spawn)] == [1]
