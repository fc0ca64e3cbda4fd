"""The policies in C and in Python give what the words say, over random workers."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrdispatch import _core
from rrdispatch._core.layout import Candidate, Policy
from rrdispatch.dispatch import policy

Pick = Callable[[int, Sequence[Candidate], int, int, int], int]

PICKS: dict[str, Pick] = {"python": policy.pick}
if _core.NATIVE:
    PICKS["c"] = importlib.import_module("rrdispatch._core.native").pick

SMALL = st.integers(0, 12)
CANDIDATES = st.lists(
    st.builds(
        Candidate,
        pending=st.one_of(st.just(0), SMALL),
        inflight=SMALL,
        capacity=st.one_of(st.just(0), st.integers(1, 6)),
        eligible=st.booleans(),
        fresh=st.booleans(),
    ),
    max_size=9,
)


def fewest_of(candidates: Sequence[Candidate]) -> int:
    return min((one.pending + one.inflight for one in candidates if one.eligible), default=0)


def first(order: Sequence[int], condition: Callable[[int], bool]) -> int:
    return next((index for index in order if condition(index)), -1)


def said(policy: int, candidates: Sequence[Candidate], turn: int, fewest: int, band: int) -> int:
    """The documented words, one after another, without any cleverness."""
    count = len(candidates)
    turn = turn if 0 <= turn < count else 0
    order = [(turn + step) % count for step in range(count)]
    order = [index for index in order if candidates[index].eligible]
    if not order:
        return -1
    if policy == Policy.STRICT:
        return order[0]
    if policy == Policy.LEAST_CONNECTIONS:
        return min(order, key=lambda i: candidates[i].pending + candidates[i].inflight)

    def load(index: int) -> int:
        return candidates[index].pending + candidates[index].inflight

    empty = [index for index in order if candidates[index].pending == 0]
    moving = [index for index in order if index in empty or candidates[index].fresh]
    near = [index for index in moving if load(index) <= fewest + band]
    for choice in (
        first(near, lambda i: not candidates[i].capacity or load(i) < candidates[i].capacity),
        first(near, lambda i: i in empty and candidates[i].fresh),
        first(near, lambda i: i not in empty),
        first(near, lambda _: True),
        first(empty, lambda _: True),
    ):
        if choice >= 0:
            return choice
    return min(set(order) - set(empty), key=lambda i: (candidates[i].pending, order.index(i)))


@pytest.mark.parametrize("name", PICKS)
@pytest.mark.parametrize("which", list(Policy))
@given(candidates=CANDIDATES, turn=st.integers(-1, 10), band=st.integers(0, 8))
def test_a_pick_is_what_the_words_say(name, which, candidates, turn, band):
    fewest = fewest_of(candidates)
    picked = PICKS[name](which, candidates, turn, fewest, band)
    assert picked == said(which, candidates, turn, fewest, band)


@pytest.mark.parametrize("name", PICKS)
@pytest.mark.parametrize("which", list(Policy))
@given(candidates=CANDIDATES, turn=st.integers(0, 8))
def test_only_the_eligible_are_picked(name, which, candidates, turn):
    picked = PICKS[name](which, candidates, turn, fewest_of(candidates), 8)
    eligible = [index for index, one in enumerate(candidates) if one.eligible]
    assert picked in eligible if eligible else picked == -1


@pytest.mark.parametrize("name", PICKS)
def test_the_largest_numbers_do_not_overflow(name):
    most = (1 << 32) - 1
    full = Candidate(pending=most, inflight=most, capacity=most, eligible=True)
    idle = Candidate(eligible=True)
    for which in Policy:
        assert PICKS[name](which, [full], 0, most, most) == 0
    assert PICKS[name](Policy.LEAST_CONNECTIONS, [full, idle], 0, 0, most) == 1
    assert PICKS[name](Policy.ROUND_ROBIN, [full, idle], 0, 0, most) == 1


@pytest.mark.parametrize("name", PICKS)
@pytest.mark.parametrize("which", list(Policy))
def test_nobody_is_nobody(name, which):
    assert PICKS[name](which, [], 0, 0, 8) == -1
