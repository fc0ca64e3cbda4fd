"""The one format of what was measured: rows of a comparison or of the benchmark, as JSON.

A row is one figure of one contender, with its value in each round. ``against`` puts two files side
by side and says what got worse by more than both runs' own spread.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .figures import middle

FORMAT = 1
LEAST_CHANGE = 0.10  # smaller than this is never called a change


@dataclass
class Row:
    """``better``: "less", "more", or "" where neither is."""

    contender: str
    measure: str
    unit: str = ""
    better: str = "less"
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return middle(self.values)[0]

    @property
    def spread(self) -> tuple[float, float]:
        return middle(self.values)[1:]


@dataclass
class Results:
    """One run."""

    kind: str
    command: str = ""
    rows: list[Row] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    timelines: dict[str, list[tuple[float, float, int]]] = field(default_factory=dict)

    def add(
        self, contender: str, measure: str, value: float, unit: str = "", better: str = "less"
    ) -> None:
        """A value of this round; what could not be known is left out."""
        if math.isnan(value):
            return
        row = self.find(contender, measure)
        if row is None:
            row = Row(contender, measure, unit, better)
            self.rows.append(row)
        row.values.append(value)

    def find(self, contender: str, measure: str) -> Row | None:
        for row in self.rows:
            if (row.contender, row.measure) == (contender, measure):
                return row
        return None

    @property
    def contenders(self) -> list[str]:
        """As they were declared, in whatever order they were measured."""
        found = dict.fromkeys(row.contender for row in self.rows)
        declared = [name for name in self.versions if name in found]
        return list(dict.fromkeys([*declared, *found]))

    @property
    def measures(self) -> list[str]:
        return list(dict.fromkeys(row.measure for row in self.rows))

    def to_json(self) -> str:
        said = {"format": FORMAT, **asdict(self)}
        return json.dumps(_finite(said), indent=1) + "\n"

    @classmethod
    def read(cls, path: Path) -> Results:
        said = json.loads(path.read_text(encoding="utf-8"))
        if said.pop("format", None) != FORMAT:
            raise ValueError(f"{path}: not results in format {FORMAT}")
        rows = [Row(**row | {"values": _infinite(row["values"])}) for row in said.pop("rows")]
        return cls(rows=rows, **said)


def _finite(value: Any) -> Any:
    """JSON has no infinity: somebody got nothing becomes null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value


def _infinite(values: list[float | None]) -> list[float]:
    return [math.inf if value is None else value for value in values]


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    kernel = ".".join(platform.release().split(".")[:2])
    return {
        "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": f"{platform.system()} {kernel}, {platform.machine()}",
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "load before": round(os.getloadavg()[0], 2),
    }


@dataclass(frozen=True)
class Change:
    """``ratio``: new by old. ``verdict``: worse, better or empty."""

    row: Row
    old: Row
    ratio: float
    verdict: str


def against(new: Results, old: Results) -> Iterator[Change]:
    """What both have."""
    for row in new.rows:
        before = old.find(row.contender, row.measure)
        if before is not None and row.values and before.values:
            yield _change(row, before)


def _change(row: Row, old: Row) -> Change:
    ratio = row.median / old.median if old.median else (1.0 if not row.median else math.inf)
    apart = row.spread[0] > old.spread[1] or row.spread[1] < old.spread[0]
    verdict = ""
    if row.better and apart and abs(ratio - 1) > LEAST_CHANGE:
        verdict = "worse" if (ratio > 1) == (row.better == "less") else "better"
    return Change(row, old, ratio, verdict)
