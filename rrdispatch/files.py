"""The files that people write settings into: ``rrdispatch.toml``, ``pyproject.toml``, env files.

It owns finding, reading and the words for a broken file. It knows no setting.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrdispatch.errors import ConfigError

NAME = "rrdispatch.toml"
_PYPROJECT = "pyproject.toml"
_ENV_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_.]*)\s*=\s*(.*)", re.DOTALL)
_POSITION = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass(frozen=True)
class ConfigFile:
    """A settings table and where it stands; ``folder`` is what its relative paths start from."""

    path: Path
    table: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        return self.path.parent


def find(folder: Path) -> ConfigFile | None:
    """``rrdispatch.toml`` of this folder, else its ``pyproject.toml`` if that speaks of us."""
    own, project = folder / NAME, folder / _PYPROJECT
    if own.is_file():
        return load(own)
    if project.is_file() and "tool.rrdispatch" in _text(project):
        return load(project)
    return None


def load(path: Path) -> ConfigFile:
    """The table of one named file; a ``pyproject.toml`` must hold ``[tool.rrdispatch]``."""
    data = _parse(path, _text(path))
    if path.name != _PYPROJECT:
        return ConfigFile(path, data)
    table = data.get("tool", {}).get("rrdispatch")
    if not isinstance(table, dict):
        raise ConfigError(
            f"{path}: there is no [tool.rrdispatch] table", hint="add it, or name another file"
        )
    return ConfigFile(path, table)


def load_env(path: Path) -> dict[str, str]:
    """The variables of an env file: ``KEY=VALUE`` lines, ``#`` comments, quotes as in a shell."""
    found: dict[str, str] = {}
    for number, raw in enumerate(_text(path).splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _ENV_LINE.fullmatch(line)
        value = _unquote(match[2]) if match else None
        if match is None or value is None:
            raise ConfigError(
                f"{path}: line {number}: {line[:60]!r} is not KEY=VALUE",
                hint="one variable a line; quotes must be closed; comments start with #",
            )
        found[match[1]] = value
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}", hint="check the path and its permissions"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: byte {error.start} is not UTF-8", hint="save the file as UTF-8"
        ) from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{path}: {_describe(str(error), text)}",
            hint="the file was not used at all; mend that line",
        ) from None
    return data


def _describe(problem: str, text: str) -> str:
    """``line 3, column 7: …``; at a sudden end the last line that holds something."""
    match = _POSITION.search(problem)
    if match is None:
        return problem
    what = problem[: match.start()]
    what = what[:1].lower() + what[1:]
    if match[1]:
        return f"line {match[1]}, column {match[2]}: {what}"
    return f"line {max(1, len(text.rstrip().splitlines()))}: the file ends too early: {what}"


def _unquote(value: str) -> str | None:
    """The value without its quotes or its trailing comment; None if a quote is left open."""
    if value[:1] == "'":
        match = re.fullmatch(r"'([^']*)'\s*(?:#.*)?", value)
        return match[1] if match else None
    if value[:1] == '"':
        match = re.fullmatch(r'"((?:[^"\\]|\\.)*)"\s*(?:#.*)?', value)
        return _unescape(match[1]) if match else None
    return re.sub(r"(?:^|\s+)#.*$", "", value).rstrip()


def _unescape(text: str) -> str:
    names = {"n": "\n", "t": "\t", "r": "\r"}
    return re.sub(r"\\(.)", lambda match: names.get(match[1], match[1]), text)
