"""Workers for the tests of this folder, ended with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from tests.worker.fake_primary import FakePrimary

APPS = Path(__file__).parent / "apps"
TLS = Path(__file__).parent / "tls"

Start = Callable[..., FakePrimary]

_OWN = {item.name for item in fields(FakePrimary)}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a worker of an app in ``apps/``; keywords are FakePrimary's, or else settings."""
    with ExitStack() as stack:

        def start_one(target: str, **given: Any) -> FakePrimary:
            own = {key: given.pop(key) for key in list(given) if key in _OWN}
            settings = {"target": target, "drain_timeout": 10.0, **given}
            primary = FakePrimary(settings, **{"cwd": APPS, "folder": tmp_path, **own})
            return stack.enter_context(primary)

        yield start_one
