"""TOML: data, and in which line each key stands (the standard library's reader does not tell)."""

from __future__ import annotations

import re
import sys
from typing import Any

from rrdispatch.files.problem import Lines, Problem

_WORD = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_KEYS = rf"{_WORD}(?:\s*\.\s*{_WORD})*"
_TABLE = re.compile(rf"\s*\[\[?\s*({_KEYS})\s*\]\]?\s*(?:#.*)?")
_VALUE = re.compile(rf"\s*({_KEYS})\s*=.*")
_POSITION = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")


def load(text: str) -> dict[str, Any]:
    """The document, or ``Problem`` with its line."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _problem(str(error), text) from None
    except RecursionError:
        raise Problem("it is nested too deep") from None
    return data


def lines(text: str) -> Lines:
    """Of a document that is whole. Where several lines look alike (a text of several lines), the
    first is taken: this is for messages only.
    """
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if match := _TABLE.fullmatch(line):
            table = key = _split(match[1])
        elif match := _VALUE.fullmatch(line):
            key = table + _split(match[1])
        else:
            continue
        for length in range(1, len(key) + 1):
            found.setdefault(key[:length], number)
    return found


def _split(keys: str) -> tuple[str, ...]:
    return tuple(word.strip("\"'") for word in re.findall(_WORD, keys))


def _problem(said: str, text: str) -> Problem:
    """At a sudden end: the last line that holds something."""
    match = _POSITION.search(said)
    if match is None:
        return Problem(said)
    what = said[: match.start()]
    what = what[:1].lower() + what[1:]
    if match[1]:
        return Problem(what, int(match[1]), int(match[2]))
    last = max(1, len(text.rstrip().splitlines()))
    return Problem(f"the file ends too early: {what}", last)
