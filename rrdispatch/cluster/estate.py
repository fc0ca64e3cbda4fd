"""What an heir needs: kept at every dispatcher, and written down before each step.

Owns the vault and the list of what is kept; must not know how an heir begins (inherit.py does).
Format 1 of the text is JSON: see ``Fixed`` and ``Estate.save``.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rrdispatch import __version__, mutants
from rrdispatch._core.layout import KEPT_FDS, AppTag, ControlKind
from rrdispatch.cluster.freeze import Freezer
from rrdispatch.cluster.handle import WorkerHandle
from rrdispatch.cluster.launch import Launches
from rrdispatch.cluster.vault import Vault
from rrdispatch.cluster.view import View

FORMAT = 1
MOST_HEIRS, WITHIN, SILENT = 3, 30.0, 10.0  # heirs, in so many seconds; one says something within
HANDLE = ("id", "slot", "generation", "pid", "started_at", "capacity", "batch", "kind", "status",
          "reaped", "how", "says_ready", "watched")  # fmt: skip


class Ask(Protocol):
    """Dispatching.ask."""

    def __call__(
        self, kind: ControlKind, answered: None = None, *, values: Any, fds: Any
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """Facts of a service that never change."""

    settings: Mapping[str, Any]
    cwd: str
    environ: Mapping[str, str]
    nofile: tuple[int, int]
    dispatcher: str
    secret: str = ""  # of programs' keys, in hex


@dataclass(slots=True)
class Changing:
    """What a step may change."""

    view: View
    handles: Mapping[int, WorkerHandle]
    listeners: Sequence[Mapping[str, Any]]  # as net.listeners.describe tells, and their files
    totals: Mapping[int, Any]
    counters: Any  # of the dispatchers that are gone
    token: int  # of the last reload


class Estate:
    """One service's; from its first primary to its last."""

    def __init__(
        self, command: bytes, kept: Mapping[AppTag, Sequence[int]], vault: Vault | None = None
    ) -> None:
        """``kept``: fds by tag; they stay the caller's."""
        self._vault = vault or Vault()
        self._command = command
        self._kept = {**kept, AppTag.STATE: [self._vault.fd]}
        self._freezer = Freezer()
        self._fixed = self._launched = ""
        self._launches: tuple[int, ...] = ()

    def begin(self, fixed: Fixed) -> None:
        """Once, before the first ``save``."""
        self._fixed = json.dumps(dataclasses.asdict(fixed))

    def keep(self, tag: AppTag, fds: Sequence[int], ask: Ask) -> None:
        """From now on, at this dispatcher and all that follow."""
        self._kept[tag] = list(fds)
        ask(ControlKind.KEEP, values=(int(tag),), fds=list(fds))

    def share(self, listeners: Sequence[int], ask: Ask) -> None:
        """Listeners that no dispatcher accepts from; none when they are closed."""
        for index, tag in enumerate((AppTag.SHARED, AppTag.SHARED_MORE)):
            fds = listeners[index * KEPT_FDS : (index + 1) * KEPT_FDS]
            if fds or tag in self._kept:
                self.keep(tag, fds, ask)

    def tell(self, ask: Ask) -> None:
        """To a new dispatcher. The command last: an heir finds all that it needs."""
        for tag, fds in self._kept.items():
            ask(ControlKind.KEEP, values=(tag,), fds=list(fds))
        if mutants.enabled("no-heir"):
            return
        fd = os.memfd_create("rrdispatch-heir", os.MFD_CLOEXEC)
        with os.fdopen(fd, "wb") as file:
            file.write(self._command)
            file.flush()
            values = (MOST_HEIRS, int(WITHIN * 1e9), int(SILENT * 1e9))
            ask(ControlKind.HEIR, values=values, fds=[fd])

    def save(self, launches: Launches, now: Changing) -> None:
        """What an heir would begin with."""
        known = tuple(launches.known)
        if known != self._launches:
            self._launches, self._launched = known, json.dumps(launches.facts())
        changing = {
            "format": FORMAT,
            "version": __version__,
            "primary": os.getpid(),
            "totals": {slot: dataclasses.asdict(total) for slot, total in now.totals.items()},
            "counters": dataclasses.asdict(now.counters),
            "token": now.token,
            "listeners": now.listeners,
        }
        parts = {
            "fixed": self._fixed,
            "launches": self._launched,
            "view": self._freezer.text(now.view),
            "handles": self._freezer.rows(now.handles, HANDLE),
        }
        text = "".join(f', "{name}": {part}' for name, part in parts.items())
        self._vault.write(f"{json.dumps(changing)[:-1]}{text}}}".encode())

    def close(self) -> None:
        self._vault.close()
