"""JSON as people write it for pm2: with comments and commas too many. Data, and lines of keys."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from rrdispatch.files.problem import Lines, Problem

_TOKEN = re.compile(
    r"""(?P<text>"(?:[^"\\\n]|\\.)*")|(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<space>\s+)"""
    r"""|(?P<mark>[][{}:,])|(?P<other>[^][{}:,\s"/]+|.)""",
    re.DOTALL,
)


def load(text: str) -> Any:
    """The document, or ``Problem`` with its line."""
    try:
        return json.loads(
            plain(text), object_pairs_hook=_table, parse_constant=_no_number, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        what = error.msg[:1].lower() + error.msg[1:]
        raise Problem(what, error.lineno, error.colno) from None
    except RecursionError:
        raise Problem("it is nested too deep") from None


def plain(text: str) -> str:
    """Without comments and commas before a closing bracket; every line stays where it is."""
    found: list[str] = []
    comma = -1  # the last word of all was one
    for match in _TOKEN.finditer(text):
        word = match[0]
        if match.lastgroup == "comment":
            word = re.sub(r"[^\n]", " ", word)
        elif match.lastgroup != "space":
            if word in "]}" and comma >= 0:
                found[comma] = " "
            comma = len(found) if word == "," else -1
        found.append(word)
    return "".join(found)


def lines(text: str) -> Lines:
    """Of a document that could be read."""
    found: dict[tuple[str, ...], int] = {}
    way: list[str | int] = []  # through all that is open; a number counts in a list
    last, line = ("", 1), 1
    for kind, word in _tokens(text):
        if kind == "text":
            last = (word, line)
        elif word == "{":
            way.append("")
        elif word == "[":
            way.append(0)
        elif word in "}]":
            way.pop()
        elif word == ":":
            way[-1] = json.loads(last[0])
            found.setdefault(tuple(map(str, way)), last[1])
        elif word == "," and isinstance(way[-1], int):
            way[-1] += 1
        line += word.count("\n")
    return found


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    for match in _TOKEN.finditer(plain(text)):
        kind = match.lastgroup or ""
        if kind in ("text", "mark") or "\n" in match[0]:
            yield kind, match[0]


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise Problem(f"{twice} is said twice")
    return found


def _no_number(word: str) -> float:
    raise Problem(f"{word} is no number")


def _integer(digits: str) -> int:
    if len(digits) > 19:
        raise Problem(f"{digits[:18]}... is too long a number")
    return int(digits)
