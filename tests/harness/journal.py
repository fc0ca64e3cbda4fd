"""Reading what the probe apps wrote down: proves where a request was when its worker died."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness.records import Record


@dataclass
class Entries:
    """The journal of one worker, in nanoseconds of CLOCK_MONOTONIC."""

    taken: list[tuple[int, int]] = field(default_factory=list)  # client's port, when
    begun: dict[int, int] = field(default_factory=dict)  # number of the request: when
    done: dict[int, int] = field(default_factory=dict)

    def took(self, record: Record) -> int:
        """When this worker took the request's connection; 0 if it never did."""
        since = record.intended if record.fresh else 0  # a kept one was taken before
        for port, moment in reversed(self.taken):
            if record.port and port == record.port and since <= moment <= record.ended:
                return moment
        # Its app may begin later than it was taken: only then is its whole request there.
        return self.begun.get(record.number, 0)


class Journal:
    """The journals of all workers that were started with this directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def env(self) -> dict[str, str]:
        return {"PROBE_JOURNAL": str(self.directory)}

    def read(self) -> dict[int, Entries]:
        """By pid."""
        return {int(path.name): _entries(path) for path in self.directory.iterdir()}

    def taken(self) -> int:
        """Connections that all workers together wrote down as taken."""
        return sum(len(entries.taken) for entries in self.read().values())

    def inside(self, failed: Iterable[Record]) -> tuple[dict[int, int], list[Record]]:
        """Of failed requests: number to pid of the worker that had taken it; and the others."""
        journals = self.read()
        held: dict[int, int] = {}
        others: list[Record] = []
        for record in failed:
            holders = {pid: entries.took(record) for pid, entries in journals.items()}
            latest = max(holders, key=holders.__getitem__, default=0)
            if latest and holders[latest]:
                held[record.number] = latest
            else:
                others.append(record)
        return held, others


def _entries(path: Path) -> Entries:
    entries = Entries()
    for line in path.read_text().splitlines():
        kind, what, moment = line.split(" ")
        if kind == "T":
            entries.taken.append((int(what), int(moment)))
        elif what:
            (entries.begun if kind == "S" else entries.done)[int(what)] = int(moment)
    return entries
