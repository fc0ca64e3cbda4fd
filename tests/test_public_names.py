"""The names that users may rely on: they are here, they load, and nothing else is offered."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from pathlib import Path

import pytest

import rrdispatch
from rrdispatch import errors

ROOT = Path(__file__).parent.parent

NAMES = [
    "BindError", "Cluster", "ConfigError", "ControlError", "DispatcherError", "Error", "Listener",
    "MissingExtraError", "ProtocolError", "ReloadError", "StartError", "TargetError",
    "__version__", "cluster", "connect", "on_park", "on_resume", "ready",
]  # fmt: skip


def test_what_is_offered() -> None:
    assert rrdispatch.__all__ == NAMES
    assert dir(rrdispatch) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_name_loads(name: str) -> None:
    assert getattr(rrdispatch, name) is not None


def test_a_wrong_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Clutser'"):
        rrdispatch.Clutser  # noqa: B018


@pytest.mark.parametrize("name", ["start_server", "create_server", "Cluster", "connect"])
def test_asyncio_names(name: str) -> None:
    assert getattr(importlib.import_module("rrdispatch.aio"), name) is not None


def test_every_error_is_public_and_of_one_tree() -> None:
    classes = [thing for thing in vars(errors).values() if isinstance(thing, type)]
    assert {thing.__name__ for thing in classes} == {n for n in NAMES if n.endswith("Error")}
    assert all(issubclass(thing, errors.Error) for thing in classes)


def test_the_exit_codes_are_documented() -> None:
    text = (ROOT / "docs" / "exit-codes.md").read_text()
    documented = {
        name: int(row[1])
        for row in re.finditer(r"^\| (\d+) \|(.*?)\|", text, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row[2])
    }
    classes = [thing for thing in vars(errors).values() if isinstance(thing, type)]
    actual = {thing.__name__: thing.exit_code for thing in classes}
    actual.pop("ProtocolError")  # a peer's fault: it never leaves a process
    assert documented == actual


def test_one_version() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{rrdispatch.__version__}"' in project
    assert f"## {rrdispatch.__version__}" in (ROOT / "CHANGELOG.md").read_text()
