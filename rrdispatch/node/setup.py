"""What workers run: the settings of ``setup_primary``, and the command that is made of them."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrdispatch.checks import names_app
from rrdispatch.errors import ConfigError
from rrdispatch.settings import Settings as AppSettings
from rrdispatch.settings import from_values

BOOT = str(Path(__file__).with_name("boot.py"))
WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")


@dataclass(frozen=True, slots=True)
class Settings:
    """``cluster.settings``. ``exec``: a script, ``-m MODULE``, or an app MODULE:ATTRIBUTE."""

    exec: str = ""
    args: tuple[str, ...] = ()
    exec_argv: tuple[str, ...] = ()  # of the interpreter
    cwd: str | None = None
    silent: bool = False
    stdio: Sequence[Any] | None = None  # of 0, 1, 2: "inherit", "ignore", "pipe", a file, a number
    uid: int | None = None
    gid: int | None = None
    bind: tuple[str, ...] = ()  # of an app
    app: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # further settings of an app

    @property
    def is_app(self) -> bool:
        return names_app(self.exec)


def default() -> Settings:
    """This script again, with its arguments."""
    return Settings(script(), tuple(sys.argv[1:]), tuple(interpreter_flags(sys.orig_argv)))


def changed(before: Settings, options: Mapping[str, Any]) -> Settings:
    """ConfigError for an option that there is not."""
    known = {one.name for one in dataclasses.fields(Settings)}
    for name in options:
        if name not in known:
            raise ConfigError(
                f"setup_primary has no option {name!r}", hint=f"one of {', '.join(sorted(known))}"
            )
    told = {key: value for key, value in options.items() if value is not None}
    for key in ("args", "exec_argv", "bind"):
        if key in told:
            told[key] = (told[key],) if isinstance(told[key], str) else tuple(told[key])
    if "exec" in told:
        told["exec"] = os.fspath(told["exec"])
        told.setdefault("args", before.args)
    settings = dataclasses.replace(before, **told)
    if settings.bind and not settings.is_app:
        raise ConfigError(
            f"bind: {settings.exec} listens by itself, where it likes",
            hint="bind is for exec='MODULE:ATTRIBUTE'",
        )
    return settings


def script() -> str:
    """How this process' program is started again: a path, or ``-m MODULE``."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        name: str = spec.name
        return "-m " + name.removesuffix(".__main__")
    return os.path.abspath(getattr(main, "__file__", None) or "")


def interpreter_flags(words: Sequence[str]) -> list[str]:
    """Those before the script of a command line: ``-X dev -O``."""
    found: list[str] = []
    rest = iter(words[1:])
    for word in rest:
        if not word.startswith("-") or word in ("-", "-c", "-m"):
            break
        if word[1:2] != "-" and word[-1] in "mc" and len(word) > 2 and word[1] not in "WX":
            found.append(word[:-1])  # -Im MODULE
            break
        found.append(word)
        if word in WITH_VALUE:
            found.append(next(rest, ""))
    return found


def command(settings: Settings) -> tuple[str, ...]:
    """A worker's argv."""
    if not settings.exec or settings.exec == os.path.abspath(""):
        raise ConfigError(
            "there is no script that a worker could run",
            hint="setup_primary(exec=...) names one",
        )
    python = (sys.executable, *settings.exec_argv, BOOT)
    if settings.is_app:
        return (*python, "-a", settings.exec)
    if settings.exec.startswith("-m "):
        return (*python, "-m", settings.exec[3:], *settings.args)
    return (*python, settings.exec, *settings.args)


def app_settings(settings: Settings) -> AppSettings:
    """The same as rrdispatch's other parts know it."""
    values: dict[str, Any] = {"target": "script.py", "name": "cluster"}
    if settings.is_app:
        values = {"target": settings.exec, **settings.app}
        if settings.bind:
            values["bind"] = list(settings.bind)
    return from_values(values, where="setup_primary")
