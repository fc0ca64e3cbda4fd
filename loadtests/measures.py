"""What every contender is asked in every round, on a good day."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.harness.records import Plan, Record, quantile

from . import fast, figures
from .generator import SLOW
from .results import Results
from .running import Running, Traffic, pause, traffic

CONCURRENCIES = (1, 40, 200)
PATIENCE_S = 5.0
CLIENTS = 40


@dataclass(frozen=True)
class Size:
    """How long things take."""

    seconds: float
    mixed_s: float
    connections: tuple[int, int, int]  # at each concurrency
    rate: float = 150.0  # of open loads, per second
    seed: int = 0
    bad_s: float = 3.0
    idle_s: float = 20.0  # so long for 10,000 connections, and for the one after them

    def shortened(self, share: float, least: Size) -> Size:
        """Everything by the same share, and no shorter than that."""
        lengths = {
            name: max(share * getattr(self, name), getattr(least, name))
            for name in ("seconds", "mixed_s", "bad_s", "idle_s")
        }
        one, forty, many = (
            max(round(share * mine), other)
            for mine, other in zip(self.connections, least.connections, strict=True)
        )
        return replace(self, connections=(one, forty, many), **lengths)

    @property
    def told(self) -> str:
        one, forty, many = self.connections
        return (
            f"Each busy measurement lasted {self.seconds:.2g} s; 1 % blocking: "
            f"{self.mixed_s:.2g} s at {self.rate:.0f} requests per second; split over {one:,}, "
            f"{forty:,} and {many:,} connections; bad days {self.bad_s:.2g} s each, some longer."
        )


QUICK = Size(seconds=0.6, mixed_s=1.5, connections=(40, 200, 400), bad_s=2.0)
LEAST = Size(seconds=0.8, mixed_s=5.0, connections=(80, 400, 800), bad_s=2.0, idle_s=8.0)
FULL = Size(seconds=6.0, mixed_s=20.0, connections=(400, 4000, 8000), bad_s=10.0)


@dataclass
class Measuring:
    """A contender under measurement, and where its figures go."""

    running: Running
    results: Results
    size: Size

    def put(self, measure: str, value: float, unit: str = "", better: str = "less") -> None:
        self.results.add(self.running.contender.name, measure, value, unit, better)

    def latencies(self, test: str, records: list[Record], curve: bool = False) -> None:
        """Quantiles, shares over 1 s and 3 s, failures by kind."""
        values = figures.latencies(records)
        for name, share in figures.QUANTILES.items():
            self.put(f"{test}: {name}", quantile(values, share), "ms")
        for limit in figures.PATIENCE_MS:
            self.put(f"{test}: over {limit // 1000} s", figures.over(values, limit), "%")
        self.failures(test, records)
        if curve:
            curves = self.results.curves.setdefault(test, {})
            curves[self.running.contender.name] = figures.curve(values)

    def failures(self, test: str, records: list[Record]) -> None:
        self.put(f"{test}: failed", sum(not each.ok for each in records))
        for kind in sorted({each.outcome for each in records if not each.ok}):
            number = sum(each.outcome == kind for each in records)
            self.put(f"{test}: {kind}", number)


def splits(it: Measuring) -> None:
    """Who gets how many connections, by how many clients ask at a time."""
    pairs = zip(CONCURRENCIES, it.size.connections, strict=True)
    for concurrency, count in pairs:
        plan = Plan(
            it.running.address, "closed", count=count, concurrency=concurrency, timeout=PATIENCE_S
        )
        records = traffic(plan)
        counts = figures.split(records, it.running.workers)
        ratio, variation = figures.even(counts)
        it.put(f"split at {concurrency}: most/fewest", ratio)
        it.put(f"split at {concurrency}: variation", 100 * variation, "%")
        it.failures(f"split at {concurrency}", records)


def per_request(it: Measuring) -> None:
    """A connection per request, each asked as soon as the last was answered."""
    _busy(it, "connection per request", "closed")


def kept(it: Measuring) -> None:
    """Kept connections, asked again as soon as they answered."""
    _busy(it, "keep-alive", "kept")


def _busy(it: Measuring, test: str, mode: str) -> None:
    before = it.running.usage()
    plan = Plan(it.running.address, mode, concurrency=CLIENTS, timeout=PATIENCE_S)
    load = fast.run if fast.program() else _interpreted
    found = load(plan, it.size.seconds)
    records = found.records
    workers, others = it.running.usage().since(before, it.running.workers)
    answered = sum(each.ok for each in records) or math.nan
    it.put(f"{test}: requests", found.rate, "/s", "more")
    it.put(f"{test}: CPU", (workers + others) / answered / 1000, "us")
    it.put(f"{test}: CPU in workers", workers / answered / 1000, "us")
    it.put(f"{test}: CPU elsewhere", others / answered / 1000, "us")
    it.put(f"{test}: generator busy", 100 * found.busy, "%", "")
    it.latencies(test, records)


def _interpreted(plan: Plan, seconds: float) -> fast.Run:
    """Where there is no compiler."""
    with Traffic(plan) as load:
        began, busy = time.monotonic(), load.busy()
        pause(seconds)
        took, busy = time.monotonic() - began, load.busy() - busy
        return fast.Run(load.stop().records, took, busy / took)


def mixed(it: Measuring) -> None:
    """An open load in which 1 % of the requests block their worker: what the others wait."""
    plan = Plan(
        it.running.address, rate=it.size.rate, slow_path="/block/500", slow_share=0.01,
        poisson=True, seed=it.size.seed, timeout=PATIENCE_S,
    )  # fmt: skip
    records = [each for each in traffic(plan, it.size.mixed_s) if each.detail != SLOW]
    it.latencies("1 % block 500 ms", records, curve=True)


def footprint(it: Measuring) -> None:
    """After all that work."""
    it.put("memory", it.running.pss_mib(), "MiB")
    it.put("start until all answer", it.running.started_in, "s")


GOOD_DAY: dict[str, Callable[[Measuring], None]] = {
    "splits": splits,
    "connection per request": per_request,
    "keep-alive": kept,
    "mixed": mixed,
    "footprint": footprint,
}
