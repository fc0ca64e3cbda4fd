"""Packages that only some apps need: a clear word about which to install where."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from rrdispatch.errors import MissingExtraError


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import ``module``, or say that ``extra`` is not installed in this interpreter."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise missing(module, extra, purpose) from None


def missing(module: str, extra: str, purpose: str) -> MissingExtraError:
    return MissingExtraError(
        f"{purpose} needs {module}, which {sys.executable} does not have",
        hint=f'{sys.executable} -m pip install "rrdispatch[{extra}]"',
    )
