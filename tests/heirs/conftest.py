"""A followed service for each test, on both dispatchers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.harness.followed import Followed
from tests.heirs.program import FollowedProgram
from tests.programs.program import PATIENT

Follow = Callable[..., Followed]


@pytest.fixture(params=["c", "python"])
def dispatcher(request: pytest.FixtureRequest) -> str:
    """Every promise holds with either of them."""
    kind: str = request.param
    return kind


@pytest.fixture
def follow(dispatcher: str, tmp_path: Path) -> Iterator[Follow]:
    """Starts a service with heirs; all its processes are gone afterwards."""
    with ExitStack() as running:

        def start(target: str, *options: str, workers: int = 2, **more: Any) -> Followed:
            common = ("-i", str(workers), "--dispatcher", dispatcher, "--no-access-log")
            home = tmp_path / "home"
            return running.enter_context(Followed(target, *common, *options, home=home, **more))

        yield start


@pytest.fixture
def program(dispatcher: str, tmp_path: Path) -> Iterator[Callable[..., FollowedProgram]]:
    """Starts a program with heirs; all its processes are gone afterwards."""
    with ExitStack() as running:

        def start(*options: str, workers: int = 2, **more: Any) -> FollowedProgram:
            common = ("-i", str(workers), "--dispatcher", dispatcher, *PATIENT)
            home = tmp_path / "home"
            return running.enter_context(FollowedProgram(*common, *options, home=home, **more))

        yield start
