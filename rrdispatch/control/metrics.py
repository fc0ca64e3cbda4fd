"""Figures of apps in the text format of Prometheus, made of their stats by prometheus-client.

Names and labels are a promise (docs/metrics.md). Must not know who asks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rrdispatch.control.rows import cpu_seconds, memory
from rrdispatch.errors import MissingExtraError

Stats = Mapping[str, Any]
Sample = tuple[Sequence[str], float]
Reduce = Callable[[Iterable[float]], float]

# report.state_of
STATES = ("starting", "serving", "reloading", "stopping", "down", "ended", "stopped")

# name, kind, what it is, where it is found
OF_APP: Sequence[tuple[str, str, str, Callable[[Stats], float]]] = (
    ("ready", "gauge", "1 while a worker serves and nobody asked for the end",
     lambda stats: bool(stats["serving"]) and stats["state"] not in ("stopping", "stopped")),
    ("degraded", "gauge", "1 after a reload failed and its workers had to be respawned",
     lambda stats: bool(stats["degraded"])),
    ("generation", "gauge", "Counts reloads", lambda stats: stats["generation"]),
    ("workers_wanted", "gauge", "Workers that there should be", lambda stats: stats["wanted"]),
    ("workers_serving", "gauge", "Workers that take connections", lambda stats: stats["serving"]),
    ("connections_accepted", "counter", "Connections taken from the backlog",
     lambda stats: stats["accepted"]),
    ("connections_moved", "counter", "Waiting connections given to another worker",
     lambda stats: stats["moved"]),
    ("connections_lost", "counter", "Connections that could be given to nobody",
     lambda stats: stats["lost"]),
)  # fmt: skip
OF_SLOT: Sequence[tuple[str, str, Callable[[Stats], float]]] = (
    ("connections", "Connections given to its workers", lambda slot: slot["connections"]),
    ("requests", "Requests answered, as far as workers tell", lambda slot: slot["requests"]),
    ("restarts", "Respawns since the start or `reset`", lambda slot: slot["restarts"]),
)  # fmt: skip
# Of the workers that a slot has at this moment: two while a reload goes on. By slot, not by
# process: labels that never come again would fill whoever stores them.
OF_WORKERS: Sequence[tuple[str, str, str, Reduce, Callable[[Stats], float]]] = (
    ("open_connections", "gauge", "Connections that its workers have", sum,
     lambda worker: worker["inflight"]),
    ("pending_connections", "gauge", "Connections that wait for its workers", sum,
     lambda worker: worker["pending"]),
    ("busy", "gauge", "Requests that are worked on, as far as workers tell", sum,
     lambda worker: worker["busy"]),
    ("stalled", "gauge", "1 while it is passed over", max, lambda worker: bool(worker["stalled"])),
    ("resident_memory_bytes", "gauge", "Memory of its workers", sum,
     lambda worker: memory(worker["pid"])),
    ("cpu_seconds", "counter", "Processor time of the workers that it has now", sum,
     lambda worker: cpu_seconds(worker["pid"])),
)  # fmt: skip


def text(apps: Mapping[str, Stats | None]) -> bytes:
    """``apps`` by name; None for one that does not answer."""
    library = require()
    registry = library.CollectorRegistry(auto_describe=False)
    registry.register(_Figures(library, apps))
    found: bytes = library.generate_latest(registry)
    return found


def content_type() -> str:
    found: str = require().CONTENT_TYPE_LATEST
    return found


def require() -> Any:
    """prometheus-client, or what to do about its absence."""
    try:
        import prometheus_client
    except ImportError:
        raise MissingExtraError(
            f"metrics need prometheus-client, which {sys.executable} does not have",
            hint=f'{sys.executable} -m pip install "rrdispatch[metrics]"',
        ) from None
    return prometheus_client


class _Figures:
    """A collector, as the library calls it."""

    def __init__(self, library: Any, apps: Mapping[str, Stats | None]) -> None:
        self._metrics = library.metrics_core
        self._apps = {name: stats for name, stats in apps.items() if stats is not None}
        self._up = {name: stats is not None for name, stats in apps.items()}

    def collect(self) -> Iterator[Any]:
        up = [((name,), float(up)) for name, up in self._up.items()]
        yield self._family("up", "gauge", "1 if its primary answers", ("app",), up)
        yield self._family("app", "info", "What runs", ("app",), self._infos())
        for name, kind, what, value in OF_APP:
            found = [((app,), float(value(stats))) for app, stats in self._apps.items()]
            yield self._family(name, kind, what, ("app",), found)
        words = [
            ((app, state), float(stats["state"] == state))
            for app, stats in self._apps.items()
            for state in STATES
        ]
        yield self._family("state", "gauge", "1 for its state of now", ("app", "state"), words)
        yield self._family("workers", "gauge", "By state", ("app", "state"), self._states())
        for name, what, value in OF_SLOT:
            slots = [
                ((app, str(slot["slot"])), float(value(slot)))
                for app, stats in self._apps.items()
                for slot in stats["slots"]
            ]
            yield self._family(f"slot_{name}", "counter", what, ("app", "slot"), slots)
        for name, kind, what, reduce, value in OF_WORKERS:
            sums = list(self._by_slot(reduce, value))
            yield self._family(f"slot_{name}", kind, what, ("app", "slot"), sums)

    def _by_slot(self, reduce: Reduce, value: Callable[[Stats], float]) -> Iterator[Sample]:
        for app, stats in self._apps.items():
            slots: dict[int, list[float]] = {}
            for worker in stats["workers"]:
                slots.setdefault(worker["slot"], []).append(float(value(worker)))
            for slot, found in sorted(slots.items()):
                yield (app, str(slot)), reduce(found)

    def _states(self) -> list[Sample]:
        found: dict[tuple[str, str], int] = {}
        for app, stats in self._apps.items():
            for worker in stats["workers"]:
                key = (app, worker["state"])
                found[key] = found.get(key, 0) + 1
        return [(key, float(count)) for key, count in sorted(found.items())]

    def _infos(self) -> list[tuple[Sequence[str], dict[str, str]]]:
        keys = ("version", "policy", "dispatcher")
        return [
            ((app,), {key: str(stats.get(key) or "") for key in keys})
            for app, stats in self._apps.items()
        ]

    def _family(
        self, name: str, kind: str, what: str, labels: Sequence[str], samples: Sequence[Any]
    ) -> Any:
        make = {
            "gauge": self._metrics.GaugeMetricFamily,
            "counter": self._metrics.CounterMetricFamily,
            "info": self._metrics.InfoMetricFamily,
        }[kind]
        family = make(f"rrdispatch_{name}", what, labels=labels)
        for found, value in samples:
            family.add_metric(found, value)
        return family
