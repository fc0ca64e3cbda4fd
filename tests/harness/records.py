"""What a load is asked to do, and what became of each request. Shared by both ends of the pipe."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass, field

OK, REFUSED, RESET, EOF, TIMEOUT, STATUS = "ok", "refused", "reset", "eof", "timeout", "status"


@dataclass(frozen=True)
class Plan:
    """One load. ``count`` 0 means: until told to stop.

    ``mode``: ``open`` starts requests at ``rate`` per second at intended times whatever becomes of
    the others (rate 0: all at once), ``closed`` keeps ``concurrency`` of them going; both use a
    connection per request. ``keepalive`` keeps ``concurrency`` connections, each asking ``rate``
    times a second; with ``reconnect_when_told`` one that lost its connection waits for ``go``.
    ``websocket`` does the same over WebSockets (tests/harness/websocket.py), with ``turns`` each of
    them for so many questions only.
    """

    address: str
    mode: str = "open"
    count: int = 0
    rate: float = 0.0
    concurrency: int = 1
    path: str = "/"
    slow_path: str = ""
    slow_share: float = 0.0
    poisson: bool = False
    seed: int = 0
    timeout: float = 15.0
    until_eof: bool = False  # a request is over when the server has closed its connection
    base: int = 0  # number of the first request
    reconnect_when_told: bool = False
    turns: int = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Record:
    """One request. Times are CLOCK_MONOTONIC nanoseconds, 0 = never came so far."""

    number: int
    client: int  # which keep-alive client
    outcome: str
    intended: int
    connected: int = 0
    first: int = 0
    ended: int = 0
    port: int = 0
    status: int = 0
    pid: int = 0
    slot: int = -1
    version: str = ""
    service: int = 0  # nanoseconds inside the app, by its own clock
    fresh: bool = True  # the first request on its connection
    detail: str = ""

    @property
    def ok(self) -> bool:
        return self.outcome == OK

    @property
    def latency_ms(self) -> float:
        """From when the request should have started: a late client hides nothing."""
        return (self.ended - self.intended) / 1e6

    @property
    def waiting_ms(self) -> float:
        return self.latency_ms - self.service / 1e6

    def to_line(self) -> str:
        return json.dumps(astuple(self))


def record_from_line(line: str) -> Record:
    return Record(*json.loads(line))


@dataclass
class Tally:
    """The records of a load, counted."""

    records: list[Record] = field(default_factory=list)

    @property
    def ok(self) -> list[Record]:
        return [each for each in self.records if each.ok]

    @property
    def failed(self) -> list[Record]:
        return [each for each in self.records if not each.ok]

    def outcomes(self) -> Counter[str]:
        return Counter(each.outcome for each in self.records)

    def split(self) -> Counter[int]:
        """Answered requests by slot."""
        return Counter(each.slot for each in self.ok)

    def by_pid(self) -> Counter[int]:
        return Counter(each.pid for each in self.ok)

    def __str__(self) -> str:
        return " ".join(f"{name}={number}" for name, number in sorted(self.outcomes().items()))


def quantile(values: Iterable[float], share: float) -> float:
    """The value below which ``share`` of the values lie (nearest rank); 0 for none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
