"""What one setting is: its kind, how a text or a value becomes it, and how it is described.

It owns the reading of values and the words of their errors. It knows no setting by name
(``settings.py`` declares them) and neither command line, environment nor files.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rrdispatch.errors import ConfigError

T = TypeVar("T")


class Kind(enum.Enum):
    """How a value is written; the enum's value is what the docs call it."""

    TEXT = "text"
    COUNT = "number, or a word for one"
    PATH = "path"
    PROGRAM = "path, or a name found on PATH"
    INTEGER = "integer"
    DURATION = "duration"
    SIZE = "size"
    SWITCH = "on or off"
    LIST = "list"
    NUMBERS = "list of integers"
    MAPPING = "table of texts"


@dataclass(frozen=True)
class Option:
    """The description of a setting, kept in the metadata of its dataclass field."""

    kind: Kind
    help: str
    begins: str = ""  # the title of the section that this setting opens
    flags: tuple[str, ...] = ()  # short flags beside --key
    variables: tuple[str, ...] = ()  # other tools' environment variables, after RRDISPATCH_KEY
    own_variable: bool = True
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    metavar: str = ""
    app: bool = False  # the runner inside a worker needs it
    optional: bool = False  # None is a value
    typed: bool = True  # it has an option of its own on the command line
    only_off: bool = False  # a switch whose positive form is another option's
    check: Callable[[str], str] | None = None  # returns the text as it is kept, or raises Wrong


def setting(default: T, kind: Kind, about: str, **more: Any) -> T:
    """A dataclass field with its ``Option``; typed as the value, as ``dataclasses.field`` is."""
    value: T = field(default=default, metadata={"option": Option(kind, about, **more)})
    return value


class Wrong(ValueError):
    """A value that does not fit; ``hint`` says what would. The reader adds whose value it is."""

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.hint = hint


