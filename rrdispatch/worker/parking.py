"""What an app does when its worker is parked, and when it is taken back into service.

Owns the thread that hears what the primary says on the notify socket (docs/protocol.md 2); there is
none before something is registered. Nothing that a function does may hurt the worker.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[[], object])

WORDS = {"PARK=1": True, "RESUME=1": False}
MOST = 64 * 1024
CO_COROUTINE = 0x80  # of inspect, which is slow to load


class Parking:
    """The functions, and the thread that calls them. The descriptor stays the place's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._functions: dict[bool, list[Callable[[], object]]] = {True: [], False: []}
        self._new: list[Callable[[], object]] = []  # what is parked already has to be told to them
        self._wake = -1  # an eventfd while there is a thread

    def add(self, parked: bool, function: Callable[[], object]) -> None:
        """Call it whenever the worker is parked, or (False) is not any more."""
        with self._lock:
            self._functions[parked].append(function)
            if parked:
                self._new.append(function)
            first = self._wake < 0
            if first:
                self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            os.eventfd_write(self._wake, 1)
        if first:
            args = (self._wake,)
            threading.Thread(target=self._run, args=args, name="rrdispatch", daemon=True).start()

    def _run(self, wake: int) -> None:
        # Looked up late: gevent and others put their own in its place.
        import selectors

        with selectors.DefaultSelector() as waits:
            waits.register(self._fd, selectors.EVENT_READ)
            waits.register(wake, selectors.EVENT_READ)
            try:
                self._follow(waits, wake)
            except (EOFError, OSError):
                # The primary is gone for good, or the app has closed the socket: nobody parks it.
                pass
        with self._lock:
            self._wake = -1
            os.close(wake)

    def _follow(self, waits: Any, wake: int) -> None:
        """What was said before anybody asked is a story; only its end counts."""
        parked = False
        while (said := self._hear()) is not None:
            parked = state(said, parked)
        while True:
            while new := self._take_new(parked):
                self._call(new, parked)
            said = self._hear()
            if said is None:
                waits.select()
                self._calm(wake)
            elif state(said, parked) is not parked:
                parked = not parked
                self._call(self._take_all(parked), parked)

    def _hear(self) -> bytes | None:
        """One datagram; None if there is none at present."""
        try:
            said = os.read(self._fd, MOST)
        except BlockingIOError:
            return None
        if not said:
            raise EOFError
        return said

    @staticmethod
    def _calm(wake: int) -> None:
        try:
            os.eventfd_read(wake)
        except BlockingIOError:
            return  # it was the socket

    def _take_new(self, parked: bool) -> list[Callable[[], object]]:
        with self._lock:
            new, self._new = self._new, []
        return new if parked else []

    def _take_all(self, parked: bool) -> list[Callable[[], object]]:
        with self._lock:
            self._new.clear()
            return [*self._functions[parked]]

    @staticmethod
    def _call(functions: list[Callable[[], object]], parked: bool) -> None:
        for function in functions:
            call(function, "on_park" if parked else "on_resume")


def call(function: Callable[[], object], kind: str) -> None:
    """Whatever it does."""
    try:
        function()
    except BaseException:  # SystemExit, too, would end the thread without a word
        import traceback

        name = getattr(function, "__qualname__", repr(function))
        sys.stderr.write(f"rrdispatch: {kind}: {name} failed\n{traceback.format_exc()}")


def state(said: bytes, parked: bool) -> bool:
    """Parked or not after a datagram; what it does not know it leaves alone."""
    for line in said.decode(errors="replace").split("\n"):
        parked = WORDS.get(line, parked)
    return parked


def on_park(function: Function) -> Function:
    """Call ``function()`` whenever this worker is parked; also as a decorator.

    At a reload the old workers are parked while the new ones are on probation: they live and are
    given nothing. It is the moment to stop schedulers and background jobs: the new worker's run
    already. If the worker is parked at this moment, it is called at once. At the final stop workers
    are parked, too, before they are asked to end.

    Functions are called one after the other, in the order in which they were registered, in a
    thread of their own; with asyncio: ``on_park(lambda: loop.call_soon_threadsafe(pause))``. What
    one raises goes to stderr and changes nothing. Outside of a worker nothing is ever called.
    """
    return _register(True, function)


def on_resume(function: Function) -> Function:
    """Call ``function()`` whenever this worker was parked and serves again: the reload failed.

    Like ``on_park``; a worker whose successor has proved itself is never resumed, it drains.
    """
    return _register(False, function)


def is_plain(function: object) -> bool:
    """It can be called, and that does something: nobody here would await a coroutine."""
    code = getattr(function, "__code__", None)
    return callable(function) and not getattr(code, "co_flags", 0) & CO_COROUTINE


def _register(parked: bool, function: Function) -> Function:
    from .runtime import current

    if not is_plain(function):
        kind = "on_park" if parked else "on_resume"
        raise TypeError(f"{kind}() takes a plain function without arguments, not {function!r}")
    runtime = current()
    if runtime is not None:
        runtime.parking.add(parked, function)
    return function
