"""The format that the comparison and the benchmark share, and what counts as a change."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from loadtests.report import summary
from loadtests.results import Results, against


def results(*values: float, better: str = "less") -> Results:
    found = Results("compare")
    for value in values:
        found.add("rrdispatch", "keep-alive: CPU", value, "us", better)
    return found


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    made = results(1.5, math.inf)
    made.versions["rrdispatch"] = "1"
    made.curves["mixed"] = {"rrdispatch": [1.0, 2.0]}
    path = tmp_path / "results.json"
    path.write_text(made.to_json())
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert Results.read(path) == made


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match="format 1"):
        Results.read(path)


def test_what_is_not_known_is_no_value() -> None:
    assert results(math.nan).rows == []


@pytest.mark.parametrize(
    ("old", "new", "better", "verdict"),
    [
        ((10, 11, 12), (20, 21, 22), "less", "worse"),
        ((20, 21, 22), (10, 11, 12), "less", "better"),
        ((10, 11, 12), (20, 21, 22), "more", "better"),
        ((10, 11, 30), (20, 21, 22), "less", ""),  # within the old run's own spread
        ((10, 10, 10), (10.5, 10.5, 10.5), "less", ""),  # too little to call it a change
        ((10, 10, 10), (20, 20, 20), "", ""),  # neither is better
        ((0, 0, 0), (3, 3, 3), "less", "worse"),
        ((0, 0, 0), (0, 0, 0), "less", ""),
    ],
)
def test_a_change_is_more_than_both_spreads(
    old: tuple[float, ...], new: tuple[float, ...], better: str, verdict: str
) -> None:
    (change,) = against(results(*new, better=better), results(*old, better=better))
    assert change.verdict == verdict


def test_what_got_worse_is_told_with_both_values() -> None:
    text = summary(results(20), results(10))
    assert "worse: rrdispatch, keep-alive: CPU: 10 -> 20 us (x 2)" in text
