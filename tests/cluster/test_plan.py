"""Decisions of the primary in a world without processes."""

from __future__ import annotations

import itertools
import time

import pytest

from rrdispatch.cluster import actions as act
from rrdispatch.cluster import news
from rrdispatch.cluster.lifecycle import TABLE, LifecycleError, State, Trigger, step
from rrdispatch.cluster.plan import GATHERING, plan
from rrdispatch.cluster.supervisor import rules_of
from rrdispatch.cluster.view import Failure, Rules
from rrdispatch.settings import Settings
from tests.cluster.fake import Bench, Script, index


def test_an_absent_pair_raises() -> None:
    for state in State:
        for trigger in Trigger:
            if (state, trigger) not in TABLE:
                with pytest.raises(LifecycleError, match=state.value):
                    step(state, trigger)


def test_start_boots_one_worker_alone_and_then_the_rest() -> None:
    bench = Bench(4)
    bench.engine.settle()
    assert [spawn.slot for spawn in bench.world.of(act.Spawn)] == [0]
    bench.world.run(until=lambda: bool(bench.world.finishes("start")))
    spawned = bench.world.of(act.Spawn)
    assert [spawn.slot for spawn in spawned] == [0, 1, 2, 3]
    assert bench.world.finishes("start")[0].failure is None
    assert bench.states() == {slot: [(1, "ready")] for slot in range(4)}


def test_a_start_that_fails_asks_for_a_second_opinion_and_ends() -> None:
    bench = Bench(4, script=lambda spawn: Script(ready=None, dies=0.2))
    bench.world.run()
    assert [spawn.slot for spawn in bench.world.of(act.Spawn)] == [0, 1]
    (failed,) = bench.world.finishes("start")
    assert failed.failure is not None
    assert failed.failure.reason == "exit code 1 before it was ready"
    assert bench.world.finishes("stop")[0].failure is not None
    assert bench.view.finished


def test_a_start_in_silence_ends_with_ready_timeout() -> None:
    """A second opinion would take as long again. Who is killed is not replaced before its end."""
    script = Script(ready=None, killed=0.5)
    bench = Bench(4, Rules(ready_timeout=60.0), script=lambda spawn: script)
    began = bench.world.clock
    bench.world.run(until=lambda: bool(bench.world.finishes("start")))
    assert bench.world.clock == pytest.approx(began + 60.5)
    assert [spawn.slot for spawn in bench.world.of(act.Spawn)] == [0]
    (failed,) = bench.world.finishes("start")
    assert failed.failure is not None
    assert failed.failure.reason == "not ready within 60 s"


def test_one_worker_that_cannot_boot_stops_nobody() -> None:
    bench = Bench(3, script=lambda s: Script(ready=None, dies=0.1) if s.slot == 0 else Script())
    bench.world.run(seconds=20)
    assert bench.world.finishes("start")[0].failure is None
    assert bench.states()[1] == bench.states()[2] == [(1, "ready")]
    assert not bench.view.finished


def test_respawn_comes_a_tenth_of_a_second_later() -> None:
    bench = Bench(2).started()
    bench.tell(news.Exited(bench.worker(1), "SIGKILL"))
    died = bench.world.clock
    bench.world.run(seconds=5)
    assert bench.world.times(act.Spawn) == [pytest.approx(died + 0.1)]
    assert bench.view.slots[1].restarts == 1


def test_the_delay_doubles_only_for_deaths_before_ready() -> None:
    rules = Rules(max_restarts=0)
    bench = Bench(2, rules).started()
    bench.world.script = lambda spawn: Script(ready=None, dies=0.0)
    bench.tell(news.Exited(bench.worker(1), "SIGKILL"))
    bench.world.run(seconds=200)
    times = bench.world.times(act.Spawn)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert gaps[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8], rel=0.21)
    assert max(gaps) <= 30
    assert max(gaps) >= 24


def test_the_delay_never_grows_while_nobody_serves() -> None:
    bench = Bench(1, Rules(max_restarts=0)).started()
    bench.world.script = lambda spawn: Script(ready=None, dies=0.0)
    bench.tell(news.Exited(bench.worker(0), "SIGKILL"))
    bench.world.run(seconds=10)
    assert 95 <= len(bench.world.of(act.Spawn)) <= 101


