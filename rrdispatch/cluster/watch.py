"""The watcher, a process of its own (``--watch``): a line for each burst of changed files.

Run by path. Arguments: ``python`` (only Python files count) or ``all``, then the folders. It knows
nothing of workers; its lifeline ends it with the primary.
"""

from __future__ import annotations

import json
import sys


def main(which: str, folders: list[str]) -> None:
    """Until the end of the primary."""
    from watchfiles import DefaultFilter, PythonFilter, watch

    chosen = PythonFilter() if which == "python" else DefaultFilter()
    print(json.dumps([]), flush=True)  # noqa: T201 (stdout is the protocol)
    for changes in watch(*folders, watch_filter=chosen, raise_interrupt=False):
        told = json.dumps(sorted(path for _, path in changes)[:20])
        print(told, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.path.pop(0)  # our own folder: its module names are nobody else's business
    main(sys.argv[1], sys.argv[2:])
