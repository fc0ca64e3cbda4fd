"""Figures from records: waiting with its confidence, the split, tables, and the plot."""

from __future__ import annotations

import importlib
import math
import statistics
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .sim_engine import Record

WARM_UP = 0.1  # of the requests: the system began empty
BATCHES = 20
# Okabe and Ito's colours, which colour-blind people can tell apart; markers for those who print.
STYLES = [
    ("#0072B2", "o"), ("#56B4E9", "v"), ("#009E73", "s"), ("#D55E00", "X"), ("#E69F00", "D"),
    ("#000000", "*"), ("#CC79A7", "P"),
]  # fmt: skip
HEAD = ("policy", "mean ms", "± 95 %", "p50", "p99", "p99.9", "p99 by round", "max/min", "moved")


@dataclass(frozen=True)
class Row:
    """One policy at one load. Waiting in milliseconds."""

    policy: str
    workers: int
    load: float
    mean: float
    confidence: float
    p50: float
    p99: float
    p999: float
    p99_rounds: tuple[float, float]
    split: float  # connections of the busiest worker / of the idlest
    moved: float  # share of the connections

    def cells(self) -> list[str]:
        low, high = self.p99_rounds
        split = f"{self.split:.2f}" if math.isfinite(self.split) else "one got none"
        figures = (self.mean, self.confidence, self.p50, self.p99, self.p999)
        moved = f"{self.moved:.1%}"
        return [self.policy, *map(_short, figures), f"{_short(low)}-{_short(high)}", split, moved]


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def settled(record: Record) -> array[float]:
    """The waits without those of the beginning."""
    return record.waits[int(len(record.waits) * WARM_UP) :]


def batch_means(waits: Sequence[float], batches: int = BATCHES) -> list[float]:
    """Means of consecutive parts, long enough to depend little on each other.

    Batch means: A. M. Law, "Simulation Modeling and Analysis", McGraw-Hill, chapter 9.
    """
    size = len(waits) // batches
    return [statistics.fmean(waits[i * size : (i + 1) * size]) for i in range(batches)]


def standard_error(means: Sequence[float]) -> float:
    """Of the mean of these means."""
    return statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else 0.0


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that `share` of them do not exceed."""
    return ordered[max(0, min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1))]


def summarise(policy: str, load: float, records: Sequence[Record]) -> Row:
    """All rounds of one policy together."""
    means: list[float] = []
    p99s, everything = [], array("d")
    for record in records:
        waits = settled(record)
        means += batch_means(waits)
        p99s.append(quantile(sorted(waits), 0.99) * 1000)
        everything += waits
    ordered = sorted(everything)
    split = [max(each.connections) / max(min(each.connections), 1e-9) for each in records]
    given = sum(sum(each.connections) for each in records)
    return Row(
        policy,
        len(records[0].connections),
        load,
        mean=statistics.fmean(ordered) * 1000,
        confidence=1.96 * standard_error(means) * 1000,
        p50=quantile(ordered, 0.5) * 1000,
        p99=quantile(ordered, 0.99) * 1000,
        p999=quantile(ordered, 0.999) * 1000,
        p99_rounds=(min(p99s), max(p99s)),
        split=math.inf if max(split) > 1e6 else statistics.median(split),
        moved=sum(each.moved for each in records) / given,
    )


def text_table(rows: Iterable[Row]) -> str:
    """For a terminal."""
    cells = [list(HEAD), *(row.cells() for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEAD))]
    lines = []
    for line in cells:
        first, *others = line
        right = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *right]))
    return "\n".join(lines)


def markdown_table(rows: Iterable[Row]) -> str:
    """For a document."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    return "\n".join(lines)


def plotter() -> Any:
    """matplotlib's pyplot, drawing into files; SystemExit says how to get it."""
    try:
        matplotlib = importlib.import_module("matplotlib")
        matplotlib.use("Agg")
        return importlib.import_module("matplotlib.pyplot")
    except ImportError:
        raise SystemExit("--plot needs matplotlib: python -m pip install matplotlib") from None


def plot(pyplot: Any, rows: Sequence[Row], title: str, path: Path) -> None:
    """p99 over the load, a panel for each number of workers."""
    counts = sorted({row.workers for row in rows})
    names = list(dict.fromkeys(row.policy for row in rows))
    figure, panels = pyplot.subplots(
        1, len(counts), figsize=(4.2 * len(counts), 4.2), sharey=True, squeeze=False
    )
    for panel, workers in zip(panels[0], counts, strict=True):
        for name, (colour, marker) in zip(names, STYLES, strict=False):
            mine = sorted((r.load, r.p99) for r in rows if (r.policy, r.workers) == (name, workers))
            loads, p99s = zip(*mine, strict=True)
            panel.plot(loads, p99s, color=colour, marker=marker, label=name, linewidth=1.3)
        # Linear below 1 ms: a p99 of exactly nothing has its place, too.
        panel.set_yscale("symlog", linthresh=1.0)
        panel.set(title=f"{workers} workers", xlabel="load", ylim=(0, None))
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("p99 of waiting, ms")
    panels[0][0].legend(fontsize=8)
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
