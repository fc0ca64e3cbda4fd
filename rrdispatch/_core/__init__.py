"""The border to the operating system: the C core where it was built, else its stdlib-only twin."""

from __future__ import annotations

from .pure import *  # noqa: F403
