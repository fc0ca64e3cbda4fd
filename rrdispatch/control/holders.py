"""Which app of the list it is that has an address: by the lock that its primary holds."""

from __future__ import annotations

import contextlib
import os

from rrdispatch.control import statedir
from rrdispatch.errors import BindError, ConfigError


def tell_whose(error: BaseException | None) -> None:
    """An app of ours is stopped by its name: the error says so."""
    if not isinstance(error, BindError) or error.holder is None:
        return
    holder, error.holder = error.holder, None  # it is told once
    if (name := app_of(holder)) is not None:
        error.message += f": the app {name}"
        error.hint = f"rrdispatch stop {name}, or choose another port; port 0 takes a free one"


def app_of(primary: int) -> str | None:
    """None if it is no primary, or one of another state folder, or of another user."""
    opened = set()
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{primary}/fd"):
            with contextlib.suppress(OSError):
                found = os.stat(entry.path)
                opened.add((found.st_dev, found.st_ino))
    with contextlib.suppress(OSError, ConfigError):
        for name in statedir.names() if opened else ():
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(statedir.home() / name / statedir.LOCK)
                if (found.st_dev, found.st_ino) in opened:
                    return name
    return None
