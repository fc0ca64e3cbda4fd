"""Describes the extension module to cffi. Runs at build time only; must not import the package.

The border is declared once, in ``csrc/rr_core.inc``: the C includes it, ``cdef`` reads it here.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from cffi import FFI  # type: ignore[import-untyped,unused-ignore]

CSRC = Path(__file__).resolve().parents[2] / "csrc"


def declarations() -> str:
    """The border as cdef wants it: without comments after a ``#define``, which it cannot read."""
    text = (CSRC / "rr_core.inc").read_text(encoding="utf-8")
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


def sources(*groups: str) -> list[str]:
    """The C files of the groups, relative to the root of the project as setuptools wants them."""
    found: list[str] = []
    for line in (CSRC / "sources.txt").read_text(encoding="utf-8").splitlines():
        group, _, name = line.partition(" ")
        if group in groups:
            found.append(f"csrc/{name}")
    return found


def system_group() -> str:
    """Which of the two operating system layers is built."""
    return "linux" if sys.platform == "linux" else "posix"


ffi = FFI()
ffi.cdef(declarations())
ffi.set_source(
    "rrdispatch._core._native",
    '#include "rrdispatch.h"',
    sources=sources("core", system_group()),
    include_dirs=["csrc"],
    define_macros=[("_GNU_SOURCE", "1")],
    extra_compile_args=["-std=gnu11", "-O2", "-fvisibility=hidden"],
    py_limited_api=True,
)
