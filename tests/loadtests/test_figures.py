"""The statistics of the comparison, by numbers that one can check by hand."""

from __future__ import annotations

import math

import pytest

from loadtests import figures
from tests.harness.records import REFUSED, TIMEOUT, Record


def record(pid: int = 1, ms: float = 1.0, outcome: str = "ok", start_s: float = 0.0) -> Record:
    begin = int(start_s * 1e9)
    return Record(0, 0, outcome, begin, ended=begin + int(ms * 1e6), pid=pid)


@pytest.mark.parametrize(
    ("counts", "ratio", "variation"),
    [
        ([100, 100, 100, 100], 1.0, 0.0),
        ([2, 4], 2.0, 1 / 3),
        ([0, 10], math.inf, 1.0),
    ],
)
def test_evenness(counts: list[int], ratio: float, variation: float) -> None:
    assert figures.even(counts) == pytest.approx((ratio, variation))


def test_evenness_of_nothing_is_not_a_number() -> None:
    assert all(math.isnan(value) for value in (*figures.even([]), *figures.even([0, 0])))


def test_a_worker_that_got_nothing_counts_in_the_split() -> None:
    records = [record(7), record(7), record(8), record(9, outcome=REFUSED)]
    assert figures.split(records, [7, 8, 9]) == [0, 1, 2]


def test_a_request_that_hung_counts_with_all_that_it_waited() -> None:
    records = [record(ms=3), record(ms=5000, outcome=TIMEOUT), record(ms=1, outcome=REFUSED)]
    assert figures.latencies(records) == [3.0, 5000.0]


def test_shares_over_a_limit() -> None:
    assert figures.over([1, 999, 1001, 3001], 1000) == 50.0
    assert figures.over([], 1000) == 0.0


def test_a_curve_has_the_quantiles_at_its_points() -> None:
    points = figures.curve(range(10_000))
    for share, value in zip(figures.shares(), points, strict=True):
        assert value == pytest.approx(share * 10_000, abs=1)
    assert figures.curve([]) == []


def test_a_timeline_goes_by_when_requests_should_have_started() -> None:
    zero = int(10e9)
    records = [
        record(start_s=9.9, ms=5),
        record(start_s=10.1, ms=7),
        record(start_s=10.2, ms=400),
        record(start_s=10.3, outcome=REFUSED),
    ]
    assert figures.timeline(records, zero) == [(-0.25, 5.0, 0), (0.0, 400.0, 0), (0.25, 0.0, 1)]


def test_middle() -> None:
    assert figures.middle([3.0, 1.0, math.nan, 2.0]) == (2.0, 1.0, 3.0)
    assert all(math.isnan(value) for value in figures.middle([]))


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1"), (1.234, "1.23"), (0.0, "0"), (12.34, "12.3"), (1234.5, "1,234"),
     (math.inf, "∞"), (math.nan, "-"), (99.97, "100")],
)  # fmt: skip
def test_numbers_are_short(value: float, text: str) -> None:
    assert figures.number(value) == text
