"""Which core each slot's workers get (``--pin``): physical cores before their siblings.

Of the cores that this process may use, whatever the machine has. Files are read below a root that
the caller may choose.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path


def cores_in_turn(usable: Collection[int], root: Path = Path("/")) -> list[int]:
    """One hardware thread of each physical core, by number; then each one's second, and so on."""
    left = {core: _siblings(root, core) & set(usable) | {core} for core in sorted(usable)}
    turns: dict[int, list[int]] = {}
    for core, siblings in left.items():
        turns.setdefault(sorted(siblings).index(core), []).append(core)
    return [core for turn in sorted(turns) for core in turns[turn]]


def core_of(slot: int, root: Path = Path("/")) -> int:
    """Of this moment: what this process may use can change while it runs (cpuset)."""
    cores = cores_in_turn(os.sched_getaffinity(0), root)
    return cores[slot % len(cores)]


def wraps(workers: int) -> str:
    """What is to be said when there are more workers than cores; empty if not."""
    cores = len(os.sched_getaffinity(0))
    if workers <= cores:
        return ""
    each = -(-workers // cores)
    usable = "1 core" if cores == 1 else f"{cores} cores"
    return f"{workers} workers are pinned to {usable}: up to {each} share one"


def _siblings(root: Path, core: int) -> set[int]:
    """The hardware threads of its physical core: ``0,4`` or ``0-1``; none where nobody says."""
    path = root / f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"
    try:
        text = path.read_text(encoding="ascii").strip()
        return {number for part in text.split(",") for number in _span(part)}
    except (OSError, ValueError):
        return set()


def _span(part: str) -> range:
    first, _, last = part.partition("-")
    return range(int(first), int(last or first) + 1)
