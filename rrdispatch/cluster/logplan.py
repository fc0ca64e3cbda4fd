"""Which files an app's output is in, and how it looks there: for who writes and who reads them."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rrdispatch.cluster.logformat import ERR, OUT, Format


@dataclass(frozen=True)
class Plan:
    """One app's."""

    name: str = "app"
    kind: str = "text"
    time: bool | None = None  # None: in files only
    files: Mapping[str, str] = field(default_factory=dict)  # by stream; else stdout and stderr
    merge: bool = True
    most: int = 0
    keep: int = 1

    def format(self, in_file: bool) -> Format:
        return Format(self.kind, in_file if self.time is None else self.time, in_file)


def plan_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of settings, as plain data."""
    both = values.get("log_file")
    files = {OUT: values.get("out_file") or both, ERR: values.get("error_file") or both}
    return {
        "name": values.get("name") or "app",
        "kind": values.get("log_type", "text"),
        "time": values.get("log_time"),
        "files": {stream: path for stream, path in files.items() if path},
        "merge": values.get("merge_logs", True),
        "most": values.get("log_size", 0),
        "keep": values.get("log_keep", 1),
    }


def rotated(path: str, keep: int) -> list[str]:
    """The names of rotated files, the newest first."""
    return [f"{path}.{number}" for number in range(1, keep + 1)]


def worker_path(path: str, slot: int) -> str:
    """The file of one slot: app.log becomes app-0.log."""
    stem, extension = os.path.splitext(path)
    return f"{stem}-{slot}{extension}"


def worker_paths(path: str) -> dict[int, str]:
    """Those that there are, by slot."""
    stem, extension = os.path.splitext(path)
    found = {}
    for name in glob.glob(f"{glob.escape(stem)}-*{glob.escape(extension)}"):
        slot = name[len(stem) + 1 : len(name) - len(extension)]
        if re.fullmatch(r"[0-9]{1,5}", slot):
            found[int(slot)] = name
    return dict(sorted(found.items()))
