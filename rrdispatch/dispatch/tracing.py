"""The dispatcher's part of the ledger: what wraps accept and sendmsg while one is kept.

With none kept each function gives back what it got, so that nothing is paid per connection. Owns
nothing; the twin of the notes in ``csrc``.
"""

from __future__ import annotations

import array
import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rrdispatch._core import pure_ledger
from rrdispatch._core.layout import Kind, LedgerEvent, LedgerRole
from rrdispatch._core.pure_ledger import Who

if TYPE_CHECKING:
    from rrdispatch.dispatch.lanes import Lane
    from rrdispatch.dispatch.slots import Worker

VARIABLE = "RRDISPATCH_LEDGER"
NOBODY = Who()

Accept = Callable[[], tuple[int, Any]]


def join() -> None:
    """Append from now on, if the environment says so."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    try:
        pure_ledger.ledger_open(path, LedgerRole.DISPATCHER)
    except OSError:
        # Off then: whoever reads it misses our OPENED.
        return


def who(worker: Worker) -> Who:
    return Who(worker.id, worker.slot, worker.generation)


def accepting(accept: Accept) -> Accept:
    """An accept that notes what it brings."""
    if not pure_ledger.opened():
        return accept

    def noting() -> tuple[int, Any]:
        fd, address = accept()
        port = address[1] if isinstance(address, tuple) else 0
        cookie = pure_ledger.ledger_cookie(fd)
        pure_ledger.append(LedgerEvent.ACCEPTED, time.monotonic_ns(), cookie, NOBODY, port)
        return fd, address

    return noting


def joined(worker: Worker) -> None:
    """A worker is known now; its channels note what is sent into them."""
    if not pure_ledger.opened():
        return
    append = pure_ledger.append
    append(LedgerEvent.JOINED, time.monotonic_ns(), _pid_of(worker.pidfd), who(worker))
    for lane in worker.lanes.values():
        opened(worker, lane)


def opened(worker: Worker, lane: Lane) -> None:
    """A channel of a worker that is known: it notes what is sent into it."""
    if pure_ledger.opened():
        lane.sendmsg = _sending(lane.sendmsg, who(worker))


def dead(worker: Worker) -> None:
    """Its end was seen."""
    pure_ledger.append(LedgerEvent.DEAD, time.monotonic_ns(), 0, who(worker))


def _sending(send: Callable[..., int], to: Who) -> Callable[..., int]:
    def noting(data: Sequence[bytes], rights: Any, flags: int) -> int:
        if data[0][1] != Kind.CONNECTION:
            return send(data, rights, flags)
        cookies = [pure_ledger.ledger_cookie(fd) for _, _, fds in rights for fd in fds]
        _note_all(LedgerEvent.SENT, cookies, to)
        try:
            return send(data, rights, flags)
        except OSError:
            _note_all(LedgerEvent.UNSENT, cookies, to)
            raise

    return noting


def _note_all(event: LedgerEvent, cookies: Sequence[int], to: Who) -> None:
    now = time.monotonic_ns()
    for cookie in cookies:
        pure_ledger.append(event, now, cookie, to)


def _pid_of(pidfd: int) -> int:
    try:
        with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
            lines = file.read().split("\n")
    except OSError:
        return 0
    found = [int(line[4:]) for line in lines if line.startswith("Pid:")]
    return max(found[0], 0) if found else 0


def reclaims_for(worker: Worker) -> None:
    """In the helper's process."""
    pure_ledger.reclaims_for(who(worker))


@contextlib.contextmanager
def reclaiming(worker: Worker) -> Iterator[None]:
    """In the dispatcher's own process, for once."""
    pure_ledger.reclaims_for(who(worker))
    try:
        yield
    finally:
        pure_ledger.dispatches()


def receiving(receive: Callable[[], tuple[bytes, Any, int, Any]]) -> tuple[bytes, list[int]]:
    """What a helper receives from a channel, noted."""
    fds: list[int] = []
    connection = False
    pure_ledger.taking(1)
    try:
        data, rights, _, _ = receive()
        fds = [fd for _, _, packed in rights for fd in array.array("i", packed)]
        connection = len(data) > 1 and data[1] == Kind.CONNECTION
    finally:
        pure_ledger.took(fds if connection else ())
    return data, fds