def test_a_slot_that_dies_too_often_is_errored_and_the_others_serve() -> None:
    bench = Bench(2).started()
    bench.world.script = lambda spawn: Script(ready=0.1, dies=0.2)
    bench.tell(news.Exited(bench.worker(1), "SIGKILL"))
    bench.world.run(seconds=300)
    assert bench.view.slots[1].errored
    assert len(bench.world.of(act.Spawn)) == 16
    assert bench.states() == {0: [(1, "ready")]}
    assert not bench.view.finished


def test_when_every_slot_is_errored_the_service_ends_with_the_reason() -> None:
    bench = Bench(2, Rules(max_restarts=3)).started()
    bench.world.script = lambda spawn: Script(ready=0.1, dies=0.2)
    bench.tell(news.Exited(bench.worker(0), "SIGSEGV"))
    bench.tell(news.Exited(bench.worker(1), "SIGSEGV"))
    bench.world.run()
    (failed,) = bench.world.finishes("service")
    assert failed.failure is not None
    assert "more than 3 times" in failed.failure.reason
    assert bench.view.finished


def test_what_cannot_be_started_is_tried_for_ever_and_the_service_does_not_end() -> None:
    """Without descriptors or processes for half an hour, and all workers dead."""
    bench = Bench(2, Rules(max_restarts=3)).started()
    short = True

    def script(spawn: act.Spawn) -> Script:
        if short:
            bench.tell(news.Exited(spawn.worker, "not started", short=True))
        return Script()

    bench.world.script = script
    for slot in range(2):
        bench.tell(news.Exited(bench.worker(slot), "SIGKILL"))
    bench.world.run(seconds=1800)
    assert not bench.view.finished
    assert not any(slot.errored for slot in bench.view.slots.values())
    assert len(bench.world.of(act.Spawn)) < 2 * 1800 / 0.75
    short = False
    bench.world.run(seconds=3)
    assert bench.states() == {slot: [(1, "ready")] for slot in range(2)}


def test_what_could_not_be_started_is_there_a_second_after_there_is_room() -> None:
    """While another serves, too: after half an hour of tries they are not further apart."""
    bench = Bench(2).started()
    short = True

    def script(spawn: act.Spawn) -> Script:
        if short:
            bench.tell(news.Exited(spawn.worker, "not started", short=True))
        return Script()

    bench.world.script = script
    bench.tell(news.Exited(bench.worker(1), "SIGKILL"))
    bench.world.run(seconds=1800)
    short = False
    bench.world.run(seconds=2)
    assert bench.states() == {slot: [(1, "ready")] for slot in range(2)}


def test_recycle_replaces_a_worker_only_when_its_successor_is_ready() -> None:
    bench = Bench(2).started()
    bench.world.fewest_serving = 2
    old = bench.worker(1)
    bench.tell(news.Recycle(old))
    bench.world.run(seconds=3)
    assert bench.world.fewest_serving == 2
    assert old not in bench.view.workers
    assert bench.states()[1] == [(1, "ready")]
    assert bench.view.slots[1].restarts == 0


def test_a_hung_worker_is_killed_and_respawned() -> None:
    bench = Bench(2).started()
    bench.tell(news.Hung(bench.worker(0)))
    bench.world.run(seconds=2)
    assert len(bench.world.of(act.Kill)) == 1
    assert bench.states()[0] == [(1, "ready")]
    assert "hung" in (bench.view.slots[0].last_failure or news.StopAsked()).reason  # type: ignore[union-attr]


def test_silence_until_ready_timeout_is_failure() -> None:
    bench = Bench(1, Rules(ready_timeout=2.0), script=lambda spawn: Script(ready=None))
    bench.world.run()
    (failed,) = bench.world.finishes("start")
    assert failed.failure is not None
    assert failed.failure.reason == "not ready within 2 s"


def test_without_listeners_ready_means_alive_for_min_uptime() -> None:
    bench = Bench(2, Rules(listen=False, min_uptime=1.5), script=lambda spawn: Script(ready=None))
    began = bench.world.clock
    bench.world.run(until=lambda: bool(bench.world.finishes("start")))
    assert bench.world.clock == pytest.approx(began + 3.0)
    bench.tell(news.StopAsked())
    bench.world.run()
    assert not bench.world.of(act.CloseListeners)
    assert bench.view.finished


