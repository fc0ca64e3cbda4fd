"""``list`` in its plainest forms, before click is loaded: it is typed all day, and scripts poll it.

Whatever is not plain, and every error, is left to click's way, which comes to the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

LIST = frozenset(("list", "ls", "l", "ps", "status", "jlist"))  # tests hold it to group.py's names
FLAGS = frozenset(("--json", "--workers", "-w"))
INTERRUPTED = 130


def run(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int | None:
    """The exit code; None: nothing was done, click has to read this."""
    if not arguments or arguments[0] not in LIST or "_RRDISPATCH_COMPLETE" in environ:
        return None
    name, given = arguments[0], arguments[1:]
    flags = {word for word in given if word.startswith("-")}
    if flags - FLAGS or (name == "jlist" and given):
        return None
    selectors = [word for word in given if word not in flags]
    return _list(selectors, name == "jlist" or "--json" in flags, bool(flags & {"--workers", "-w"}))


def _list(selectors: Sequence[str], as_json: bool, workers: bool) -> int | None:
    from rrdispatch.errors import Error

    try:
        from rrdispatch.cli import listing

        listing.run(selectors, as_json, workers)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # As in errors.py: Python would complain again at its own flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return Error.exit_code
    except (Error, OSError):
        return None
    return 0
