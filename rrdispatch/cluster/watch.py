"""The watcher, a process of its own (``--watch``): a line for each burst of changed files.

Run by path. Arguments: ``python`` (only Python files count) or ``all``; the files that the service
itself writes to, as ``device:inode,...``; then the folders. It knows nothing of workers; its
lifeline ends it with the primary.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable

# What a service writes beside its code: a reload for each line of a log would never end.
WRITTEN = re.compile(
    r"\.(log|pid|sock|lock|tmp|(db|sqlite3?)(-(journal|wal|shm))?)(\.\d+)*(\.gz)?$"
)


def own(path: str, identities: str) -> bool:
    """The service writes to it; the same file by any name."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    return f"{found.st_dev}:{found.st_ino}" in identities.split(",")


def chosen(which: str, identities: str) -> Callable[[object, str], bool]:
    """The filter of watchfiles, and what it does not know."""
    from watchfiles import DefaultFilter, PythonFilter

    usual = PythonFilter() if which == "python" else DefaultFilter()

    def counts(change: object, path: str) -> bool:
        name = os.path.basename(path)
        return (
            usual(change, path)  # type: ignore[arg-type, unused-ignore]
            and not WRITTEN.search(name)
            and not own(path, identities)
        )

    return counts


def main(which: str, identities: str, folders: list[str]) -> None:
    """Until the end of the primary."""
    from watchfiles import watch

    counts = chosen(which, identities)
    print(json.dumps([]), flush=True)  # noqa: T201 (stdout is the protocol)
    for changes in watch(*folders, watch_filter=counts, raise_interrupt=False):
        told = json.dumps(sorted(path for _, path in changes)[:20])
        print(told, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.path.pop(0)  # our own folder: its module names are nobody else's business
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
