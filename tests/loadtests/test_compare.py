"""The comparison against real clusters, for seconds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from loadtests import bad_days, contenders, plots
from loadtests.bad_days import BAD_DAYS
from loadtests.compare import main
from loadtests.contenders import Contender, ours, peer
from loadtests.measures import Measuring, Size
from loadtests.report import write_report
from loadtests.results import Results
from loadtests.running import Running

TINY = Size(seconds=0.3, mixed_s=0.5, connections=(10, 20, 30), bad_s=1.0)
BASELINE = "uvicorn, shared listener"


def test_one_command_ends_with_the_table_and_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RRDISPATCH_STALL_TIMEOUT", "60")  # see the split
    words = ["--only", "rrdispatch", BASELINE, "--rounds", "1", "--workers", "2"]
    words += ["--seconds", "0.4", "--days", "stopped", "--seed", "5", "--output", str(tmp_path)]
    assert main(words) == 0
    output = capsys.readouterr()
    assert output.out.splitlines()[-1] == f"report: {tmp_path}/report.html"
    assert "[4/4] stopped: " in output.err
    results = Results.read(tmp_path / "results.json")
    assert set(results.contenders) == {"rrdispatch", BASELINE}
    assert not [note for note in results.notes.values() if note.startswith("could not")]
    for name in results.contenders:
        assert value(results, name, "connection per request: requests") > 0
        assert value(results, name, "connection per request: CPU") > 1
        assert value(results, name, "memory") > 1
        assert value(results, name, "keep-alive: failed") == 0
    # One client after another: everybody in turn, since nobody is passed over.
    assert value(results, "rrdispatch", "split at 1: most/fewest") < 1.5
    assert value(results, "rrdispatch", "1 stopped: lost") == 0
    page = (tmp_path / "report.html").read_text()
    assert "--seed 5" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page), "it needs something beside itself"
    old = str(tmp_path / "results.json")
    words = [*words[:2], "--days", "--rounds", "1", "--workers", "2", "--seconds", "0.2"]
    assert main([*words, "--against", old, "--output", str(tmp_path)]) == 0
    assert "figures changed" in capsys.readouterr().out


def value(results: Results, contender: str, measure: str) -> float:
    row = results.find(contender, measure)
    assert row is not None, measure
    return row.median


def test_one_that_does_not_start_is_told_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Contender("broken", peer("false"))
    monkeypatch.setattr(contenders, "CONTENDERS", (broken, *contenders.CONTENDERS))
    words = ["--only", "broken", BASELINE, "--rounds", "1", "--workers", "2", "--days"]
    assert main([*words, "--seconds", "0.2", "--output", str(tmp_path)]) == 0
    results = Results.read(tmp_path / "results.json")
    assert results.notes["broken, round 1 of 1"].startswith("could not be measured: it ended")
    assert results.contenders == [BASELINE]
    assert "broken, round 1 of 1: could not be measured" in capsys.readouterr().out


@pytest.mark.parametrize("day", BAD_DAYS, ids=lambda each: each.name)
@pytest.mark.slow
def test_bad_days(day: bad_days.BadDay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bad_days, "IDLE", 100)
    monkeypatch.setattr(bad_days, "PATIENCE_S", 25.0)  # a busy machine is not to be judged
    results = Results("compare")
    contender = Contender("ours", ours("--probation", "0.2"))
    with Running(contender, tmp_path / "app", 2) as running:
        before = set(running.workers)
        day.run(Measuring(running, results, TINY))
        left = before & {each.pid for each in running.processes()}
    rows = {row.measure.partition(": ")[2]: row.median for row in results.rows}
    assert {"lost", "hung", "p99"} <= set(rows)
    if day.name in ("stopped", "blocked", "reload", "broken", "idle", "slow"):
        assert rows["lost"] == 0
    if day.name != "flood":
        assert rows["hung"] == 0
    if day.name in ("dead", "killed"):
        assert len(left) <= (day.name == "killed")
    assert rows.get("until all is new", 0.0) < 30
    assert rows.get("still answers", 1.0) == 1


def test_without_matplotlib_the_page_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    results = Results("compare")
    results.add("a", "split at 1: most/fewest", 1.0)
    assert plots.GET.split("(")[0] in write_report(results, tmp_path).read_text()


def test_figures_are_inside_the_page(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    results = Results("compare", "python -m loadtests.compare --seed 7")
    for name in ("a", "b"):
        for test in ("split at 1: most/fewest", "connection per request: CPU"):
            results.add(name, test, 2.0)
        results.curves.setdefault("mixed", {})[name] = [0.0, 1.0] * 100
        results.timelines[name] = [(-0.25, 3.0, 0), (0.0, 5.0, 2)]
    results.add("b", "split at 1: most/fewest", float("inf"))
    page = write_report(results, tmp_path).read_text()
    assert page.count('src="data:image/png;base64,') == len(list(tmp_path.glob("*.png"))) == 4
    assert page.count("To make it again") == 4
    json.loads((tmp_path / "results.json").read_text())
