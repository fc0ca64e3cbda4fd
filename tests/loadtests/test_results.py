"""The format that the comparison and the benchmark share, and what counts as a change."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from loadtests.bench import Row, table
from loadtests.bench import results as bench_results
from loadtests.report import losses, summary
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


def test_the_benchmark_writes_the_same_format(tmp_path: Path) -> None:
    rows = table({("accept4 alone", 0): [1000.0, 2000.0], ("C", 8): [2000.0, 5000.0]})
    assert [row.variant for row in rows if isinstance(row, Row)] == ["accept4 alone", "C"]
    path = tmp_path / "bench.json"
    path.write_text(bench_results(rows, {"c": {"accept_p50": 3.0}}, {"worker 0": 9000}).to_json())
    row = Results.read(path).find("C", "8 workers: CPU per connection")
    assert row is not None
    assert row.values == [2.0, 2.5]


def test_where_others_did_better_is_told() -> None:
    found = Results("compare")
    for value in (0, 1):
        found.add("rrdispatch", "keep-alive: requests", 100 + value, "/s", "more")
        found.add("faster", "keep-alive: requests", 200 + value, "/s", "more")
        found.add("slower", "keep-alive: requests", 50 + value, "/s", "more")
        found.add("rrdispatch", "memory", 100 + 100 * value, "MiB")
        found.add("as large", "memory", 120 + value, "MiB")
        found.add("rrdispatch, strict", "memory", 10, "MiB")
    assert list(losses(found)) == ["* keep-alive: requests: 100 /s; faster 200"]


def test_contenders_are_told_as_declared_not_as_they_were_drawn() -> None:
    found = results(1)
    found.rows[0].contender = "last"
    found.add("first", "keep-alive: CPU", 2)
    found.versions = {"first": "1", "skipped": "1", "last": "1"}
    assert found.contenders == ["first", "last"]
