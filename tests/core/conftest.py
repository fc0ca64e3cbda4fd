"""The core in C and its twin in Python, one after the other."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest

from rrdispatch import _core

CORES = ["pure", *(["native"] if _core.NATIVE else [])]


@pytest.fixture(params=CORES)
def core(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(f"rrdispatch._core.{request.param}")
