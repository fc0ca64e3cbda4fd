"""The figures, as PNG; with matplotlib, else none.

The colours are Okabe and Ito's, which colour-blind people tell apart; lines also differ by dashes,
and every bar has its name and figure beside it.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import figures
from .answers import OURS
from .results import Results

GET = "No figures: matplotlib is not installed (pip install matplotlib, or the group `figures`)."
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#999999")
DASHES = ("-", "--", "-.", ":")
SPLITS = ("split at 1: most/fewest", "split at 40: most/fewest", "split at 200: most/fewest")
MOST = 10.0  # a bar ends here; beyond it, its number says


def draw(results: Results, directory: Path) -> tuple[dict[str, Path], str]:
    """Titles and files; or why there are none."""
    try:
        import matplotlib
    except ImportError:
        return {}, GET
    matplotlib.use("Agg")
    drawn: dict[str, Path] = {}
    for title, name, picture in _all(results):
        path = directory / f"{name}.png"
        figure = picture(results)
        said = textwrap.fill(f"{title}. To make it again: {results.command}", 130)
        figure.text(0.01, -0.02, said, fontsize=7, va="top", color="#555555")
        figure.savefig(path, dpi=110, bbox_inches="tight")
        _pyplot().close(figure)
        drawn[title] = path
    return drawn, ""


def _all(results: Results) -> list[tuple[str, str, Callable[[Results], Any]]]:
    found: list[tuple[str, str, Callable[[Results], Any]]] = []
    if any(name in results.measures for name in SPLITS):
        found.append(("Split over the workers: most by fewest connections", "split", split))
    if "connection per request: CPU" in results.measures:
        found.append(("CPU per request", "cpu", cpu))
    for number, test in enumerate(results.curves):
        title = f"Waiting time, {test}: share of requests that took at least so long"
        found.append((title, f"latency{number}", _curve(test)))
    if results.timelines:
        found.append(("p99 and failures around a reload (at 0 s)", "reload", reload))
    return found


def _pyplot() -> Any:
    import matplotlib.pyplot as pyplot

    return pyplot


def style(number: int, name: str = "") -> dict[str, Any]:
    """No two alike among 32; ours by default is the broad one, over the others."""
    return {
        "linewidth": 2.6 if name == OURS else 1.3,
        "zorder": 3 if name == OURS else 2,
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[(number + number // len(COLOURS)) % len(DASHES)],
    }


def _bars(results: Results, names: list[str], label: str, most: float) -> Any:
    """A group per contender, a bar per measure."""
    contenders = [each for each in results.contenders if results.find(each, names[0])]
    height = 0.8 / len(names)
    figure, axes = _pyplot().subplots(figsize=(9, 0.7 + 0.55 * len(contenders)))
    for number, name in enumerate(names):
        for place, contender in enumerate(contenders):
            row = results.find(contender, name)
            value = row.median if row and row.values else math.nan
            if math.isnan(value):
                continue
            at, shown = place + (number - (len(names) - 1) / 2) * height, min(value, most)
            axes.barh(at, shown, height * 0.9, color=COLOURS[number],
                      label=name if place == 0 else None)  # fmt: skip
            axes.text(shown, at, f" {figures.number(value)}", va="center", fontsize=7)
    axes.set_yticks(range(len(contenders)), contenders)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    _bare(axes)
    return figure


def _names(axes: Any) -> None:
    """Beside the lines, not over them: there may be twenty."""
    axes.legend(
        fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1), handlelength=4
    )


def _bare(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _plain(axis: Any) -> None:
    """Numbers, not powers of ten."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def split(results: Results) -> Any:
    names = [name for name in SPLITS if name in results.measures]
    return _bars(results, names, "most by fewest; 1 is even, ∞: somebody got nothing", MOST)


def cpu(results: Results) -> Any:
    names = ["connection per request: CPU", "keep-alive: CPU"]
    names = [name for name in names if name in results.measures]
    return _bars(results, names, "microseconds of CPU per answered request, all processes", 1e9)


def _curve(test: str) -> Callable[[Results], Any]:
    def picture(results: Results) -> Any:
        figure, axes = _pyplot().subplots(figsize=(9, 5))
        rest = [1 - share for share in figures.shares()]
        for number, name in enumerate(results.contenders):
            points = results.curves[test].get(name)
            if points:
                axes.plot([max(point, 0.1) for point in points], rest, label=name,
                          **style(number, name))  # fmt: skip
        for limit in figures.PATIENCE_MS:
            axes.axvline(limit, color="#bbbbbb", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_yscale("log")
        _plain(axes.xaxis)
        axes.set_yticks([1, 0.1, 0.01, 0.001], ["100 %", "10 %", "1 %", "0.1 %"])
        axes.set_xlabel("milliseconds from when the request should have started")
        axes.set_ylabel("share that took at least so long")
        _names(axes)
        _bare(axes)
        return figure

    return picture


def reload(results: Results) -> Any:
    from matplotlib.ticker import LogLocator

    figure, (above, below) = _pyplot().subplots(2, 1, figsize=(9, 6), sharex=True)
    for number, name in enumerate(results.contenders):
        bins = results.timelines.get(name)
        if not bins:
            continue
        seconds = [each[0] for each in bins]
        look = style(number, name)
        above.plot(seconds, [max(each[1], 0.1) for each in bins], label=name, **look)
        below.plot(seconds, [each[2] for each in bins], **look)
    for axes in (above, below):
        axes.axvline(0, color="#bbbbbb", linewidth=0.8)
        _bare(axes)
    above.set_yscale("log")
    above.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    _plain(above.yaxis)
    below.set_ylim(bottom=0, top=max(1.05, below.get_ylim()[1]))
    above.set_ylabel("p99, ms")
    below.set_ylabel("failed requests in 0.25 s")
    below.set_xlabel("seconds since the reload was asked for")
    _names(above)
    return figure
