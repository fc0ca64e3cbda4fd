"""``Cluster``: a service of many workers inside your own program, which holds nothing of it.

``start()`` execs a primary (docs/lifecycle.md) and keeps one socket to it; if your program ends,
however it ends, the workers finish what they have and exit. Threads, event loops and signal
handlers of your program don't matter. For asyncio there is ``rrdispatch.aio.Cluster``.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from rrdispatch.control.client import Client, Event
from rrdispatch.control.process import PrimaryProcess, settings_of
from rrdispatch.control.protocol import end_error
from rrdispatch.errors import ControlError, Error

if TYPE_CHECKING:
    from rrdispatch.cluster.operations import ReloadResult

ANSWER_WITHIN = 10.0  # for requests that are answered at once
END_WITHIN = 10.0  # beyond what the drain may take


class Cluster:
    """``with Cluster("app:app", bind=":8000", workers=4) as cluster: ...``

    ``settings`` are those of ``rrdispatch run`` with underscores. ``on_event`` is called in a
    thread of the cluster, with a dictionary.
    """

    def __init__(
        self,
        target: str,
        *,
        bind: str | Sequence[str] | None = None,
        workers: int | str = "max",
        on_event: Callable[[Event], object] | None = None,
        **settings: Any,
    ) -> None:
        self.settings = settings_of(target, bind, workers, settings)
        self._on_event = on_event
        self._process: PrimaryProcess | None = None
        self._client: Client | None = None
        self._readers: list[queue.SimpleQueue[Event | None]] = []
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._finishing = threading.Lock()
        self.exit_code: int | None = None
        self.error: Error | None = None  # what ended it, if nobody asked for its end

    def start(self) -> Cluster:
        """Returns when it serves; raises what a foreground start would raise."""
        if self._process is not None:
            raise ControlError("the cluster is started already")
        self._over.clear()
        self.exit_code = self.error = None
        self._process = PrimaryProcess.start()
        self._client = Client(self._process.control, self._event, self._ended)
        _CLUSTERS.add(self)
        try:
            self._client.call("start", settings=self.settings.values())
        except BaseException:
            self._finish(kill=False)
            raise
        return self

    def __enter__(self) -> Cluster:
        return self.start() if self._process is None else self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def reload(self, **options: Any) -> ReloadResult:
        """New code in every worker; ReloadError, with the old code serving, if it fails.

        ``batch``, ``park``, ``stop_first`` and ``probation`` override the settings.
        """
        from rrdispatch.cluster.operations import ReloadResult

        done = self._call("reload", None, **options)
        return ReloadResult(done["generation"], done["seconds"], tuple(done["notes"]))

    def scale(self, workers: int) -> None:
        """So many workers from now on."""
        self._call("scale", workers=workers)

    def stats(self) -> dict[str, Any]:
        """What it is and does at this moment."""
        found: dict[str, Any] = self._call("stats")
        return found

    @property
    def addresses(self) -> list[str]:
        """Where it listens, with the real port where 0 was asked for."""
        return [listener["address"] for listener in self.stats()["listeners"]]

    def events(self) -> Iterator[Event]:
        """Every event from now on, until the cluster has ended."""
        reader: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        with self._lock:
            if self._client is None or self._over.is_set():
                return iter(())
            self._readers.append(reader)
        return iter(reader.get, None)

    def stop(self) -> int:
        """Drains, waits for the end, and returns the exit code. After the end it does nothing."""
        return self._finish(kill=False)

    def kill(self) -> int:
        """Ends it now."""
        return self._finish(kill=True)

    def wait(self, timeout: float | None = None) -> bool:
        """Until it ended by itself or by another thread's ``stop``; False if it did not."""
        return self._over.wait(timeout)

    def run(self) -> int:
        """Starts it if need be and blocks until it ends; raises what ended it, if nobody asked.

        In the main thread TERM and INT drain it (a second one ends it now), and get their old
        handlers back afterwards. In another thread signals are left alone.
        """
        with _signals_to(self):
            if self._process is None:
                self.start()
            while not self.wait(3600.0):
                pass
        code = self.stop()
        if self.error is not None:
            raise self.error
        return code

    def ask_to_stop(self, now: bool = False) -> None:
        """Without waiting for the end; for signal handlers and other threads."""
        with contextlib.suppress(ControlError):  # gone, or not started: the wish is fulfilled
            self._call("kill" if now else "stop")

    def _call(self, method: str, timeout: float | None = ANSWER_WITHIN, **params: Any) -> Any:
        if self._client is None:
            raise ControlError("the cluster is not started", hint="use it in a with statement")
        return self._client.call(method, timeout, **params)

    def _finish(self, *, kill: bool) -> int:
        """Asks at once; the first one who asks waits for the end, the others for that one."""
        self.ask_to_stop(now=kill)
        with self._finishing:
            if self._process is not None and self._client is not None:
                self._end(self._process, self._client)
        return self.exit_code or 0

    def _end(self, process: PrimaryProcess, client: Client) -> None:
        settings = self.settings
        if not process.wait(settings.shutdown_delay + settings.drain_timeout + END_WITHIN):
            process.kill()  # it does not keep its promise; its workers' lifelines do
        client.close()
        self.exit_code = process.reap()
        self._process = self._client = None
        _CLUSTERS.discard(self)

    # ---- in the reader thread ----------------------------------------------------------------

    def _event(self, event: Event) -> None:
        self.error = end_error(event) or self.error
        with self._lock:
            readers = list(self._readers)
        for reader in readers:
            reader.put(event)
        if self._on_event is not None:
            self._on_event(event)

    def _ended(self) -> None:
        with self._lock:
            self._over.set()
            readers, self._readers = self._readers, []
        for reader in readers:
            reader.put(None)

    def _abandon(self) -> None:
        """In a forked child: an open copy of the socket would keep the cluster alive."""
        if self._client is not None:
            self._client.abandon()
        self._process = self._client = None


@contextlib.contextmanager
def _signals_to(cluster: Cluster) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def handler(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        now, asked = asked, True
        # Not from here: the main thread may be inside of the client's lock.
        threading.Thread(target=cluster.ask_to_stop, args=(now,), daemon=True).start()

    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old if old is not None else signal.SIG_DFL)


_CLUSTERS: weakref.WeakSet[Cluster] = weakref.WeakSet()


def _in_forked_child() -> None:
    for cluster in list(_CLUSTERS):
        cluster._abandon()
    _CLUSTERS.clear()


os.register_at_fork(after_in_child=_in_forked_child)
