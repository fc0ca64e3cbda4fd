"""The runner itself: what it calls met, missed and skipped, and what counts as a caught mutant."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from rrdispatch import mutants
from rrdispatch.errors import ConfigError
from tests.chaos import report, runner
from tests.chaos.beside import from_json, to_json
from tests.chaos.kit import MUTANTS, Result, Run, Scenario
from tests.chaos.runner import RAN, Outcome, run_scenario


def scenario(result: Result, mutant: str = "") -> Scenario:
    return Scenario("one", "a title", "a target", lambda _: result, mutant)


def outcome(result: Result, mutant: str = "") -> Outcome:
    return run_scenario(scenario(result, mutant), mutant=mutant)


def test_every_check_must_hold() -> None:
    result = Result(checks={"a": True, "b": True})
    assert outcome(result).verdict == "met"
    result.check("b", False)
    result.check("b", True)  # once broken, broken
    assert outcome(result).verdict == "MISSED"
    assert "MISSED: b" in report.verdict(outcome(result))


def test_a_run_that_checks_nothing_is_not_met() -> None:
    assert outcome(Result(counts={"kills": 3})).verdict == "MISSED"


def test_skipped_with_its_reason_and_loudly() -> None:
    found = outcome(Result(skipped="no cgroups"))
    assert found.good
    assert report.verdict(found) == "skipped: no cgroups"
    assert "1 SKIPPED (one)" in report.summary([found])


def test_one_that_raises_has_missed() -> None:
    def run(_: Run) -> Result:
        raise RuntimeError("no service")

    found = run_scenario(Scenario("one", "a title", "a target", run))
    assert found.result.broken == [f"{RAN}: RuntimeError: no service"]
    assert not found.good


def test_one_that_hangs_has_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(runner.LIMITS, False, 1)

    def run(_: Run) -> Result:
        threading.Event().wait()
        return Result()

    hang = Scenario("one", "a title", "a target", run)
    assert run_scenario(hang).result.broken == [f"{RAN}: not within 1 s"]


def test_a_mutant_must_break_a_named_check() -> None:
    """One that only makes the scenario raise may break anything."""
    assert outcome(Result(checks={"no orphan": False}), "leaky-fds").good
    assert not outcome(Result(checks={"no orphan": True}), "leaky-fds").good
    assert not outcome(Result(checks={f"{RAN}: OSError: x": False}), "leaky-fds").good


def test_a_mutant_with_a_check_of_its_own_must_break_that() -> None:
    assert outcome(Result(checks={"something waited and was moved": False}), "no-rescue").good
    assert not outcome(Result(checks={"p95 of the moved": False}), "no-probe").good


def test_a_mutant_in_another_process_is_told_whole() -> None:
    found = outcome(Result({"kills": 3}, {"no orphan": False}), "leaky-fds")
    again = from_json(found.scenario, "leaky-fds", "noise\n" + to_json(found))
    assert (again.result, again.seconds) == (found.result, found.seconds)
    assert not from_json(found.scenario, "leaky-fds", "Traceback").good


def test_a_mutant_is_on_for_its_run_only() -> None:
    seen = []

    def run(_: Run) -> Result:
        seen.append(os.environ.get(mutants.VARIABLE))
        return Result(checks={"a": True})

    run_scenario(Scenario("one", "a title", "a target", run), mutant="no-probe")
    assert seen == ["no-probe"]
    assert mutants.VARIABLE not in os.environ


def test_every_mutant_is_known_on_all_sides() -> None:
    assert set(mutants.NAMES) == set(MUTANTS) == set(runner.BREAKS)


def test_every_mutant_is_some_scenarios_and_every_scenario_has_one() -> None:
    """But the one that compares others with us: they know nothing of our mutants."""
    used = {each.name: each.mutant for each in runner.load_scenarios().values()}
    assert [name for name, mutant in used.items() if not mutant] == ["peers"]
    assert set(used.values()) - {""} == set(MUTANTS)


def test_a_mutant_of_the_other_dispatcher_is_skipped() -> None:
    found = run_scenario(scenario(Result()), mutant="no-pause", dispatcher="python")
    assert found.result.skipped
    assert found.good
    assert "1 mutants: 0 caught." in report.summary([found])


def test_an_unseen_mutant_is_told_with_what_broke_instead() -> None:
    found = outcome(Result(checks={f"{RAN}: OSError: x": False}), "no-drain")
    assert f"what broke: {RAN}: OSError: x" in report.caught(found)
    assert "NOT SEEN by one + no-drain" in report.summary([found])


def test_an_unknown_mutant_is_an_error_with_the_right_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(mutants.VARIABLE, "no-rescue,no-such")
    mutants._wanted.cache_clear()
    try:
        with pytest.raises(ConfigError, match="there is no no-such") as caught:
            mutants.enabled("no-rescue")
    finally:
        monkeypatch.undo()
        mutants._wanted.cache_clear()
    assert "no-rescue, no-probe" in str(caught.value.hint)


def test_the_table_goes_between_the_markers_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    text = report.markdown([outcome(Result({"kills": 1200, "share": 0.5}, {"a": True}))], full=True)
    report.write_between_markers(page, text)
    lines = page.read_text().splitlines()
    assert lines[0] == "before"
    assert lines[-1] == "after"
    assert "old" not in lines
    assert "| a title | kills 1,200, share 0.50 | a target | met |" in lines


def test_a_page_without_markers_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("mine")
    with pytest.raises(SystemExit):
        report.write_between_markers(page, "text")
    assert page.read_text() == "mine"
