"""A home for each test, as for the other commands."""

from __future__ import annotations

from tests.cli.conftest import plane

__all__ = ["plane"]
