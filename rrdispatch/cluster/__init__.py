"""The primary: decides what every worker should be (pure), and makes it so (effects).

Importing this package is light; import its modules for what they hold. And ``from rrdispatch import
cluster`` is Node's API (docs/node.md): its names are found in ``rrdispatch.node`` when they are
first asked for, also the one that a module of this package has (``workers``).
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

NAMES = frozenset((
    "SCHED_NONE", "SCHED_RR", "Worker", "disconnect", "fork", "is_primary", "is_worker", "off",
    "on", "once", "run", "scheduling_policy", "settings", "setup_primary", "worker", "workers",
))  # fmt: skip


class _Door(ModuleType):
    """This module: some of its names are somebody else's, also to be set."""

    def __getattr__(self, name: str) -> Any:
        if name not in NAMES:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        api = importlib.import_module("rrdispatch.node.api")
        return getattr(api if name in api.CONSTANTS else api.cluster, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in NAMES and isinstance(value, ModuleType):
            return  # the import of a module of that name, which is found in sys.modules
        if name in NAMES:
            setattr(importlib.import_module("rrdispatch.node.api").cluster, name, value)
        else:
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *NAMES})


sys.modules[__name__].__class__ = _Door
