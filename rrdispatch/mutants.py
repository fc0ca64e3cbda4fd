"""Faults on purpose: ``RRDISPATCH_MUTANT=name[,name]`` breaks one promise each.

For the tests that must see it broken (docs/reliability.md); never set in a service. Read nowhere
else. The primary hands it on to its workers.
"""

from __future__ import annotations

import functools
import os

from rrdispatch.errors import ConfigError

VARIABLE = "RRDISPATCH_MUTANT"
NAMES = (
    "no-rescue",
    "no-probe",
    "leaky-fds",
    "batch-16",
    "no-room-check",
    "no-heir",
    "late-dispatcher",
    "no-pause",
    "leaky-dispatcher",
    "loose-queue",
    "no-drain",
    "no-probation",
)


def enabled(name: str) -> bool:
    """Is this fault wanted in this process?"""
    return name in _wanted()


@functools.cache
def _wanted() -> frozenset[str]:
    wanted = frozenset(filter(None, os.environ.get(VARIABLE, "").split(",")))
    unknown = sorted(wanted - set(NAMES))
    if unknown:
        raise ConfigError(
            f"{VARIABLE}: there is no {', '.join(unknown)}", hint=f"one of {', '.join(NAMES)}"
        )
    return wanted
