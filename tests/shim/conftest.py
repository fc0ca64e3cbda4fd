"""The programs, compiled once per run."""

from __future__ import annotations

from pathlib import Path

import pytest

from .kit import PROGRAMS, compile_program


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("programs")
    return {
        source.stem: compile_program(source, folder / source.stem)
        for source in PROGRAMS.glob("*.c")
    }
