"""The simulated policies do what the real ones do: picks compared with the dispatcher's, and the
stories of blocked workers told one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.sim_engine import Clock, Kind, Policy, Record, simulate
from loadtests.sim_ours import Ours, Watched
from loadtests.sim_policies import Hash, Node, Racing, Textbook
from loadtests.sim_report import settled
from loadtests.sim_work import Connection, Service, Work, constant, exponential, mixed
from rrdispatch._core.layout import Candidate
from rrdispatch._core.layout import Policy as Number
from rrdispatch.dispatch import policy as real

MS = 0.001
NUMBERS = {
    "round-robin": Number.ROUND_ROBIN,
    "strict": Number.STRICT,
    "least-connections": Number.LEAST_CONNECTIONS,
}
WAITING = st.one_of(st.just(0), st.integers(0, 12))
WORKERS = st.lists(
    st.tuples(WAITING, st.integers(0, 12), st.booleans(), st.booleans()), min_size=1, max_size=9
)


def made(name: str, states: list[tuple[int, int, bool, bool]], capacity: int) -> Ours:
    """Ours in the midst of something: waiting, open, stalled and fresh of each worker."""
    ours = Ours(name)
    workers: Any = [SimpleNamespace(index=index) for index in range(len(states))]
    clock = Clock()
    clock.now = 100.0
    ours.begin(clock, workers, Kind(capacity), Record(waits=[], connections=[]))  # type: ignore[arg-type]
    for one, (waiting, inflight, stalled, fresh) in zip(ours.all, states, strict=True):
        fill(ours, one, waiting, inflight)
        one.stalled = stalled
        one.moved_at = 100.0 if fresh else 0.0
        ours._set_room(one)
    return ours


def fill(ours: Ours, one: Watched, waiting: int, inflight: int) -> None:
    connection = Connection(0, 0, [MS], [0.0], [])
    one.queue.extend([(connection, 99.0)] * waiting)
    one.inflight = inflight
    ours.load[one.index] = waiting + inflight


@given(WORKERS, st.integers(0, 8), st.integers(0, 4), st.sampled_from(sorted(NUMBERS)))
def test_picks_are_those_of_the_dispatcher(
    states: list[tuple[int, int, bool, bool]], turn: int, capacity: int, name: str
) -> None:
    turn %= len(states)
    in_places = name == "round-robin" and capacity > 0
    candidates = [
        Candidate(
            waiting,
            inflight,
            capacity,
            not stalled and not (in_places and waiting > max(capacity - inflight, 0)),
            fresh,
        )
        for waiting, inflight, stalled, fresh in states
    ]
    loads = [one.pending + one.inflight for one in candidates if one.eligible]
    expected = real.pick(NUMBERS[name], candidates, turn, min(loads, default=0), 8)
    assert made(name, states, capacity).pick(turn, name) == expected


class Script(Work):
    """Connections at times and with demands that a test wrote down, in milliseconds."""

    @classmethod
    def of(cls, *lines: tuple[float, float]) -> Script:
        script = cls(constant(), 1.0, len(lines))
        object.__setattr__(script, "lines", lines)
        return script

    def connections(self) -> Iterator[tuple[float, Connection]]:
        lines: tuple[tuple[float, float], ...] = self.lines  # type: ignore[attr-defined]
        for number, (when, demand) in enumerate(lines):
            yield when * MS, Connection(number, number, [demand * MS], [0.0], [])


def waits(
    policy: Policy, workers: int, *lines: tuple[float, float], threads: int = 1
) -> list[float]:
    """Milliseconds that each waited."""
    record = simulate(Script.of(*lines), workers, Kind(threads), policy)
    return [round(each / MS, 6) for each in record.waits]


BLOCKED = [(0, 500), (1, 1), (2, 500), (3, 1), (20, 1), (30, 1)]


def test_textbook_turn_waits_for_who_is_blocked() -> None:
    assert waits(Textbook(), 2, *BLOCKED) == [0, 0, 498, 0, 980, 0]


@pytest.mark.parametrize("name", ["strict", "least-connections", "round-robin"])
def test_ours_moves_after_stall_timeout(name: str) -> None:
    """Two of three are blocked: what `strict` gives to them is moved, once each."""
    ours = Ours(name)
    lines = [(0, 500), (1, 500), (2, 1), (10, 1), (40, 1), (60, 1)]
    found = waits(ours, 3, *lines)
    assert max(found) == pytest.approx(10 if name == "strict" else 0)
    assert ours.record.moved == (2 if name == "strict" else 0)
    # Passed over until it takes the probe that lies in its place, and at the end it has.
    assert not any(one.stalled or one.probing for one in ours.all)


def test_a_stalled_worker_gets_nothing_until_it_takes() -> None:
    ours = Ours("strict")
    lines = [(0.0, 300.0), *((5.0 + 20 * i, 1.0) for i in range(30))]
    simulate(Script.of(*lines), 2, Kind(), ours)
    # In turn until it is stalled at 36 ms, then none; from 300 ms on in turn again.
    first, second = ours.record.connections
    assert ours.record.moved == 1
    assert first + second == len(lines)
    assert 8 <= first <= 11


def test_stuck_while_all_are_busy() -> None:
    """No queue is ever empty: what waits for a worker that takes nothing is moved all the same."""
    burst = [(0.0, 20_000.0), *[(1.0, 10.0)] * 15]
    lines = [*burst, *((5.0 + 5 * i, 10.0) for i in range(1000))]
    found = waits(Ours("round-robin", stall_timeout=0.1), 3, *lines)
    assert 2_000 < max(found) < 3_000  # 20 times stall_timeout, and a queue
    assert max(waits(Textbook(), 3, *lines)) > 15_000


def test_node_leaves_one_with_who_is_blocked() -> None:
    lines = [(0.0, 500.0), *((1.0 + 2 * i, 1.0) for i in range(100))]
    found = waits(Node(), 4, *lines)
    assert sum(wait > 100 for wait in found) == 1


def test_racing_leaves_nothing_with_who_is_blocked() -> None:
    lines = [(0.0, 500.0), *((1.0 + 2 * i, 1.0) for i in range(100))]
    assert max(waits(Racing(), 4, *lines)) == 0


def test_greedy_event_loop_keeps_what_it_took() -> None:
    """It accepted all that waited, and then one blocks: the other worker cannot have them."""
    lines = [(0.0, 10.0), (0.0, 10.0), (1.0, 100.0), (2.0, 1.0), (3.0, 1.0), (4.0, 1.0)]
    racing = waits(Racing(), 2, *lines, threads=0)
    ours = waits(Ours("least-connections"), 2, *lines, threads=0)
    assert sum(wait > 50 for wait in racing) == 3
    assert sum(wait > 50 for wait in ours) == 1  # that it had in hand


@pytest.mark.parametrize("name", list(NUMBERS))
def test_all_queues_full(name: str) -> None:
    """The backlog holds the rest, and in the end all are answered."""
    lines = [(0.0, 1.0)] * 500
    ours = Ours(name, queue_limit=2)
    found = waits(ours, 4, *lines)
    assert sum(ours.record.connections) == 500
    assert not ours.backlog
    assert 500 / 4 - 1 <= max(found) < 300


EVEN = Work(constant(0.1 * MS), rate=100.0, count=1000, seed=5)


@pytest.mark.parametrize("name", list(NUMBERS))
@pytest.mark.parametrize("threads", [0, 1, 8])
def test_even_split_when_all_keep_up(name: str, threads: int) -> None:
    record = simulate(EVEN, 4, Kind(threads), Ours(name))
    assert max(record.connections) - min(record.connections) <= (0 if name == "strict" else 30)


def test_bias_decides_the_split_of_racing() -> None:
    first = simulate(EVEN, 4, Kind(), Racing(bias=1.0)).connections
    longest = simulate(EVEN, 4, Kind(), Racing(bias=0.0)).connections
    assert first[0] > 900
    assert max(longest) - min(longest) <= 30


def test_few_sources_stay_with_their_worker() -> None:
    work = Work(constant(), rate=100.0, count=500, sources=1)
    assert sorted(simulate(work, 4, Kind(), Hash()).connections) == [0, 0, 0, 500]


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("policy", [Ours("round-robin"), Racing(), Node(), Textbook()])
def test_keep_alive_answers_every_request(policy: Policy, threads: int) -> None:
    work = Work(exponential(), rate=200.0, count=300, keep=7, pause=5 * MS, awaits=3 * MS)
    record = simulate(work, 4, Kind(threads), policy)
    assert sum(record.connections) == 300
    assert len(record.waits) == 2100
    assert 0 < sum(record.waits) / 2100 < 50 * MS
    if isinstance(policy, Ours):
        assert [one.inflight for one in policy.all] == [0] * 4
        assert policy.load == [0] * 4


def mean_wait(policy: Policy, service: Service, load: float) -> float:
    work = Work.at_load(service, load, 4, 20_000, seed=11)
    found = settled(simulate(work, 4, Kind(), policy))
    return sum(found) / len(found)


@pytest.mark.parametrize("name", list(NUMBERS))
def test_ours_lies_between_the_ideal_and_the_turn(name: str) -> None:
    """The same arrivals for all: nobody can beat one queue for all by more than its order."""
    ideal, turn = (mean_wait(each, mixed(), 0.5) for each in (Racing(), Textbook()))
    assert ideal * 0.95 < mean_wait(Ours(name), mixed(), 0.5) < turn / 5


def test_the_same_seed_gives_the_same_run() -> None:
    work = Work.at_load(mixed(), 0.6, 4, 2000)
    assert simulate(work, 4, Kind(), Ours("strict")) == simulate(work, 4, Kind(), Ours("strict"))
