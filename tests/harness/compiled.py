"""Bytecode before the first start: thousands of starts of Python follow."""

from __future__ import annotations

import compileall
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def compile_all() -> None:
    """With PYTHONDONTWRITEBYTECODE, as containers set it, each start would compile anew."""
    for name in ("rrdispatch", "tests"):
        compileall.compile_dir(ROOT / name, quiet=2)
