"""What ``rrdispatch save`` keeps: all apps of one moment, for whoever loses them later."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrdispatch.control import definitions, kept, statedir
from rrdispatch.control.definitions import Definition
from rrdispatch.errors import ControlError

FORMAT = 1
FILE = "saved.json"


@dataclass(frozen=True)
class Saved:
    """``spoilt`` says so if the last one could not be read and this is the one before."""

    at: float
    apps: tuple[Definition, ...]
    spoilt: str = ""


def path() -> Path:
    return statedir.home() / FILE


def save(apps: Sequence[Definition]) -> Path:
    """Replaces what was saved before, which stays beside it."""
    told = {"format": FORMAT, "at": time.time(), "apps": [dataclasses.asdict(app) for app in apps]}
    try:
        with definitions.lock_ids(statedir.home()):
            kept.write(path(), told)
    except OSError as error:
        raise ControlError(
            f"nothing was saved: {error.strerror}", hint=f"make room for, or permit, {path()}"
        ) from error
    return path()


def load() -> Saved | None:
    """None if nothing was ever saved."""
    found = kept.read(path(), _made)
    return None if found is None else dataclasses.replace(found[0], spoilt=found[1])


def _made(told: Any) -> Saved:
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise ValueError(f"not of format {FORMAT}")
    apps = told.get("apps")
    if not isinstance(apps, list) or not all(isinstance(app, dict) for app in apps):
        raise ValueError("apps is no list")
    return Saved(float(told["at"]), tuple(definitions.made(app, app["name"]) for app in apps))
