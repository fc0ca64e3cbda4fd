"""The core in C and its twin in Python, one after the other."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from rrdispatch import _core

CORES = ["pure", *(["native"] if _core.NATIVE else [])]


def children() -> set[str]:
    """Of this process, whoever started them: another test may have left one."""
    tasks = Path("/proc/self/task").iterdir()
    return {pid for task in tasks for pid in (task / "children").read_text().split()}


@pytest.fixture(params=CORES)
def core(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(f"rrdispatch._core.{request.param}")
