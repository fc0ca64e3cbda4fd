"""The same C program on a real listener and under the shim: the same results, the same errnos."""

from __future__ import annotations

from pathlib import Path

import pytest

from .kit import (
    MUSL,
    PROGRAMS,
    UNTOUCHED,
    compile_program,
    compiler_needed,
    play,
    scenarios,
    shim_needed,
)
from .primary import fake_primary

pytestmark = [shim_needed, compiler_needed]


@pytest.mark.parametrize(("name", "scenario"), scenarios())
def test_same(name: str, scenario: str, built: dict[str, Path], tmp_path: Path) -> None:
    expected = play(built[name], scenario)
    assert expected.endswith("exit 0\n"), expected
    with fake_primary(tmp_path) as primary:
        assert play(built[name], scenario, primary.preloaded) == expected
        assert bool(primary.requests) == ((name, scenario) not in UNTOUCHED)


def test_every_program_has_scenarios() -> None:
    assert {name for name, _ in scenarios()} == {path.stem for path in PROGRAMS.glob("*.c")}


# What that library lacks; and its accept4 knows no bad flag.
SUBSTITUTES = ["-Dstrerrorname_np=strerror", "-Dclose_range(a,b,c)=syscall(436,a,b,c)"]
OTHERS = [each for each in scenarios() if each != ("accept", "flags")]


@pytest.fixture(scope="module")
def with_musl(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    if MUSL is None:
        pytest.skip("needs another C library: apt install musl-tools")
    folder = tmp_path_factory.mktemp("musl")
    return {
        source.stem: compile_program(source, folder / source.stem, *SUBSTITUTES, compiler=MUSL)
        for source in PROGRAMS.glob("*.c")
    }


@pytest.mark.parametrize(
    ("name", "scenario"),
    [("accept", "blocking"), *(pytest.param(*each, marks=pytest.mark.slow) for each in OTHERS)],
)
def test_same_with_another_c_library(
    name: str, scenario: str, with_musl: dict[str, Path], tmp_path: Path
) -> None:
    """The one shim that there is, in programs that do not use the library it was built with."""
    expected = play(with_musl[name], scenario)
    assert expected.endswith("exit 0\n"), expected
    with fake_primary(tmp_path) as primary:
        assert play(with_musl[name], scenario, primary.preloaded) == expected
        assert bool(primary.requests) == ((name, scenario) not in UNTOUCHED)
