"""The programs, compiled once per run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.once import once

from .kit import PROGRAMS, compile_program


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    def compile_all(folder: Path) -> None:
        for source in PROGRAMS.glob("*.c"):
            compile_program(source, folder / source.stem)

    folder = once(tmp_path_factory, "programs", compile_all)
    return {source.stem: folder / source.stem for source in PROGRAMS.glob("*.c")}
