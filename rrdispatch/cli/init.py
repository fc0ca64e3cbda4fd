"""``rrdispatch init``: a commented settings file, made from the declaration of the settings."""

from __future__ import annotations

import json
import os
import re
import textwrap
from pathlib import Path

import click

from rrdispatch import files, settings
from rrdispatch.cli.options import shown_default
from rrdispatch.errors import ConfigError
from rrdispatch.options import Kind, Option, Wrong, limits

WIDTH = 100
_HEAD = """\
# Settings of rrdispatch: for `rrdispatch start` here, and `rrdispatch start FILE` from anywhere.
# A line that is commented out shows the default, or what could be there.
# The command line is stronger than the environment (RRDISPATCH_BAND=...), that than this file.

"""
_TAIL = """
# ---- Variables for the workers

# [env]
# DEBUG = "1"

# ---- Several apps: all that stands above is shared by them then. A table's name is the app's.

# [apps.web]
# target = "shop.main:app"
# bind = "127.0.0.1:8000"
#
# [apps.jobs]
# target = "jobs.py"
# listen = false
"""
_WORDS = {Kind.PATH: "PATH", Kind.PROGRAM: "PROGRAM", Kind.TEXT: "TEXT", Kind.SWITCH: "true"}


@click.command("init")
@click.argument("target", required=False)
def command(target: str | None) -> None:
    """Write a rrdispatch.toml into this folder, with every setting in it and what it does.

    A file that is there is left alone.
    """
    _check(target)
    path = Path(files.NAME)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise ConfigError(f"there is a {path} already", hint="it is left as it is") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", hint="permit it, or make room") from None
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text(target))
    click.echo(f"wrote {path}\nnext: {'' if target else 'say target in it, then '}rrdispatch start")


def _check(target: str | None) -> None:
    if files.find(Path()) is not None and not Path(files.NAME).exists():
        raise ConfigError(
            "pyproject.toml has a [tool.rrdispatch] table, which would not be read any more",
            hint="go on there, or take it away first",
        )
    if target is not None:
        settings.from_sources({"target": target}, {})


def text(target: str | None = None) -> str:
    """The whole file."""
    parts = [_HEAD]
    for key, option in settings.OPTIONS.items():
        if option.kind is Kind.MAPPING:
            continue  # a table: it has to stand behind all others
        if option.begins:
            parts.append(f"# ---- {option.begins}\n\n")
        said = target if key == "target" else None
        parts.append(_setting(key, option, said))
    return "".join(parts).rstrip("\n") + "\n" + _TAIL


def _setting(key: str, option: Option, said: str | None) -> str:
    spread = limits(option) if option.kind is Kind.INTEGER else ""
    about = option.help + (f" One of: {', '.join(option.choices)}." if option.choices else "")
    about += f" ({spread})" if spread else ""
    lines = textwrap.wrap(about, WIDTH - 2, break_long_words=False, break_on_hyphens=False)
    value = f"{key} = {json.dumps(said)}" if said else f"# {key} = {_default(key, option)}"
    return "".join(f"# {line}\n" for line in lines) + f"{value}\n\n"


def _default(key: str, option: Option) -> str:
    """As TOML; without a default what kind of thing it is."""
    value = getattr(settings.DEFAULTS, key)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return json.dumps(list(value))
    if option.kind in (Kind.DURATION, Kind.SIZE) and value is not None:
        shown = shown_default(key)
        return shown if shown.isdigit() else f'"{shown}"'
    if value is None or (value == "" and option.check is not None):
        return _WORDS[option.kind] if option.kind is Kind.SWITCH else json.dumps(_sample(option))
    return json.dumps(value)


def _sample(option: Option) -> str:
    """A word that the setting would take."""
    words = [*re.split(r"[|,\s]", option.metavar), _WORDS[option.kind]]
    return next((word for word in words if word and _takes(option, word)), "")


def _takes(option: Option, word: str) -> bool:
    try:
        return option.check is None or bool(option.check(word))
    except Wrong:
        return False
