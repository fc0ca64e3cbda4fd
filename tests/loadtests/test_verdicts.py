"""Met or not met, and what a limited run keeps: from figures that were made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.bad_days import BAD_DAYS
from loadtests.compare import arguments, comparison, together
from loadtests.measures import FULL, LEAST
from loadtests.report import markdown
from loadtests.results import Results
from loadtests.verdicts import dispatchers, verdicts


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        ([95.0, 99.0], "met"),
        ([90.0, 80.0], "not met"),
        ([94.0, 99.0], "met, and the rounds reach to both sides"),
        ([90.0, 96.0], "not met, and the rounds reach to both sides"),
    ],
)
def test_keep_alive_is_judged_round_by_round(ours: list[float], verdict: str) -> None:
    theirs = [100.0, 100.0]
    found = Results("compare")
    for name, values in (("rrdispatch over uvicorn", ours), ("uvicorn --workers", theirs)):
        for value in values:
            found.add(name, "keep-alive: requests", value, "/s", "more")
    assert verdicts(found)[1][-1] == verdict
    assert f"| {verdict} |" in markdown(found, {}, None)


def waiting(mine: list[float], lost: list[float]) -> list[str]:
    found = Results("compare")
    for name, p99, gone in (
        ("rrdispatch", mine, lost),
        ("fast but loses", [1.0, 1.0], [9.0, 9.0]),
        ("best", [10.0, 12.0], [0.0, 0.0]),
    ):
        for value in p99:
            found.add(name, "1 stopped: p99", value, "ms")
        for value in gone:
            found.add(name, "1 stopped: lost", value)
    return [row[-1] for row in verdicts(found)[1:]]


def test_waiting_is_compared_with_the_best_of_those_who_lose_no_more() -> None:
    assert waiting([9.0, 10.0], [0.0, 0.0]) == ["met", "met"]
    assert waiting([11.5, 15.0], [0.0, 0.0]) == ["met", "met, within the noise"]
    assert waiting([20.0, 30.0], [0.0, 0.0]) == ["met", "not met"]
    # One failure in one of the rounds is none in the median.
    assert waiting([9.0, 9.0, 9.0], [0.0, 0.0, 1.0])[0] == "not met"
    assert waiting([9.0], [0.0])[1] == "met; one trial, so the noise is not known"


def test_dispatchers_stand_side_by_side() -> None:
    found = Results("compare")
    for name, deep, live in (
        ("rrdispatch", 5.0, 20.0),
        ("rrdispatch, Python dispatcher", 11.0, 30.0),
        ("uvicorn, naive turns", 8.0, 18.0),
    ):
        found.add(name, "deep backlog: CPU", deep, "us")
        found.add(name, "connection per request: CPU elsewhere", live, "us")
    head, *rows = dispatchers(found)
    assert [[row[0], row[2], *row[4:]] for row in rows] == [
        ["C", "5", "20", "1", "1"],
        ["careful Python", "11", "30", "2.2", "1.5"],
        ["naive Python", "8", "18", "1.6", "0.9"],
    ]
    assert len(head) == len(rows[0])
    assert dispatchers(Results("compare")) == verdicts(Results("compare")) == []


def test_a_run_of_some_minutes_has_everything_and_all_of_it_shorter(tmp_path: Path) -> None:
    names = ["rrdispatch", "rrdispatch, strict"]
    for minutes, shorter in (("1.5", LEAST.seconds), ("120", FULL.seconds)):
        words = ["--full", "--minutes", minutes, "--only", *names]
        run = comparison(arguments(words), words, tmp_path)
        assert run.size.seconds == shorter
        assert [day for days in run._trials() for day in days if day not in BAD_DAYS] == []
        assert sum(map(len, run._trials())) == len(BAD_DAYS)
        assert f"given {minutes} minutes" in markdown(run.results, {}, None)
        assert run.size.told in markdown(run.results, {}, None)
    with pytest.raises(SystemExit):
        arguments(["--quick", "--minutes", "5"])


def test_a_bad_day_that_spoils_a_server_is_its_last() -> None:
    groups = together(list(BAD_DAYS))
    assert not any(day.spoils for group in groups for day in group[:-1])
    assert len(groups) < len(BAD_DAYS)
