"""Runs one scenario and judges it: whatever happens ends as a Result with named checks.

Owns the time limit, the temporary directory and the mutant's variable of a run. A scenario that
raises or does not end has failed, by a check that says so; one that cannot run here is skipped.
"""

from __future__ import annotations

import importlib
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from tests.chaos.kit import SCENARIOS, Result, Run, Scenario

RAN = "it ran to its end"
# What a mutant must break, since any other broken check would be a chance: by parts of names.
BREAKS = {
    "no-rescue": ("lost that were queued", "moved", "given to others"),
    "no-probe": ("takes the probe",),
    "batch-16": ("in hand <= 1.0 per kill",),
    "late-dispatcher": ("back in", "replaced within"),
    "leaky-fds": ("no orphan", "holds what is another's"),
    "no-room-check": ("lost that were queued",),
    "no-heir": ("each was followed",),
    "no-pause": ("CPU < 5 % while waiting",),
    "leaky-dispatcher": ("memory flat",),
    "loose-queue": ("queue cap exact",),
    "no-drain": ("0 failed",),
    "no-probation": ("all were refused",),
}
C_ONLY = ("no-pause", "leaky-dispatcher")  # the dispatcher in Python knows nothing of these
VARIABLE = "RRDISPATCH_MUTANT"
LIMITS = {False: 120, True: 2400}  # seconds: short, full


class Overran(BaseException):
    """A scenario took too long; nothing in it may catch this."""


@dataclass(frozen=True)
class Outcome:
    """One scenario, run."""

    scenario: Scenario
    result: Result
    seconds: float
    mutant: str = ""

    @property
    def verdict(self) -> str:
        if self.result.skipped:
            return "skipped"
        if not self.result.checks:
            return "MISSED"  # a run that checks nothing shows nothing
        return "MISSED" if self.result.broken else "met"

    @property
    def good(self) -> bool:
        """For a mutant: a check that is meant broke, and not merely that something went wrong."""
        if self.verdict == "skipped":
            return True
        return bool(self.caught_by) if self.mutant else self.verdict == "met"

    @property
    def caught_by(self) -> list[str]:
        """The broken checks that show the mutant."""
        named = [what for what in self.result.broken if not what.startswith(RAN)]
        meant = BREAKS[self.mutant]
        return [what for what in named if any(part in what for part in meant)]


def load_scenarios() -> dict[str, Scenario]:
    """All of them: every ``s_*.py`` beside this file registers its own."""
    for path in sorted(Path(__file__).parent.glob("s_*.py")):
        importlib.import_module(f"tests.chaos.{path.stem}")
    return SCENARIOS


def run_scenario(
    scenario: Scenario, *, full: bool = False, mutant: str = "", dispatcher: str = "c"
) -> Outcome:
    """Runs it in a directory of its own."""
    if mutant in C_ONLY and dispatcher != "c":
        return Outcome(scenario, Result(skipped=f"{mutant} is for the C dispatcher"), 0.0, mutant)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rr-chaos-") as tmp, _mutant(mutant):
        run = Run(full=full, tmp=Path(tmp), mutant=mutant, dispatcher=dispatcher)
        result = _guarded(scenario, run)
    return Outcome(scenario, result, time.monotonic() - began, mutant)


def _guarded(scenario: Scenario, run: Run) -> Result:
    limit = LIMITS[run.full]
    try:
        with _alarm(limit):
            return scenario.run(run)
    except Overran:
        where = traceback.format_exc()
        failed = Result()
        failed.check(f"{RAN}: not within {limit} s", False)
    except Exception as error:
        where = traceback.format_exc()
        failed = Result()
        lines = str(error).strip().splitlines() or [""]
        failed.check(f"{RAN}: {type(error).__name__}: {lines[0]}", False)
    print(where, flush=True)
    return failed


@contextmanager
def _alarm(seconds: int) -> Iterator[None]:
    def over(_number: int, _frame: FrameType | None) -> None:
        raise Overran

    began = time.monotonic()
    before = signal.signal(signal.SIGALRM, over)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        # pytest's own limit, if one runs, goes on.
        left = max(0.001, left - (time.monotonic() - began)) if left else 0.0
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left)


@contextmanager
def _mutant(name: str) -> Iterator[None]:
    """Every process of the run inherits it."""
    before = os.environ.pop(VARIABLE, None)
    if name:
        os.environ[VARIABLE] = name
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before
