"""YAML 1.2 as pm2 reads it: data, and lines of keys. PyYAML parses; what a word means is said here.

PyYAML alone would take ``on`` for true and ``12:30:00`` for a number, as YAML 1.1 did.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from rrdispatch.errors import MissingExtraError
from rrdispatch.files.problem import Lines, Problem

_WORDS = {
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
    "null": None, "Null": None, "NULL": None, "~": None, "": None,
}  # fmt: skip
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_TAG = "tag:yaml.org,2002:"
_TAGS = {_TAG + name for name in ("str", "seq", "map", "null", "bool", "int", "float")}
_DEEPEST = 50


def load(text: str, where: str) -> tuple[Any, Lines]:
    """The document and its keys' lines; ``Problem``, or MissingExtraError without the extra."""
    try:
        import yaml
    except ImportError:
        raise MissingExtraError(
            f"{where}: YAML needs PyYAML, which is not installed for {sys.executable}",
            hint=f'{sys.executable} -m pip install "rrdispatch[yaml]"; or write it as JSON or TOML',
        ) from None
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = error.problem or error.context or "it is no YAML"
        place = (mark.line + 1, mark.column + 1) if mark else (None, None)
        raise Problem(what, *place) from None
    except yaml.YAMLError as error:
        raise Problem(" ".join(str(error).split())) from None
    except RecursionError:
        raise Problem("it is nested too deep") from None
    reader = _Reader()
    return (None if node is None else reader.value(node, ())), reader.lines


class _Reader:
    """Nodes to data. An alias gives the same object again, however often."""

    def __init__(self) -> None:
        self.lines: dict[tuple[str, ...], int] = {}
        self._known: dict[int, Any] = {}

    def value(self, node: Any, way: tuple[str, ...]) -> Any:
        if id(node) in self._known:
            found = self._known[id(node)]
            if found is _Reader:
                raise Problem("an alias is part of what it stands for", node.start_mark.line + 1)
            return found
        if len(way) > _DEEPEST:
            raise Problem("it is nested too deep", node.start_mark.line + 1)
        if node.tag not in _TAGS:
            raise Problem(f"{node.tag}: tags are not read", node.start_mark.line + 1)
        self._known[id(node)] = _Reader
        made = {"scalar": self._scalar, "sequence": self._list, "mapping": self._table}
        self._known[id(node)] = found = made[node.id](node, way)
        return found

    def _scalar(self, node: Any, _way: tuple[str, ...]) -> Any:
        text = node.value
        if node.style is not None and node.tag == f"{_TAG}str":
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            return int(text)
        return float(text) if _FLOAT.fullmatch(text) else text

    def _list(self, node: Any, way: tuple[str, ...]) -> list[Any]:
        return [self.value(each, (*way, str(n))) for n, each in enumerate(node.value)]

    def _table(self, node: Any, way: tuple[str, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise Problem("a key is no word", line)
            if key == "<<" and key_node.style is None:
                self._merge(merged, self.value(value_node, way), line)
                continue
            if key in found:
                raise Problem(f"{key} is said twice", line)
            self.lines.setdefault((*way, key), line)
            found[key] = self.value(value_node, (*way, key))
        return {**merged, **found}

    def _merge(self, into: dict[str, Any], what: Any, line: int) -> None:
        for each in what if isinstance(what, list) else [what]:
            if not isinstance(each, dict):
                raise Problem("<< takes a table", line)
            for key, value in each.items():
                into.setdefault(key, value)
