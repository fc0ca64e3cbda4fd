"""The table of a worker's states, under any sequence of triggers."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from rrdispatch.cluster.lifecycle import ALIVE, LIVE, TABLE, LifecycleError, State, Trigger
from rrdispatch.cluster.view import Worker
from tests.cluster.outside import counted


class Life(RuleBasedStateMachine):
    """One worker under any sequence of triggers: the table alone decides."""

    def __init__(self) -> None:
        super().__init__()
        self.worker = Worker(1, 0, 1, 0.0)
        self.path = [State.STARTING]

    @rule(trigger=st.sampled_from(Trigger))
    def pull(self, trigger: Trigger) -> None:
        before = self.worker.state
        try:
            self.worker.move(trigger)
        except LifecycleError:
            assert (before, trigger) not in TABLE
            assert self.worker.state is before
        else:
            self.path.append(self.worker.state)

    @invariant()
    def as_it_should_be(self) -> None:
        counted["life"] += 1
        state, path = self.worker.state, self.path
        gone = {State.DRAINING, State.STOPPING, State.KILLED, State.DEAD, State.GONE}
        first = next((n for n, each in enumerate(path) if each in gone), len(path))
        assert not gone.isdisjoint(path[first:]) or first == len(path)
        assert set(path[first:]) <= gone, "who was let go serves again"
        assert State.PARKED not in path or State.READY in path[: path.index(State.PARKED)]
        assert path.count(State.DEAD) <= 1
        assert State.GONE not in path or State.DEAD in path
        assert (state in ALIVE) == (State.DEAD not in path)
        assert (state in LIVE) == (first == len(path))

    @invariant()
    def whatever_lives_can_end(self) -> None:
        state = self.worker.state
        if state in ALIVE:
            assert TABLE[state, Trigger.EXIT] is State.DEAD
            assert state is State.KILLED or TABLE[state, Trigger.KILL] is State.KILLED
        else:
            assert [key for key in TABLE if key[0] is state] == (
                [(State.DEAD, Trigger.REMOVE)] if state is State.DEAD else []
            )


def test_any_life_of_a_worker() -> None:
    counted.clear()
    run_state_machine_as_test(
        Life, settings=settings(max_examples=200, stateful_step_count=30, derandomize=True)
    )
    assert counted["life"] >= 5000
