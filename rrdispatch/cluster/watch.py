"""The watcher, a process of its own (``--watch``): a line for each burst of changed files.

Run by path; its one argument is a ``Told`` as JSON. It knows nothing of workers; its lifeline ends
it with the primary.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

# What a service writes beside its code: a reload for each line of a log would never end.
WRITTEN = re.compile(
    r"\.(log|pid|sock|lock|tmp|(db|sqlite3?)(-(journal|wal|shm))?)(\.\d+)*(\.gz)?$"
)


@dataclass(frozen=True)
class Told:
    """What the primary says on the command line, as JSON."""

    which: str  # "python": only Python files count; "all"
    folders: list[str]
    cwd: str = "/"
    ignored: list[str] = field(default_factory=list)  # as they were typed
    written: list[str] = field(default_factory=list)  # files that the service itself writes to
    identities: list[str] = field(default_factory=list)  # the same by "device:inode"
    since: float = 0.0  # wall clock: when the service began to read the files


def own(path: str, told: Told) -> bool:
    """The service writes to it, or did before the file was rotated."""
    for each in told.written:
        root, extension = os.path.splitext(each)
        one = rf"{re.escape(root)}(-\d+)?{re.escape(extension)}(\.\d+)*"  # of all, or of a slot
        if re.fullmatch(one, path):
            return True
    try:
        found = os.stat(path)
    except OSError:
        return False
    return f"{found.st_dev}:{found.st_ino}" in told.identities  # by any name


def ignores(path: str, told: Told) -> bool:
    """By a path, or by a pattern that fits it, or one of its parts if the pattern is a name."""
    base = next((each for each in (told.cwd, *told.folders) if _within(path, each)), "/")
    below = os.path.relpath(path, base)
    for pattern in (each.removeprefix("./").rstrip("/") for each in told.ignored):
        if _within(path, os.path.join(told.cwd, pattern)):
            return True
        parts = [below] if "/" in pattern else below.split("/")
        if any(fnmatch.fnmatch(part, pattern) for part in parts):
            return True
    return False


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def chosen(told: Told) -> Callable[[object, str], bool]:
    """The filter of watchfiles, and what it does not know."""
    from watchfiles import DefaultFilter, PythonFilter

    usual = PythonFilter() if told.which == "python" else DefaultFilter()

    def counts(change: object, path: str) -> bool:
        name = os.path.basename(path)
        return (
            usual(change, path)  # type: ignore[arg-type, unused-ignore]
            and not WRITTEN.search(name)
            and not own(path, told)
            and not ignores(path, told)
        )

    return counts


def main(told: Told) -> None:
    """Until the end of the primary."""
    from watchfiles import watch

    counts = chosen(told)
    print(json.dumps([]), flush=True)  # noqa: T201 (stdout is the protocol)
    early = True
    # It returns once a second without a change, so that the first time says: now it watches.
    for changes in watch(
        *told.folders, watch_filter=counts, raise_interrupt=False,
        rust_timeout=1000, yield_on_timeout=True,
    ):  # fmt: skip
        found = {path for _, path in changes}
        if early:
            found.update(missed(told, counts))
            early = False
        if found:
            print(json.dumps(sorted(found)[:20]), flush=True)  # noqa: T201


def missed(told: Told, counts: Callable[[object, str], bool]) -> list[str]:
    """Changed after the service had begun to read and before anybody watched. By st_ctime, which
    nobody can set: a file that is moved here keeps its st_mtime.
    """
    from watchfiles import Change, DefaultFilter

    found = []
    for top in told.folders:
        for folder, below, names in os.walk(top):
            below[:] = [name for name in below if name not in DefaultFilter.ignore_dirs]
            for path in (os.path.join(folder, name) for name in names):
                with contextlib.suppress(OSError):
                    if os.stat(path).st_ctime >= told.since and counts(Change.modified, path):
                        found.append(path)
    return found


if __name__ == "__main__":
    sys.path.pop(0)  # our own folder: its module names are nobody else's business
    main(Told(**json.loads(sys.argv[1])))
