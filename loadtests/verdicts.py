"""What rrdispatch means to reach beside others, judged by a run; and what the C core buys.

``met`` is said of a median; where the values of the rounds reach to both sides, that is said, too.
"""

from __future__ import annotations

from collections.abc import Iterator

from .figures import middle, number
from .results import LEAST_CHANGE, Results, Row

OURS, OVER = "rrdispatch", "rrdispatch over uvicorn"
UVICORN, SHARED = "uvicorn --workers", "uvicorn, shared listener"
DISPATCHERS = (
    ("C", OURS),
    ("careful Python", "rrdispatch, Python dispatcher"),
    ("naive Python", "uvicorn, naive turns"),
)
BACKLOG, FLOORS = "deep backlog: CPU", "deep backlog: by accept4 alone"
LIVE = "connection per request: CPU elsewhere"
KEPT_SHARE = 0.95
WAITING = (  # test, and what counts its failures
    ("1 stopped", ("lost", "hung")),
    ("1 blocked 4 s", ("lost", "hung")),
    ("1 % block 500 ms", ("failed",)),
)
HEAD = ["asked", "ours", "beside", "ratio", "verdict"]


def verdicts(results: Results) -> list[list[str]]:
    """Head and rows; nothing if nothing of it was measured."""
    rows = [*_kept(results), *_per_request(results), *_waiting(results)]
    return [HEAD, *rows] if rows else []


def _ratios(mine: Row, other: Row) -> list[float]:
    """Round by round, since a machine is slower in one than in the next."""
    if len(mine.values) == len(other.values):
        pairs = list(zip(mine.values, other.values, strict=True))
    else:
        pairs = [(mine.median, other.median)]
    return [own / theirs for own, theirs in pairs if theirs]


def _told(values: list[float]) -> str:
    median, low, high = middle(values)
    text = number(median)
    return f"{text} ({number(low)} to {number(high)})" if low != high else text


def _figure(row: Row) -> str:
    return f"{_told(row.values)} {row.unit}".rstrip()


def _kept(results: Results) -> Iterator[list[str]]:
    mine, other = (results.find(name, "keep-alive: requests") for name in (OVER, UVICORN))
    if not mine or not other or not (ratios := _ratios(mine, other)):
        return
    median, low, high = middle(ratios)
    verdict = "met" if median >= KEPT_SHARE else "not met"
    if low < KEPT_SHARE <= high:
        verdict += ", and the rounds reach to both sides"
    asked = f"keep-alive: {OVER} answers at least {KEPT_SHARE} of uvicorn's own"
    yield [asked, _figure(mine), f"{UVICORN} {_figure(other)}", _told(ratios), verdict]


def _per_request(results: Results) -> Iterator[list[str]]:
    """Nothing is promised here: what handing over costs is measured."""
    mine = results.find(OVER, "connection per request: CPU")
    for name in (SHARED, UVICORN):
        other = results.find(name, "connection per request: CPU")
        if mine and other and (ratios := _ratios(mine, other)):
            asked = f"connection per request: CPU of {OVER}"
            yield [asked, _figure(mine), f"{name} {_figure(other)}", _told(ratios), "as measured"]


def _waiting(results: Results) -> Iterator[list[str]]:
    """First who gets no answer; then how long the others wait, beside those who lose no more."""
    for test, kinds in WAITING:
        failed = {name: _failed(results, name, test, kinds) for name in results.contenders}
        known = {name: count for name, count in failed.items() if count is not None}
        others = {name: count for name, count in known.items() if not name.startswith(OURS)}
        if OURS not in known or not others:
            continue
        own, fewest = known[OURS], min(others.values())
        best = min(others, key=lambda name: others[name])
        verdict = "met" if own <= fewest else "not met"
        ours, theirs = number(own), f"fewest: {best} {number(fewest)}"
        yield [f"{test}: no answer, at most as many as the best", ours, theirs, "", verdict]
        rows = (results.find(n, f"{test}: p99") for n, count in others.items() if count <= own)
        yield from _p99(results, test, [row for row in rows if row is not None])


def _failed(results: Results, name: str, test: str, kinds: tuple[str, ...]) -> float | None:
    """Mean of the trials: one of several is not forgotten, as it would be in a median."""
    rows = [results.find(name, f"{test}: {kind}") for kind in kinds]
    known = [sum(row.values) / len(row.values) for row in rows if row is not None]
    return sum(known) if known else None


def _p99(results: Results, test: str, others: list[Row]) -> Iterator[list[str]]:
    mine = results.find(OURS, f"{test}: p99")
    if mine is None or not others:
        return
    best = min(others, key=lambda row: row.median)
    ratio = mine.median / best.median if best.median else 1.0
    verdict = "met"
    if mine.median > best.median:
        verdict = "met, within the noise" if _alike(mine, best, ratio) else "not met"
    if len(mine.values) == 1:
        verdict += "; one trial, so the noise is not known"
    asked = f"{test}: p99, not more than the best's by more than the noise"
    yield [asked, _figure(mine), f"{best.contender} {_figure(best)}", number(ratio), verdict]


def _alike(mine: Row, best: Row, ratio: float) -> bool:
    return mine.spread[0] <= best.spread[1] or ratio <= 1 + LEAST_CHANGE


def dispatchers(results: Results) -> list[list[str]]:
    """CPU per connection of who hands over: in C, in careful Python and in naive Python."""
    measures = [(BACKLOG, "deep backlog, us"), (FLOORS, "by accept4 alone")]
    measures += [(LIVE, "live load, all but the workers, us")]
    base = [results.find(OURS, name) for name, _ in measures]
    rows = []
    for kind, contender in DISPATCHERS:
        found = [results.find(contender, name) for name, _ in measures]
        if any(found):
            rows.append([kind, contender, *map(_cell, found), *_by(found, base)])
    head = ["dispatcher", "contender", *(told for _, told in measures)]
    head += ["deep backlog, by C", "live load, by C"]
    return [head, *rows] if len(rows) > 1 else []


def _cell(row: Row | None) -> str:
    return _told(row.values) if row is not None and row.values else ""


def _by(found: list[Row | None], base: list[Row | None]) -> Iterator[str]:
    for place in (0, 2):
        row, one = found[place], base[place]
        known = row is not None and one is not None and one.median
        yield number(row.median / one.median) if known and row and one else ""
