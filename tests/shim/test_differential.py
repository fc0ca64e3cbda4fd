"""The same C program on a real listener and under the shim: the same results, the same errnos."""

from __future__ import annotations

from pathlib import Path

import pytest

from .kit import PROGRAMS, UNTOUCHED, compiler_needed, play, scenarios, shim_needed
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
