"""What is computed from the records of a load: split, quantiles, shares, moments in time."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

from tests.harness.records import TIMEOUT, Record, quantile

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
PATIENCE_MS = (1000, 3000)  # where people leave
POINTS = 200


def even(counts: Iterable[int]) -> tuple[float, float]:
    """Most by fewest (infinite if somebody got nothing), and the coefficient of variation."""
    found = list(counts)
    if not found or not sum(found):
        return math.nan, math.nan
    ratio = max(found) / min(found) if min(found) else math.inf
    return ratio, statistics.pstdev(found) / statistics.fmean(found)


def split(records: Iterable[Record], workers: Iterable[int]) -> list[int]:
    """Answers by worker, those that gave none included."""
    counts = Counter(dict.fromkeys(workers, 0))
    counts.update(record.pid for record in records if record.ok)
    return sorted(counts.values())


def latencies(records: Iterable[Record]) -> list[float]:
    """Milliseconds from when each request should have started. One that hung counts in full."""
    return sorted(each.latency_ms for each in records if each.ok or each.outcome == TIMEOUT)


def over(values: Sequence[float], limit_ms: float) -> float:
    """The share of them in percent."""
    return 100 * sum(value > limit_ms for value in values) / len(values) if values else 0.0


def curve(values: Iterable[float]) -> list[float]:
    """So many points of the distribution, denser to its slow end: 0, 50, ... 99, 99.9 percent."""
    ordered = sorted(values)
    if not ordered:
        return []
    shares = [1 - 10 ** (-3 * step / (POINTS - 1)) for step in range(POINTS)]
    return [round(quantile(ordered, share), 3) for share in shares]


def shares() -> list[float]:
    """The shares that the points of a curve stand for."""
    return [1 - 10 ** (-3 * step / (POINTS - 1)) for step in range(POINTS)]


def timeline(
    records: Sequence[Record], zero_ns: int, bin_s: float = 0.25
) -> list[tuple[float, float, int]]:
    """Second, p99 in ms, failures; by when requests should have started."""
    bins: dict[int, list[Record]] = {}
    for record in records:
        bins.setdefault(math.floor((record.intended - zero_ns) / 1e9 / bin_s), []).append(record)
    return [
        (
            round(number * bin_s, 3),
            quantile([each.latency_ms for each in found if each.ok], 0.99),
            sum(not each.ok for each in found),
        )
        for number, found in sorted(bins.items())
    ]


def middle(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, least, most; what is not a number does not count."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return math.nan, math.nan, math.nan
    return statistics.median(known), min(known), max(known)


def number(value: float) -> str:
    """Short, with about three digits that mean something."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "∞"
    if value and abs(value) < 10:
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}".rstrip("0").rstrip(".")
