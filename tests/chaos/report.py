"""The table of a run, for the terminal and for ``docs/reliability.md``. Knows no scenario."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.runner import Outcome

BEGIN = "<!-- chaos: begin -->"
END = "<!-- chaos: end -->"


def machine() -> str:
    """When and on what."""
    day = time.strftime("%Y-%m-%d", time.gmtime())
    cores = len(os.sched_getaffinity(0))
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{day}, Linux {platform.release()}, {python}, {cores} cores, uid {os.getuid()}"


def counted(outcome: Outcome) -> str:
    return ", ".join(f"{name} {_number(value)}" for name, value in outcome.result.counts.items())


def _number(value: float | int | str) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"
    return f"{value:,}" if isinstance(value, int) else value


def verdict(outcome: Outcome) -> str:
    """Met, MISSED with what, or skipped with why."""
    if outcome.result.skipped:
        return f"skipped: {outcome.result.skipped}"
    if outcome.result.broken:
        return f"MISSED: {'; '.join(outcome.result.broken)}"
    return outcome.verdict


def markdown(outcomes: Sequence[Outcome], *, full: bool) -> str:
    """All that was run, as a page shows it."""
    size = "full length (`make soak`)" if full else "short (`make chaos`)"
    rows = [each for each in outcomes if not each.mutant]
    mutants = [each for each in outcomes if each.mutant]
    lines = [f"Run of {machine()}; {size}. {summary(outcomes)}", ""]
    # Every process of a run counts; what is above a few is other work, and makes times longer.
    lines[0] += f" Load average at the end: {os.getloadavg()[0]:.0f}."
    lines += ["| scenario | counted | target | |", "|---|---|---|---|"]
    for each in rows:
        cells = [each.scenario.title, counted(each), each.scenario.target, verdict(each)]
        lines.append(_row(cells))
    if mutants:
        lines += ["", "| mutant | scenario | what broke |", "|---|---|---|"]
        lines += [_row([each.mutant, each.scenario.title, caught(each)]) for each in mutants]
    return "\n".join(lines)


def caught(outcome: Outcome) -> str:
    if outcome.result.skipped:
        return f"skipped: {outcome.result.skipped}"
    if not outcome.good:
        others = "; ".join(outcome.result.broken) or "no check"
        return f"**nothing: the scenario does not see it** (what broke: {others})"
    return "; ".join(outcome.caught_by)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def line(outcome: Outcome) -> str:
    """One outcome as the terminal shows it when it is there."""
    name = outcome.scenario.name + (f" + {outcome.mutant}" if outcome.mutant else "")
    said = f"caught: {caught(outcome)}" if outcome.mutant else verdict(outcome)
    return f"{name:<28} {outcome.seconds:5.1f} s  {said}\n{'':<37}{counted(outcome)}"


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many, loudly if any were skipped or failed."""
    rows = [each for each in outcomes if not each.mutant]
    mutants = [each for each in outcomes if each.mutant]
    met = len([each for each in rows if each.verdict == "met"])
    missed = [each.scenario.name for each in rows if each.verdict == "MISSED"]
    skipped = [each.scenario.name for each in outcomes if each.verdict == "skipped"]
    unseen = [f"{each.scenario.name} + {each.mutant}" for each in mutants if not each.good]
    parts = [f"{len(rows)} scenarios: {met} met"]
    parts += [f"{len(missed)} MISSED ({', '.join(missed)})"] if missed else []
    parts += [f"{len(skipped)} SKIPPED ({', '.join(skipped)})"] if skipped else ["0 skipped"]
    if mutants:
        seen = [each for each in mutants if each.good and not each.result.skipped]
        text = f"{len(mutants)} mutants: {len(seen)} caught"
        parts.append(text + (f", NOT SEEN by {', '.join(unseen)}" if unseen else ""))
    return "; ".join(parts) + "."


def write_between_markers(path: Path, text: str) -> None:
    """Replaces what stands between the markers of a page."""
    page = path.read_text(encoding="utf-8")
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path}: no {BEGIN} ... {END} in it")
    path.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}", encoding="utf-8")
