"""The command: its tables, its files, and what it says when something is missing."""

from __future__ import annotations

import builtins
import importlib
import random
import statistics
from pathlib import Path

import pytest

from loadtests import sim_report, simulate
from loadtests.sim_work import constant, later, mixed, stretched

SHORT = ["--workers", "2", "4", "--load", "0.5", "--requests", "2000", "--rounds", "2"]
POLICIES = ["round-robin", "strict", "least-connections", "textbook turn", "hash", "racing", "node"]


def test_tables_and_markdown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "out.md"
    simulate.main([*SHORT, "--service", "exponential", "--markdown", str(page)])
    said, written = capsys.readouterr().out, page.read_text()
    for name in POLICIES:
        assert said.count(f"\n{name} ") == 2
        assert written.count(f"| {name} |") == 2
    assert "racing is M/M/4: " in said
    assert "python -m loadtests.simulate --workers 2 4" in written
    assert "4 workers, load 0.5:" in written


def test_only_some_policies(capsys: pytest.CaptureFixture[str]) -> None:
    simulate.main([*SHORT, "--threads", "0", "--keep", "5", "--policy", "node", "strict"])
    said = capsys.readouterr().out
    assert "\nnode " in said
    assert "\nracing " not in said
    with pytest.raises(SystemExit, match="no such policy: fastest"):
        simulate.main([*SHORT, "--policy", "fastest"])


def test_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the plot is optional")
    simulate.main([*SHORT, "--plot", str(tmp_path / "p99.png")])
    assert (tmp_path / "p99.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before hours of computing, not after."""

    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(SystemExit, match=r"python -m pip install matplotlib"):
        simulate.main([*SHORT, "--plot", "never.png"])


def test_quick_is_small() -> None:
    options = simulate.filled(simulate.parser().parse_args(["--quick"]))
    assert max(options.workers) == 16
    assert options.rounds == 1
    full = simulate.filled(simulate.parser().parse_args([]))
    assert (min(full.workers), max(full.workers)) == (4, 256)


def test_more_workers_get_more_requests() -> None:
    """Else 256 workers would be watched for a fraction of a second."""
    options = simulate.filled(simulate.parser().parse_args([]))
    few, many = (simulate.work_of(options, workers, 0.5, 1) for workers in (4, 256))
    assert many.count > 5 * few.count
    assert few.rate == pytest.approx(0.5 * 4 / mixed().mean)


def test_threads_are_kept_by_what_is_awaited() -> None:
    said = ["--service", "constant", "--awaits", "9", "--keep", "2"]
    threads = simulate.filled(simulate.parser().parse_args([*said, "--threads", "8"]))
    loops = simulate.filled(simulate.parser().parse_args([*said, "--threads", "0"]))
    assert simulate.work_of(threads, 4, 0.5, 1).rate == pytest.approx(0.5 * 4 * 8 / 0.010 / 2)
    assert simulate.work_of(loops, 4, 0.5, 1).rate == pytest.approx(0.5 * 4 / 0.001 / 2)
    loops.stretch = 5.0
    assert simulate.work_of(loops, 4, 0.5, 1).rate == pytest.approx(0.5 * 4 / 0.005 / 2)


def test_changed_services_keep_their_moments() -> None:
    rng = random.Random(1)
    for service in (stretched(constant(), 3.0), later(constant(), 0.002)):
        assert service.draw(rng) == pytest.approx(0.003)
        assert service.mean == pytest.approx(0.003)
        assert service.variation == pytest.approx(0)
    assert stretched(mixed(), 4.0).variation == pytest.approx(mixed().variation)
    more = later(mixed(), 0.01)
    assert more.second - more.mean**2 == pytest.approx(mixed().second - mixed().mean ** 2)


def test_quantiles_and_batches() -> None:
    ordered = [float(number) for number in range(1, 1001)]
    assert sim_report.quantile(ordered, 0.5) == 500
    assert sim_report.quantile(ordered, 0.999) == 999
    assert sim_report.quantile(ordered, 1.0) == 1000
    assert sim_report.batch_means(ordered, 4) == [125.5, 375.5, 625.5, 875.5]
    assert sim_report.standard_error([1.0, 3.0]) == pytest.approx(1.0)


def test_confidence_of_what_is_independent() -> None:
    """95 of 100 intervals of uniform numbers hold the true mean, give or take."""
    rng = random.Random(2)
    held = 0
    for _ in range(200):
        values = [rng.random() for _ in range(400)]
        error = sim_report.standard_error(sim_report.batch_means(values))
        held += abs(statistics.fmean(values) - 0.5) < 2.09 * error
    assert 180 <= held <= 198


def test_matplotlib_is_not_needed_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def guarded(name: str, *rest: object) -> object:
        assert not name.startswith("matplotlib")
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", guarded)
    simulate.main([*SHORT, "--policy", "node"])
