"""What a generation runs with: interpreter, folder, environment; resolved once per generation.

With releases deployed by a symlink, a respawn after a rollback so runs the old release. Owns the
search for the interpreter; starts nothing.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrdispatch import ledger, mutants
from rrdispatch.cluster import program
from rrdispatch.cluster.identity import Identity, identity
from rrdispatch.errors import ConfigError
from rrdispatch.settings import Settings, load_env_file

_PASSED_ON = ("RRDISPATCH_PURE", mutants.VARIABLE, ledger.VARIABLE)


@dataclass(frozen=True, slots=True)
class Origin:
    """What the primary was started with."""

    cwd: str  # as it was typed: a symlink in it is followed anew by each generation
    environ: Mapping[str, str]

    @classmethod
    def here(cls) -> Origin:
        """This process' own."""
        ledger.prepare()
        cwd, typed = os.getcwd(), os.environ.get("PWD", "")
        if os.path.isabs(typed) and os.path.realpath(typed) == os.path.realpath(cwd):
            cwd = typed
        return cls(cwd, dict(os.environ))


@dataclass(frozen=True, slots=True)
class Launch:
    """One generation's facts."""

    settings: Settings
    python: str
    cwd: str
    environment: Mapping[str, str]
    argv: tuple[str, ...] = ()  # of a program; () for an app
    identity: Identity | None = None  # as whom, if not as ourselves


class Launches:
    """The facts of the generations that may still need them: the proven one and the last."""

    def __init__(
        self,
        settings: Settings,
        origin: Origin | None = None,
        known: Mapping[int, Mapping[str, Any]] | None = None,
    ) -> None:
        """``known``: what ``facts`` said to the primary that we follow."""
        self._settings = settings
        self.origin = origin or Origin.here()
        if known is None:
            self._known = {1: resolve(settings, self.origin)}
        else:
            self._known = {number: Launch(settings, **told) for number, told in known.items()}

    @property
    def known(self) -> tuple[int, ...]:
        """Generations whose facts were found."""
        return tuple(self._known)

    def facts(self) -> dict[int, dict[str, Any]]:
        """As plain data."""
        return {
            number: {
                "python": one.python, "cwd": one.cwd, "environment": dict(one.environment),
                "argv": one.argv,
                "identity": None if one.identity is None else dataclasses.asdict(one.identity),
            }
            for number, one in self._known.items()
        }  # fmt: skip

    def of(self, generation: int, proven: int) -> Launch:
        """Found when the first worker of a generation is started."""
        if generation not in self._known:
            self._known = {key: one for key, one in self._known.items() if key == proven}
            self._known[generation] = resolve(self._settings, self.origin)
        return self._known[generation]


def resolve(settings: Settings, origin: Origin) -> Launch:
    """The facts of this moment; ConfigError if they cannot be had."""
    cwd = os.path.realpath(os.path.join(origin.cwd, settings.cwd or ""))
    if not os.path.isdir(cwd):
        raise ConfigError(f"cwd: {cwd} is no folder", hint="check the path, or the symlink in it")
    python = _interpreter(settings, origin, cwd)
    # Only the folder is resolved: following a virtualenv's python itself would lead out of it.
    folder, name = os.path.split(python)
    python = os.path.join(os.path.realpath(folder), name)
    whom = identity(settings)
    environment = _environment(settings, origin, whom)
    path = environment.get("PATH", os.defpath)
    words = program.argv(
        settings.target, settings.arguments, settings.interpreter, python, cwd, path
    )
    return Launch(settings, python, cwd, environment, words, whom)


def _interpreter(settings: Settings, origin: Origin, cwd: str) -> str:
    if settings.python:
        found = shutil.which(settings.python, path=origin.environ.get("PATH"))
        if found is None:
            raise ConfigError(
                f"python: {settings.python} is not a program", hint="name an interpreter's path"
            )
        return os.path.abspath(found)
    active = origin.environ.get("VIRTUAL_ENV")
    for venv in (active, os.path.join(cwd, ".venv")):
        if venv and os.access(python := os.path.join(venv, "bin", "python"), os.X_OK):
            return python
    return sys.executable


def _environment(settings: Settings, origin: Origin, whom: Identity | None) -> dict[str, str]:
    """The primary's own, then env_file's, then env's; but not what the primary itself was told."""
    environment = {
        key: value
        for key, value in origin.environ.items()
        if not key.startswith("RRDISPATCH_") or key in _PASSED_ON
    }
    environment.setdefault("PYTHONUNBUFFERED", "1")
    environment.update(whom.variables() if whom is not None else {})
    if settings.env_file is not None:
        environment.update(load_env_file(Path(settings.env_file)))
    environment.update(settings.env)
    return environment
