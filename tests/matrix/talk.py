"""How the matrix talks to a server: over HTTP with the load client, else by an exchange."""

from __future__ import annotations

import http.client
import socket
import threading
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from tests.harness.load import Load, run_load
from tests.harness.records import Plan, Tally
from tests.matrix.exchanges import EXCHANGES, Exchange

OTHER = "127.0.0.2"  # a source address that no default would give
TIMEOUT = 15.0
RATE = 50.0


@dataclass
class Asked:
    """What became of some requests, each on a connection of its own."""

    count: int = 0
    by_pid: Counter[int] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def answered(self) -> int:
        return sum(self.by_pid.values())


class Beside(Protocol):
    """Requests that go on while something else is done."""

    def wait_more(self, number: int) -> None: ...

    def stop(self) -> Asked: ...


class Talk(Protocol):
    """One protocol."""

    def ask(self, port: int, count: int, concurrency: int = 1) -> Asked: ...

    def peer(self, port: int) -> tuple[str, str]:
        """(whom the server sees, who that was)."""
        ...

    def beside(self, port: int) -> AbstractContextManager[Beside]: ...


class Http:
    """The harness' load client, a process of its own."""

    def ask(self, port: int, count: int, concurrency: int = 1) -> Asked:
        plan = Plan(f"127.0.0.1:{port}", "closed", count=count, concurrency=concurrency)
        return _asked(run_load(plan))

    def peer(self, port: int) -> tuple[str, str]:
        client = http.client.HTTPConnection(
            "127.0.0.1", port, timeout=TIMEOUT, source_address=(OTHER, 0)
        )
        try:
            client.request("GET", "/", headers={"Connection": "close"})
            assert client.sock is not None
            host, own_port = client.sock.getsockname()
            seen = client.getresponse().headers.get("X-Peer", "nobody")
        finally:
            client.close()
        return seen, f"{host}:{own_port}" if ":" in seen else host

    def beside(self, port: int) -> HttpBeside:
        return HttpBeside(Plan(f"127.0.0.1:{port}", rate=RATE))


class HttpBeside:
    """A `Load`, counted as the others are."""

    def __init__(self, plan: Plan) -> None:
        self._load = Load(plan)

    def wait_more(self, number: int) -> None:
        self._load.wait_more(number)

    def stop(self) -> Asked:
        return _asked(self._load.stop())

    def __enter__(self) -> HttpBeside:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._load.__exit__(kind, error, trace)


def _asked(tally: Tally) -> Asked:
    failures = Counter(f"{each.outcome} {each.detail}".strip() for each in tally.failed)
    return Asked(len(tally.records), tally.by_pid(), failures)


class Own:
    """Threads of this process, by an exchange."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def ask(self, port: int, count: int, concurrency: int = 1) -> Asked:
        with ThreadPoolExecutor(concurrency) as pool:
            return _counted(pool.map(lambda _: self.whose(port), range(count)))

    def peer(self, port: int) -> tuple[str, str]:
        with socket.create_connection(
            ("127.0.0.1", port), TIMEOUT, source_address=(OTHER, 0)
        ) as client:
            own = "{}:{}".format(*client.getsockname())
            return self._exchange(client)[1], own

    def beside(self, port: int) -> OwnBeside:
        return OwnBeside(self, port)

    def whose(self, port: int) -> int | str:
        """The process that answers, or what went wrong."""
        try:
            with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
                return self._exchange(client)[0]
        except OSError as error:
            return f"{type(error).__name__} {error}"


class OwnBeside:
    """A thread that asks again and again."""

    def __init__(self, talk: Own, port: int) -> None:
        self._talk = talk
        self._port = port
        self._answers: list[int | str] = []
        self._news = threading.Condition()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stopped.wait(1 / RATE):
            answer = self._talk.whose(self._port)
            with self._news:
                self._answers.append(answer)
                self._news.notify_all()

    def wait_more(self, number: int) -> None:
        goal = len(self._answers) + number
        with self._news:
            if not self._news.wait_for(lambda: len(self._answers) >= goal, 60.0):
                raise TimeoutError(f"{number} more requests")

    def stop(self) -> Asked:
        self._stopped.set()
        self._thread.join()
        return _counted(self._answers)

    def __enter__(self) -> OwnBeside:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join()


def _counted(answers: Iterable[int | str]) -> Asked:
    asked = Asked()
    for answer in answers:
        asked.count += 1
        if isinstance(answer, int):
            asked.by_pid[answer] += 1
        else:
            asked.failures[answer] += 1
    return asked


TALKS: dict[str, Talk] = {
    "http": Http(),
    **{name: Own(exchange) for name, exchange in EXCHANGES.items()},
}
