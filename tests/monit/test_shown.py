"""Cells, bars and heights, without a screen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrdispatch.checks import MOST_WORKERS
from rrdispatch.monit import shown
from rrdispatch.monit.live import Counts, Follower
from rrdispatch.monit.questions import Question, question
from tests.monit.fake import app

NUMBERS = st.floats(0, 1e9)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0b"), (999, "999b"), (1 << 10, "1kb"), (32 << 20, "32mb"), (999 << 20, "999mb"),
     (1 << 30, "1.0gb"), (3 << 30, "3.0gb"), (200 << 30, "200gb")],
)  # fmt: skip
def test_bytes(count: int, text: str) -> None:
    assert shown.short_bytes(count) == text


@pytest.mark.parametrize(
    ("part", "text"), [(0, "0%"), (0.0039, "0.4%"), (0.0099, "1.0%"), (0.25, "25%"), (1, "100%")]
)
def test_percent(part: float, text: str) -> None:
    assert shown.percent(part) == text


@given(st.lists(NUMBERS, max_size=300), st.integers(-3, 200))
def test_a_sparkline_is_as_wide_as_it_may_be(values: list[float], width: int) -> None:
    line = shown.sparkline(values, width)
    assert len(line) == min(len(values), max(0, width))
    assert set(line) <= set(shown.LEVELS)
    if line and max(values[-width:]) > 0:
        assert line[values[-width:].index(max(values[-width:]))] == shown.LEVELS[-1]


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 100))
def test_a_longer_bar_is_more(one: float, other: float, width: int) -> None:
    bars = sorted([(one, shown.bar(one, width)), (other, shown.bar(other, width))])
    assert len(bars[0][1]) <= len(bars[1][1]) <= width


@given(st.integers(0, 120), st.integers(1, 300), st.integers(0, 512), st.booleans())
def test_the_parts_fill_the_screen(content: int, apps: int, workers: int, big: bool) -> None:
    parts = shown.heights(content, apps, workers, big)
    assert sum(parts) == content
    if content >= 12:
        assert min(parts[0], parts[2]) >= 3
        assert parts[1] >= 3 or big or workers == 0


@given(st.integers(-5, 600), st.integers(1, MOST_WORKERS))
def test_a_scale_stays_within_what_there_may_be(by: int, now: int) -> None:
    row = {**app("web").row, "instances": now}
    asked = question(row, None, "scale", 1 if now < MOST_WORKERS else -1)
    if isinstance(asked, Question):
        wanted = int(asked.stepped(by).words[-1])
        assert 1 <= wanted <= MOST_WORKERS


def counts(time: float, *by: int, serving: int) -> Counts:
    return Counts(time, dict(enumerate(by)), frozenset(range(serving)))


def test_the_split_begins_with_the_youngest() -> None:
    """Else each reload would look like an uneven split for a minute."""
    follower = Follower.__new__(Follower)
    follower._counts = [  # type: ignore[assignment]
        counts(0, 100, serving=1), counts(1, 200, 0, serving=1), counts(2, 300, 50, serving=2),
        counts(3, 310, 60, serving=2),
    ]  # fmt: skip
    assert follower._taken() == {0: 10, 1: 10}
