"""How big the bulk tests are: small, or in full with ``RRDISPATCH_FULL=1`` (``make accept``).

The promises tested are the same in both sizes; only counts and durations differ.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

FULL = os.environ.get("RRDISPATCH_FULL", "") not in ("", "0")

T = TypeVar("T")


def size(small: T, full: T) -> T:
    """``full`` when the full size was asked for, else ``small``."""
    return full if FULL else small


def pairs(kinds: Sequence[str], dispatchers: Sequence[str] = ("c", "python")) -> list[list[str]]:
    """Each kind with the first dispatcher, each dispatcher with the first kind; all, when full."""
    return [
        [kind, dispatcher]
        for kind in kinds
        for dispatcher in dispatchers
        if FULL or kind == kinds[0] or dispatcher == dispatchers[0]
    ]
