"""The pure-Python dispatcher as a process: control on fd 3, exit code 0 at its end.

Run by path or as ``python -m rrdispatch.dispatch``. It uses the standard library only, so that it
starts without site and is what it says it is in a comparison.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from pathlib import Path

CONTROL = 3
IGNORED = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
    signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO,
)  # fmt: skip


def _prepare() -> None:
    # Ended by its control socket only: a Ctrl-C at the terminal is for the primary.
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    # Helpers that end are nobody's business.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # The kernel counts this user's descriptors in flight against the sender's soft limit.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    """Run one dispatcher."""
    _prepare()
    from rrdispatch.dispatch import tracing
    from rrdispatch.dispatch.loop import Dispatcher

    tracing.join()
    os.set_inheritable(CONTROL, False)
    dispatcher = Dispatcher(CONTROL)
    # What was loaded stays: helpers are forked, and a collection would copy its pages.
    gc.freeze()
    return dispatcher.run()


if __name__ == "__main__":
    os.environ["RRDISPATCH_PURE"] = "1"
    if not __package__:
        sys.path.append(str(Path(__file__).resolve().parents[2]))
    sys.exit(main())
