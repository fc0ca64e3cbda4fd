"""The core in C and its twin in Python, one after the other."""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from types import ModuleType

import pytest

from rrdispatch import _core

CORES = ["pure", *(["native"] if _core.NATIVE else [])]


def children() -> set[str]:
    """Of this process, whoever started them: another test may have left one."""
    found: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread of an earlier test that ends just now
            found.update((task / "children").read_text().split())
    return found


@pytest.fixture(params=CORES)
def core(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(f"rrdispatch._core.{request.param}")
