"""What every chaos scenario is made of: its name, its target, its length, what it counted.

A scenario is a function that causes trouble for a service under load and returns what it counted;
whether that is good is decided here, by its checks. ``python -m tests.chaos`` runs them and prints
one table; ``test_scenarios.py`` runs the short ones, ``test_mutants.py`` shows that each one fails
when the thing that it watches is switched off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

MUTANTS = {
    "no-rescue": "nothing is taken back from dead or stuck workers",
    "no-probe": "a stalled worker is given connections again without having taken the probe",
    "leaky-fds": "children of the primary inherit descriptors that are not theirs",
    "batch-16": "a synchronous worker takes up to 16 connections at a time",
    "no-room-check": "a worker takes a connection without room for it in its fd table",
    "no-heir": "nobody follows a primary that was killed",
    "late-dispatcher": "a dispatcher that was killed is replaced 0.1 s late, a silent one 2 s",
    "no-pause": "who waits for a descriptor, or for room, tries again without a pause",
    "leaky-dispatcher": "the dispatcher loses a page of memory per connection",
    "loose-queue": "a worker's queue takes one connection more than queue_limit",
    "no-drain": "workers that are to finish what they have are killed at once",
    "no-probation": "a new generation is believed as soon as it is ready",
}


@dataclass(frozen=True)
class Run:
    """How a scenario is to be run."""

    full: bool
    tmp: Path
    mutant: str = ""
    dispatcher: str = "c"

    def size(self, short: float, full: float) -> float:
        """A count or seconds, by length."""
        return full if self.full else short


@dataclass
class Result:
    """What was counted; ``checks`` say what must hold, by name."""

    counts: dict[str, float | int | str] = field(default_factory=dict)
    checks: dict[str, bool] = field(default_factory=dict)
    skipped: str = ""

    def check(self, what: str, holds: bool) -> None:
        self.checks[what] = self.checks.get(what, True) and holds

    @property
    def broken(self) -> list[str]:
        return [what for what, holds in self.checks.items() if not holds]


@dataclass(frozen=True)
class Scenario:
    """One row of the table."""

    name: str
    title: str
    target: str
    run: Callable[[Run], Result]
    mutant: str = ""  # of MUTANTS: must make it fail
    long: bool = False  # run in the full table or by name only


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    name: str, *, title: str, target: str, mutant: str = "", long: bool = False
) -> Callable[[Callable[[Run], Result]], Callable[[Run], Result]]:
    """Registers one. ``mutant`` names the switch that must make it fail."""
    if mutant and mutant not in MUTANTS:
        raise KeyError(mutant)

    def register(run: Callable[[Run], Result]) -> Callable[[Run], Result]:
        SCENARIOS[name] = Scenario(name, title, target, run, mutant, long)
        return run

    return register
