"""The child's half of the pure spawn: run by path with ``python -I -S``, it becomes the program.

Owns the few steps between posix_spawn and exec that posix_spawn cannot do. It reads what to do from
the socket whose number is its argument and reports a failed step there. It must not import the
package, and starts in milliseconds because it imports only what it needs.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal would import enum: 3 ms
import errno
import fcntl
import marshal
import os
import resource
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Numbers of layout.Step.
SETSID, FDS, LIFELINE, LIMITS, AFFINITY, CWD, EXEC = 2, 3, 4, 5, 6, 7, 8


def read_request(report: int) -> dict[str, Any]:
    """Everything that the parent wrote before it shut down its writing side."""
    parts = []
    while part := os.read(report, 65536):
        parts.append(part)
    request: dict[str, Any] = marshal.loads(b"".join(parts))  # noqa: S302 (from our parent)
    return request


def close_others(keep: list[int]) -> None:
    """Close every descriptor that is not in `keep`."""
    start = 0
    for fd in sorted(set(keep)):
        if fd > start:  # closerange(0, 0) would close everything
            os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, 1 << 20)


def fill_standard(keep: list[int]) -> None:
    """A program with one of 0, 1, 2 closed would print into the first file that it opens."""
    for number in {0, 1, 2} - set(keep):
        null = os.open("/dev/null", os.O_RDWR)
        if null == number:
            os.set_inheritable(null, True)
        else:
            os.dup2(null, number)
            os.close(null)


def watch_lifeline(fd: int) -> None:
    """SIGTERM to the whole group when the other ends of the lifeline are gone."""
    fcntl.fcntl(fd, fcntl.F_SETSIG, _signal.SIGTERM)
    fcntl.fcntl(fd, fcntl.F_SETOWN, -os.getpgrp())
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | fcntl.FASYNC)


def become(request: dict[str, Any], report: int, at: list[int]) -> None:
    """Take each step, with its number in at[0], and become the program."""
    at[0] = FDS
    fcntl.fcntl(report, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    fill_standard(request["keep"])
    close_others([0, 1, 2, *request["keep"], report])
    if request["lifeline"] is not None:
        at[0] = LIFELINE
        watch_lifeline(request["lifeline"])
    if request["nofile"] is not None:
        at[0] = LIMITS
        resource.setrlimit(resource.RLIMIT_NOFILE, request["nofile"])
    if request["cores"] is not None:
        at[0] = AFFINITY
        os.sched_setaffinity(0, request["cores"])
    if request["cwd"] is not None:
        at[0] = CWD
        os.chdir(request["cwd"])
    if request["own_pid"] is not None:
        request["environment"][request["own_pid"]] = str(os.getpid())
    at[0] = EXEC
    # The interpreter ignores these two at its start, and exec would hand that down.
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
    _signal.signal(_signal.SIGXFSZ, _signal.SIG_DFL)
    os.write(report, b"E")
    os.execve(request["program"], request["arguments"], request["environment"])  # noqa: S606


def main() -> None:
    """Run the steps; on failure write ``step errno`` and leave with 127."""
    report = int(sys.argv[1])
    at = [FDS]
    try:
        become(read_request(report), report, at)
    except OSError as error:
        code = error.errno or errno.EINVAL
    except Exception:  # resource.setrlimit says ValueError where the kernel said EPERM or EINVAL
        code = errno.EPERM if at[0] == LIMITS else errno.EINVAL
    os.write(report, b"F%d %d" % (at[0], code))
    os._exit(127)


if __name__ == "__main__":
    main()