def test_the_uptime_of_an_app_begins_when_it_is_imported() -> None:
    rules = Rules(listen=False, loads=True, min_uptime=1.5)
    bench = Bench(1, rules, script=lambda spawn: Script(ready=None, loaded=20.0))
    began = bench.world.clock
    bench.world.run(until=lambda: bool(bench.world.finishes("start")))
    assert bench.world.finishes("start")[0].failure is None
    assert bench.world.clock == pytest.approx(began + 21.5)


def test_an_import_without_end_is_a_start_that_failed() -> None:
    rules = Rules(listen=False, loads=True, min_uptime=1.5, ready_timeout=20.0)
    bench = Bench(1, rules, script=lambda spawn: Script(ready=None))
    bench.world.run()
    (failed,) = bench.world.finishes("start")
    assert failed.failure is not None
    assert failed.failure.reason == "not ready within 20 s: its app was still being imported"


@pytest.mark.parametrize(
    ("settings", "loaded", "why"),
    [
        (Settings(target="app:app"), None, "its app was still being imported"),
        (Settings(target="app:app"), 0.1, "its app was imported, but does not take connections"),
        (Settings(target="app:app", wait_ready=True), None, "its app was still being imported"),
        (Settings(target="app:app", wait_ready=True), 0.1, "it never called rrdispatch.ready()"),
        (Settings(target="./server", wait_ready=True), None, "it never said READY=1"),
    ],
)
def test_who_is_not_ready_in_time_is_told_what_is_missing(
    settings: Settings, loaded: float | None, why: str
) -> None:
    bench = Bench(1, rules_of(settings, 2), script=lambda spawn: Script(ready=None, loaded=loaded))
    bench.world.run()
    (failed,) = bench.world.finishes("start")
    assert failed.failure is not None
    assert failed.failure.reason.startswith(f"not ready within 60 s: {why}")


def test_a_worker_that_leaves_by_itself_gets_no_signal_and_a_successor() -> None:
    bench = Bench(2).started()
    leaver = bench.worker(1)
    bench.tell(news.Leaves(leaver))
    bench.world.run(seconds=1)
    (asked,) = bench.world.of(act.AskToStop)
    assert asked == act.AskToStop(leaver, signal=False)
    assert bench.states()[1] == [(1, "ready")]


def test_scale_adds_and_takes_away_the_highest_slots() -> None:
    bench = Bench(2).started()
    bench.tell(news.ScaleAsked(4))
    bench.world.run(seconds=2)
    assert sorted(bench.states()) == [0, 1, 2, 3]
    bench.tell(news.ScaleAsked(1))
    bench.world.run(seconds=2)
    assert bench.states() == {0: [(1, "ready")]}


def test_a_drain_is_asked_of_the_dispatcher_before_the_worker() -> None:
    bench = Bench(2).started()
    bench.tell(news.ScaleAsked(1))
    bench.world.run(seconds=2)
    kinds = [type(action) for action in bench.world.of(act.Drain, act.AskToStop, act.Remove)]
    assert kinds == [act.Drain, act.AskToStop, act.Remove]


def test_a_drain_is_bounded() -> None:
    stuck = Script(queue=float("inf"), drains=float("inf"))
    bench = Bench(2, Rules(drain_timeout=10.0), script=lambda spawn: stuck).started()
    began = bench.world.clock
    bench.tell(news.ScaleAsked(1))
    bench.world.run(seconds=30)
    assert bench.world.times(act.AskToStop) == [pytest.approx(began + 8)]
    assert bench.world.times(act.Kill) == [pytest.approx(began + 10)]
    (kill,) = bench.world.of(act.Kill)
    assert (kill.fault, kill.late) == ("", "not ended within drain_timeout (10 s)")


def test_the_final_stop_closes_the_listeners_before_it_drains() -> None:
    bench = Bench(3, Rules(shutdown_delay=2.0)).started()
    began = bench.world.clock
    bench.tell(news.StopAsked())
    bench.world.run()
    assert bench.world.times(act.CloseListeners) == [pytest.approx(began + 2)]
    kinds = [type(a) for a in bench.world.of(act.Park, act.Drain)]
    assert kinds == [act.Park] * 3 + [act.Drain] * 3
    done = bench.world.of(act.CloseListeners, act.Drain, act.AskToStop)
    assert index(done, act.CloseListeners) < index(done, act.Drain)
    assert bench.world.times(act.Drain)[0] == pytest.approx(began + 2.1)
    assert bench.world.finishes("stop")[0].failure is None
    assert not bench.world.of(act.Spawn)