_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(ms|s|m|h|d)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST = 366 * 86400.0
_SIZE = re.compile(r"([0-9]{1,15})\s*([kmg]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_ON = frozenset(("1", "true", "yes", "on"))
_OFF = frozenset(("0", "false", "no", "off"))
_ENVIRONMENT_NAME = re.compile(r"[^=\0]+")


def read(option: Option, value: object) -> Any:
    """The value of this option that ``value`` (text from a shell, or a TOML value) stands for."""
    if value is None and option.optional:
        return None
    return _READERS[option.kind](option, value)


def duration(value: object) -> float:
    """Seconds: 0.2, "0.2", "200ms", "3s", "1m", "2h"."""
    hint = "a number of seconds, or with a unit: 200ms, 3s, 1m, 2h"
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise Wrong(f"{value!r} is not a duration", hint)
        return float(match[1]) * _UNITS[match[2] or "s"]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Wrong(f"{value!r} is not a duration", hint)
    if not math.isfinite(value) or value < 0:
        raise Wrong(f"{value!r} is not a duration", hint)
    return float(value)


def size(value: object) -> int:
    """Bytes: 10485760, "10M", "512K", "1G"."""
    hint = "a number of bytes, or with a unit: 512K, 10M, 1G"
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is not None:
        return int(match[1]) * _SIZES[match[2].lower()]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Wrong(f"{value!r} is not a size", hint)
    return value


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that somebody who typed ``word`` most likely meant."""
    import difflib

    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


# What gunicorn and uvicorn call what has another name here (docs/from-gunicorn.md and its like).
ELSEWHERE = {
    "workers": "instances", "worker": "instances", "w": "instances",
    "host": "bind", "port": "bind", "uds": "bind", "fd": "bind",
    "worker_connections": "limit_concurrency",
    "timeout": "heartbeat_timeout", "timeout_worker_healthcheck": "heartbeat_timeout",
    "graceful_timeout": "drain_timeout", "timeout_graceful_shutdown": "drain_timeout",
    "keep_alive": "timeout_keep_alive",
    "reload": "watch", "reload_dir": "watch_paths", "reload_extra_file": "watch_paths",
    "reload_exclude": "ignore_watch",
    "chdir": "cwd", "pythonpath": "cwd", "app_dir": "cwd",
    "access_logfile": "access_log",
    "keyfile": "ssl_keyfile", "certfile": "ssl_certfile",
    "asgi_loop": "loop", "asgi_lifespan": "lifespan", "http_parser": "http",
    "limit_max_requests": "max_requests", "limit_max_requests_jitter": "max_requests_jitter",
}  # fmt: skip


def meant(word: str, known: Iterable[str]) -> str | None:
    """The setting of ``known`` that somebody who wrote ``word`` is after."""
    known = list(known)
    elsewhere = ELSEWHERE.get(word.replace("-", "_"))
    return elsewhere if elsewhere in known else nearest(word, known)


def difference(one: str, other: str) -> int:
    """How many characters of either are not part of what both have in common."""
    import difflib

    blocks = difflib.SequenceMatcher(None, one, other).get_matching_blocks()
    return max(len(one), len(other)) - sum(block.size for block in blocks)


def pair(text: str) -> tuple[str, str]:
    """The two sides of ``KEY=VALUE``."""
    key, equals, value = text.partition("=")
    if not equals or not key or "\0" in text:
        raise Wrong(f"{text!r} is not KEY=VALUE", "write it as --env KEY=VALUE")
    return key, value


def unknown(what: str, word: str, known: Iterable[str], where: str) -> ConfigError:
    """The error for a word that is none of ``known``; names the nearest."""
    near = meant(word, known)
    hint = f"did you mean {near!r}?" if near else "docs/configuration.md lists them all"
    return ConfigError(f"{where}: there is no {what} {word!r}", hint=hint)


def no_setting(written: str, value: object, known: Iterable[str], where: str) -> ConfigError:
    """The error for a key of a file; a table is most often a heading that is one too many."""
    near = nearest(written, known)
    if not isinstance(value, Mapping) or (near and difference(written, near) <= 1):
        return unknown("setting", written, known, where)
    hint = "settings stand at the top of the file, under no heading"
    return ConfigError(f"{where}: there is no table [{written}]", hint=hint)


def _read_text(option: Option, value: object) -> str:
    if not isinstance(value, str):
        raise Wrong(f"{value!r} is not a text", 'write it in quotes: "..."')
    if "\0" in value:
        raise Wrong(f"{value!r} holds a NUL byte", "leave it out")
    if option.choices and value not in option.choices:
        near = nearest(value, option.choices)
        asked = f"did you mean {near!r}? " if near else ""
        raise Wrong(
            f"{value!r} is not one of its values", f"{asked}one of: {', '.join(option.choices)}"
        )
    return option.check(value) if option.check else value


def _read_count(option: Option, value: object) -> str:
    if isinstance(value, int | float):
        value = str(value)  # what is no count is refused by its own words
    return _read_text(option, value)


def _read_path(option: Option, value: object) -> str:
    text = _read_text(option, value)
    if not text:
        raise Wrong("the path is empty", "name a file or folder")
    return text


def _read_integer(option: Option, value: object) -> int:
    number = value
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value.strip(), re.ASCII):
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int):
        raise Wrong(f"{value!r} is not a whole number", limits(option) or "write digits only")
    _check_limits(option, number)
    return number


def _read_duration(option: Option, value: object) -> float:
    seconds = duration(value)
    if seconds > _LONGEST:
        raise Wrong(f"{value!r} is too long", "a year at most")
    _check_limits(option, seconds)
    return seconds


def _read_size(option: Option, value: object) -> int:
    number = size(value)
    _check_limits(option, number)
    return number


def _check_limits(option: Option, number: float) -> None:
    low, high = option.minimum, option.maximum
    if (low is not None and number < low) or (high is not None and number > high):
        raise Wrong(f"{number:g} is out of range", limits(option))


def limits(option: Option) -> str:
    """The range in words: "1 to 69", "at least 0", or nothing."""
    if option.minimum is not None and option.maximum is not None:
        return f"{option.minimum} to {option.maximum}"
    return f"at least {option.minimum}" if option.minimum is not None else ""


def _read_switch(_option: Option, value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _ON | _OFF:
        return value.strip().lower() in _ON
    raise Wrong(f"{value!r} is neither on nor off", "true or false (in the environment also 1, 0)")


def _read_list(option: Option, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
        raise Wrong(f"{value!r} is not a list of texts", 'for example ["one", "two"]')
    if option.typed and not all(value):  # a program's arguments are its own affair
        raise Wrong("one of its values is empty", "leave it out")
    return tuple(option.check(part) if option.check else part for part in value)


def _read_numbers(option: Option, value: object) -> tuple[int, ...]:
    """0, "0,3", ["0,3", "4"], [0, 3]: each once."""
    parts = value if isinstance(value, list | tuple) else [value]
    words: list[object] = []
    for part in parts:
        words += part.replace(",", " ").split() if isinstance(part, str) else [part]
    return tuple(dict.fromkeys(_read_integer(option, word) for word in words))


def _read_mapping(_option: Option, value: object) -> dict[str, str]:
    if isinstance(value, list | tuple):
        value = dict(pair(part) for part in value)
    if not isinstance(value, Mapping):
        raise Wrong(f"{value!r} is not a table", 'for example {DEBUG = "1"}')
    for key, text in value.items():
        if not isinstance(key, str) or not _ENVIRONMENT_NAME.fullmatch(key):
            raise Wrong(f"{key!r} is not a variable's name", "a name without =")
        if not isinstance(text, str) or "\0" in text:
            raise Wrong(f"{key}: {text!r} is not a text", f'write it in quotes: {key} = "{text}"')
    return dict(value)


_READERS: Mapping[Kind, Callable[[Option, object], Any]] = {
    Kind.TEXT: _read_text,
    Kind.COUNT: _read_count,
    Kind.PROGRAM: _read_path,
    Kind.PATH: _read_path,
    Kind.INTEGER: _read_integer,
    Kind.DURATION: _read_duration,
    Kind.SIZE: _read_size,
    Kind.SWITCH: _read_switch,
    Kind.LIST: _read_list,
    Kind.NUMBERS: _read_numbers,
    Kind.MAPPING: _read_mapping,
}
