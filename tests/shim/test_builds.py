"""The shim linked into the programs: under sanitizers, and with an allocator that counts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.harness.once import once

from .kit import (
    PROGRAMS,
    UNTOUCHED,
    compile_program,
    compiler_needed,
    free_port,
    play,
    scenarios,
    works,
)
from .primary import ROOT, fake_primary

pytestmark = compiler_needed

SHIM_SOURCES = sorted(str(path) for path in (ROOT / "csrc").glob("shim*.c"))
LINKED = [*SHIM_SOURCES, f"-I{ROOT / 'csrc'}", "-ldl"]
HARD = "-fno-sanitize-recover=all"
# The sanitizer's own start calls setrlimit, when nothing of it is ready yet.
EARLY = ("shim", "shim_room")
SANITIZERS = {"asan": "address,undefined", "tsan": "thread"}


@pytest.fixture(scope="module", params=SANITIZERS)
def sanitized(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The programs, each with the shim in it: a sanitizer's library wants to be loaded first."""
    kind: str = request.param
    flag = f"-fsanitize={SANITIZERS[kind]}"
    if not works(tmp_path_factory.mktemp(kind), flag):
        pytest.skip(f"the compiler has no {flag}")
    folder = once(tmp_path_factory, f"programs-{kind}", lambda folder: _sanitize(folder, flag))
    return {source.stem: folder / source.stem for source in PROGRAMS.glob("*.c")}


def _sanitize(folder: Path, flag: str) -> None:
    objects = []
    for source in SHIM_SOURCES:
        target = folder / (Path(source).stem + ".o")
        early = Path(source).stem in EARLY
        compile_program(Path(source), target, "-c", *([] if early else [flag, HARD]))
        objects.append(str(target))
    for program in PROGRAMS.glob("*.c"):
        compile_program(program, folder / program.stem, *objects, flag, "-ldl")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scenario"), scenarios())
def test_sanitized(
    name: str,
    scenario: str,
    sanitized: dict[str, Path],
    built: dict[str, Path],
    tmp_path: Path,
) -> None:
    expected = play(built[name], scenario)
    quiet = {
        # A cancelled thread leaves the marks of its frames behind, which its end then trips over.
        "ASAN_OPTIONS": "detect_leaks=0 use_sigaltstack=0",
        "TSAN_OPTIONS": "die_after_fork=0 report_signal_unsafe=0",
    }
    with fake_primary(tmp_path) as primary:
        assert play(sanitized[name], scenario, {**primary.environment, **quiet}) == expected
        assert bool(primary.requests) == ((name, scenario) not in UNTOUCHED)


def test_nothing_is_allocated(tmp_path: Path) -> None:
    trap = Path(__file__).parent / "trap" / "malloc.c"
    program = compile_program(trap, tmp_path / "trap", *LINKED)
    with fake_primary(tmp_path) as primary:
        done = subprocess.run(
            [program, str(free_port())],
            env=primary.environment,
            capture_output=True,
            text=True,
            timeout=60,
            start_new_session=True,
        )
        assert "accept4: 0\n" in done.stdout
        assert done.stdout.endswith("allocations: 0\n"), done.stdout
        assert primary.requests


def test_what_is_held_goes_with_its_listener_or_its_number(tmp_path: Path) -> None:
    """Nobody else's number is given out as a connection, and a child's closing is its own."""
    source = Path(__file__).parent / "trap" / "held.c"
    program = compile_program(source, tmp_path / "held", *LINKED)
    told = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == [
        "a child's close: held 1, open 1",
        "close: held 0, open 0",
        "a child's close_range: held 1, open 1",
        "close_range: held 0, open 0",
        "a child's dup2: held 1, open 1",
        "dup2: held 0, open 1",
        "a child's others: held 1, open 1",
        "others: held 1, open 1",
    ]
