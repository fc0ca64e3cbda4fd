"""What is asked before something is done: the words of the command, and what it will do. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rrdispatch.checks import MOST_WORKERS

RELOAD = (
    "Reload {}: new code in every worker, one after another.\n"
    "Nobody is lost; if the new code fails, the old one serves on."
)
RESTART = (
    "Restart {}: each worker is stopped, then another one started.\nNew connections wait meanwhile."
)
RECYCLE = "Restart {}: its successor serves before it goes."
START = "Start {}, which does not run."
STOP = "Stop {}: its workers finish what they have. It stays in the list."
SCALE = "Scale {} from {} to {}."


@dataclass(frozen=True, slots=True)
class Question:
    """``words`` after ``rrdispatch``; none: there is nothing to run. ``scales``: +, - change it."""

    words: list[str]
    text: str
    name: str = ""
    now: int = 0
    wanted: int = 0  # of a scale

    def stepped(self, by: int) -> Question:
        """One worker more, or fewer."""
        if not self.wanted:
            return self
        return _scale(self.name, self.now, min(max(1, self.wanted + by), MOST_WORKERS))


def question(row: Mapping[str, Any], slot: int | None, what: str, by: int = 0) -> Question | str:
    """Or why it cannot be asked."""
    name, runs = row["name"], row["primary_pid"] is not None or row["status"] == "not answering"
    if what == "restart":
        return _restart(name, slot, runs)
    if not runs:
        return f" {name} does not run. R starts it."
    if what == "scale":
        now = int(row["instances"])
        if not 1 <= now + by <= MOST_WORKERS:
            return f" {name} has {now} already; s stops it." if by < 0 else f" {now} is the most."
        return _scale(name, now, now + by)
    text = RELOAD if what == "reload" else STOP
    return Question([what, name], text.format(name))


def _restart(name: str, slot: int | None, runs: bool) -> Question:
    if not runs:
        return Question(["start", name], START.format(name))
    if slot is not None:
        return Question(["restart", f"{name}:{slot}"], RECYCLE.format(f"{name}:{slot}"))
    return Question(["restart", name], RESTART.format(name))


def _scale(name: str, now: int, wanted: int) -> Question:
    text = SCALE.format(name, now, "1 worker" if wanted == 1 else f"{wanted} workers")
    if wanted < now:
        text += " Those that go finish what they have."
    return Question(["scale", name, str(wanted)], text, name, now, wanted)
