"""Every test of the dispatcher runs on both of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rrdispatch import _core

from .heirs import House
from .rig import Rig, rig

KINDS = ["c", "python"] if _core.dispatcher_program() else ["python"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of dispatcher."""
    kind: str = request.param
    return kind


@pytest.fixture
def dispatcher(kind: str) -> Iterator[Rig]:
    """A running dispatcher with default settings, without listeners or workers.

    But for the stall timeout: a test that is not about it may be slow.
    """
    with rig(kind) as made:
        made.settings()
        yield made


@pytest.fixture
def house(dispatcher: Rig, tmp_path: Path) -> Iterator[House]:
    """That dispatcher, with a primary that may die."""
    made = House(dispatcher, tmp_path)
    yield made
    made.close()


@pytest.fixture(params=["inet", "inet6", "unix"])
def family(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What to give to `Rig.listen`."""
    return str(tmp_path / "app.sock") if request.param == "unix" else str(request.param)