def test_the_final_stop_as_a_whole_is_bounded_by_drain_timeout() -> None:
    stuck = Script(queue=float("inf"), drains=float("inf"))
    rules = Rules(drain_timeout=10.0)
    bench = Bench(3, rules, script=lambda spawn: stuck, closes_in=6.0).started()
    began = bench.world.clock
    bench.tell(news.StopAsked())
    bench.world.run()
    assert bench.world.clock == pytest.approx(began + 10, abs=0.1)


def test_a_stop_ends_also_if_nobody_says_that_the_listeners_are_closed() -> None:
    bench = Bench(3, Rules(drain_timeout=10.0), closes_in=float("inf")).started()
    began = bench.world.clock
    bench.tell(news.StopAsked())
    bench.world.run()
    assert bench.view.finished
    assert bench.world.times(act.Drain)[0] == pytest.approx(began + 7)


def test_a_failure_during_the_stop_is_its_result_and_nobody_waits_for_listeners() -> None:
    bench = Bench(2, closes_in=float("inf")).started()
    began = bench.world.clock
    bench.tell(news.StopAsked())
    bench.world.run(seconds=1)
    bench.tell(news.StopAsked(Failure("the dispatcher cannot live")))
    bench.world.run()
    assert bench.world.clock < began + 2
    (finish,) = bench.world.finishes("stop")
    assert finish.failure == Failure("the dispatcher cannot live")


def test_kill_ends_everything_now() -> None:
    bench = Bench(3).started()
    began = bench.world.clock
    bench.tell(news.StopAsked())
    bench.tell(news.KillAsked())
    bench.world.run()
    assert bench.world.clock < began + 0.1
    assert len(bench.world.of(act.Kill)) == 3


def test_a_stop_during_the_start_ends_it() -> None:
    bench = Bench(3)
    bench.engine.settle()
    bench.tell(news.StopAsked())
    bench.world.run()
    assert bench.world.finishes("start")[0].failure is not None
    assert bench.view.finished


def test_so_many_boot_at_once_and_no_more() -> None:
    bench = Bench(50, Rules(boot_at_once=4))
    most = 0
    note = bench.world.note

    def watch() -> None:
        nonlocal most
        note()
        booting = [w for w in bench.view.workers.values() if w.state is State.STARTING]
        most = max(most, sum(not worker.said_ready for worker in booting))

    bench.world.note = watch  # type: ignore[method-assign]
    bench.world.run(until=lambda: bool(bench.world.finishes("start")))
    assert most == 4
    assert len(bench.view.serving) == 50


def test_a_plan_for_256_slots_is_quick() -> None:
    bench = Bench(256).started()
    took = []
    for _ in range(20):
        began = time.process_time()
        plan(bench.view, bench.world.clock)
        took.append(time.process_time() - began)
    assert min(took) < 0.02  # the one that others disturbed least


def test_the_turn_begins_with_all_workers() -> None:
    bench = Bench(4, script=lambda spawn: Script(ready=0.5 + spawn.slot / 10))
    bench.world.run(until=lambda: bool(bench.world.finishes("start")))
    assert len(set(bench.world.times(act.MakeReady))) == 1


def test_a_slow_worker_does_not_keep_the_first_from_serving() -> None:
    bench = Bench(4, script=lambda spawn: Script(ready=30.0 if spawn.slot == 3 else 0.5))
    bench.world.run(until=lambda: bool(bench.world.finishes("start")))
    first, *_, last = bench.world.times(act.MakeReady)
    assert first == pytest.approx(1000.0 + 0.5 + GATHERING)
    assert last == pytest.approx(1000.0 + 0.5 + 30.0)


def test_a_worker_that_fails_at_the_start_is_not_waited_for() -> None:
    bench = Bench(2, script=lambda s: Script(ready=None, dies=0.1) if s.slot else Script())
    bench.world.run(until=lambda: bool(bench.world.finishes("start")))
    assert bench.world.times(act.MakeReady) == [pytest.approx(1000.6)]
