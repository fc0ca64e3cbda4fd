"""A reader's questions, answered from the figures of a run: one sentence or two each."""

from __future__ import annotations

import math
from collections.abc import Iterator

from .figures import number
from .results import Results, Row

OURS = "rrdispatch"
SPLITS = ("split at 1", "split at 40", "split at 200")
BAD = (
    "1 stopped",
    "1 blocked 4 s",
    "killed every s",
    "all dead",
    "reload",
    "broken release",
    "10,000 idle",
    "slow clients",
)
BACKLOG = "deep backlog: CPU"
DISPATCHERS = (OURS, "rrdispatch, Python dispatcher", "uvicorn, naive turns")
POLICIES = (OURS, "rrdispatch, strict", "rrdispatch, least-connections")


def answers(results: Results) -> list[str]:
    """In Markdown; a question that this run has no figures for is left out."""
    return [f"* **{asked}** {told}" for asked, told in _all(results) if told]


def _all(results: Results) -> Iterator[tuple[str, str]]:
    yield "Is it even?", "; ".join(filter(None, (_range(results, f"{test}: most/fewest", test)
                                                 for test in SPLITS)))  # fmt: skip
    fast = [("connection per request", "a connection per request"), ("keep-alive", "kept")]
    told = [_range(results, f"{test}: CPU", f"CPU, {name}", "us") for test, name in fast]
    told += [_range(results, f"{test}: requests", f"answers, {name}", "/s") for test, name in fast]
    yield "Is it fast?", "; ".join(filter(None, told))
    yield "What happens on a bad day?", _bad_days(results)
    yield "What does the C core buy?", _core(results)
    yield "When not round robin?", _policies(results)


def _range(results: Results, measure: str, name: str, unit: str = "") -> str:
    """Ours, and the others from the best to the worst."""
    mine = results.find(OURS, measure)
    if mine is None or not mine.values:
        return ""
    sign = 1 if mine.better == "less" else -1
    others = sorted(_others(results, measure), key=lambda row: sign * row.median)
    text = f"{name}: {number(mine.median)} {unit}".rstrip()
    if not others:
        return text
    ends = [f"{number(row.median)} ({row.contender})" for row in others]
    return f"{text}, others {ends[0]}" + (f" to {ends[-1]}" if len(ends) > 1 else "")


def _others(results: Results, measure: str) -> list[Row]:
    return [
        row
        for row in results.rows
        if row.measure == measure and row.values and not row.contender.startswith(OURS)
    ]


def _bad_days(results: Results) -> str:
    """Requests that got no answer, over all bad days that each was put through."""
    told = []
    for contender in results.contenders:
        failed = _failed(results, contender)
        if failed:
            days = ", ".join(f"{day} {number(count)}" for day, count in failed if count)
            told.append((sum(count for _, count in failed), contender, days))
    told.sort(key=lambda each: (not each[1].startswith(OURS), each[0]))
    return "Requests without an answer: " + "; ".join(
        f"{contender} {number(total)}" + (f" ({days})" if days else "")
        for total, contender, days in told
    ) if told else ""  # fmt: skip


def _failed(results: Results, contender: str) -> list[tuple[str, float]]:
    found = []
    for day in BAD:
        rows = [results.find(contender, f"{day}: {kind}") for kind in ("lost", "hung")]
        known = [row.median for row in rows if row is not None and not math.isnan(row.median)]
        if known:
            found.append((day, sum(known)))
    return found


def _core(results: Results) -> str:
    told = []
    for measure, name in (
        (BACKLOG, "from a deep backlog"),
        ("connection per request: CPU elsewhere", "under live load, everything but the workers"),
    ):
        rows = [results.find(each, measure) for each in DISPATCHERS]
        known = [row for row in rows if row is not None and row.values]
        if len(known) > 1:
            figures = ", ".join(f"{row.contender} {number(row.median)} us" for row in known)
            told.append(f"CPU of a connection {name}: {figures}")
    return "; ".join(told)


def _policies(results: Results) -> str:
    rows = [results.find(each, "1 % block 500 ms: p99") for each in POLICIES]
    known = [row for row in rows if row is not None and row.values]
    told = ", ".join(f"{row.contender} {number(row.median)} ms" for row in known)
    mixed = f"1 % of the requests block, p99 of the others: {told}. " if len(known) > 1 else ""
    return mixed + "Which policy is wrong when, up to 256 workers: docs/policies.md."
