"""What a worker does when nobody can send to it any more.

EOF on a channel means that dispatcher and primary are both gone. The worker's own process group
is asked to end, once, and the channel is covered so that nothing spins on an EOF for ever.
"""

from __future__ import annotations

import os
import signal
import socket

_told = False


def silence(fd: int) -> None:
    """Put a socket over ``fd`` that is never readable.

    It is its own peer (a bound datagram socket would do as well): nobody holds another end whose
    close would wake it.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as quiet:
        os.dup2(quiet.fileno(), fd, inheritable=False)


def end_group(number: int = signal.SIGTERM) -> None:
    """Ask the own group to drain, once per process.

    Only a group that began with its session is a worker's own; else only this process is meant.
    """
    global _told  # noqa: PLW0603 (once per process, whichever listener sees it first)
    if _told:
        return
    _told = True
    group = os.getpgrp()
    if group == os.getsid(0):
        os.killpg(group, number)
    else:
        os.kill(os.getpid(), number)
