"""The files that people write settings into: ``rrdispatch.toml``, ``pyproject.toml``, pm2's
``ecosystem.json`` and ``.yaml``, env files.

It owns finding, reading and the words for a broken file. It knows no setting.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rrdispatch.errors import ConfigError
from rrdispatch.files.problem import Lines, Problem

NAME = "rrdispatch.toml"
MOST = 4 << 20  # bytes of any file: /dev/zero has no end
_PYPROJECT = "pyproject.toml"
JSON, YAML = (".json",), (".yaml", ".yml")
PM2 = ("ecosystem.json", "ecosystem.yaml", "ecosystem.yml")
_SCRIPT = re.compile(r".*\.config\.([cm]?[jt]s)", re.DOTALL)
_ENV_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_.]*)\s*=\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class Place:
    """How a file calls a setting, and in which line."""

    name: str
    line: int | None = None


@dataclass(frozen=True)
class ConfigFile:
    """A settings table and where it stands; ``folder`` is what its relative paths start from."""

    path: Path
    table: Mapping[str, Any]
    lines: Lines = field(default_factory=dict, repr=False)
    places: Mapping[str, Place] = field(default_factory=dict, repr=False)  # else: its own name

    @property
    def folder(self) -> Path:
        return self.path.parent

    def source(self, key: str) -> str:
        """``rrdispatch.toml: band``."""
        return f"{self.path.name}: {self._place(key).name}"

    def at(self, key: str) -> str:
        """The same with the line, for whoever has to mend it."""
        place = self._place(key)
        line = "" if place.line is None else f"line {place.line}: "
        return f"{self.path.name}: {line}{place.name}"

    def line_of(self, key: str) -> str:
        """The path, and the line if it is known."""
        line = self._place(key).line
        return str(self.path) if line is None else f"{self.path}: line {line}"

    def _place(self, key: str) -> Place:
        line = self.lines.get((key,), self.lines.get((key.replace("_", "-"),)))
        return self.places.get(key) or Place(key, line)


def is_file(target: str) -> bool:
    """Settings, not a program: by how its name ends."""
    if any(map(str.isspace, target)) and not Path(target).is_file():
        return False  # a command line
    return target.endswith((".toml", *JSON, *YAML)) or _SCRIPT.fullmatch(target) is not None


def is_pm2(path: Path) -> bool:
    """Of pm2's kind."""
    return path.suffix in JSON + YAML


def find(folder: Path) -> ConfigFile | None:
    """``rrdispatch.toml`` of this folder, else its ``pyproject.toml`` if that speaks of us."""
    own, project = folder / NAME, folder / _PYPROJECT
    if own.is_file():
        return load(own)
    if project.is_file() and "tool.rrdispatch" in _text(project):
        return load(project)
    return None


def find_pm2(folder: Path) -> Path | None:
    """What pm2 would start here without being told more."""
    names = (*PM2, "ecosystem.config.js", "ecosystem.config.cjs", "ecosystem.config.mjs")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def load(path: Path) -> ConfigFile:
    """The table of one named file; a ``pyproject.toml`` must hold ``[tool.rrdispatch]``."""
    if match := _SCRIPT.fullmatch(path.name):
        raise _no_data(path, match[1])
    text = _text(path)
    try:
        data, lines = _parse(path, text)
    except Problem as problem:
        raise ConfigError(
            f"{path}: {problem}", hint="the file was not used at all; mend that line"
        ) from None
    if isinstance(data, list):  # pm2: a list of apps, and nothing else
        data, lines = {"apps": data}, {("apps", *way): line for way, line in lines.items()}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: it holds no table", hint="docs/configuration.md has examples")
    if path.name != _PYPROJECT:
        return ConfigFile(path, data, lines)
    table = data.get("tool", {}).get("rrdispatch")
    if not isinstance(table, dict):
        raise ConfigError(
            f"{path}: there is no [tool.rrdispatch] table", hint="add it, or name another file"
        )
    return ConfigFile(path, table, {w[2:]: n for w, n in lines.items() if w[:2] == _OURS})


_OURS = ("tool", "rrdispatch")


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
        with path.open("rb") as file:
            data = file.read(MOST + 1)
        if len(data) > MOST:
            raise ConfigError(f"{path}: it is too long", hint=f"{MOST >> 20} MiB at most")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}", hint="check the path and its permissions"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: byte {error.start} is not UTF-8", hint="save the file as UTF-8"
        ) from None


def _parse(path: Path, text: str) -> tuple[Any, Lines]:
    if path.suffix in YAML:
        from rrdispatch.files import yamls

        return yamls.load(text, str(path))
    if path.suffix in JSON:
        from rrdispatch.files import jsonc

        return jsonc.load(text), jsonc.lines(text)
    from rrdispatch.files import toml

    return toml.load(text), toml.lines(text)


def _no_data(path: Path, kind: str) -> ConfigError:
    """It is a program; what it would say has to be written down first."""
    name = path.name.partition(".config.")[0] + ".json"
    if kind in ("js", "cjs"):
        command = f"""node -p 'JSON.stringify(require("./{path.name}"), null, 2)' > {name}"""
    else:
        show = "m => console.log(JSON.stringify(m.default, null, 2))"
        command = f"""node -e 'import("./{path.name}").then({show})' > {name}"""
    return ConfigError(
        f"{path}: this is a program, and only data is read",
        hint=f"write down what it says, then start that: {command}",
    )


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
