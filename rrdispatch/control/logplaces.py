"""Where the logs of apps are: of those that run and those that do not."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrdispatch.cluster.logformat import ERR, OUT, Line
from rrdispatch.cluster.logplan import Plan, plan_of, rotated, worker_paths
from rrdispatch.control import statedir
from rrdispatch.control.definitions import Definition
from rrdispatch.control.logread import LogRef
from rrdispatch.control.selectors import Target
from rrdispatch.errors import ConfigError, ControlError, Error
from rrdispatch.settings import Settings

STREAMS = (OUT, ERR)


@dataclass(frozen=True)
class AppLogs:
    """One app's, or one slot's of it."""

    plan: Plan
    slot: int | None = None

    def refs(self, streams: Collection[str] = STREAMS) -> Iterator[LogRef]:
        """Its files, as there are by now, each once."""
        done = set()
        for stream, path in self.plan.files.items():
            alone = list(self.plan.files.values()).count(path) == 1
            for slot, name in self._names(path).items():
                if name not in done and (stream in streams or not alone):
                    done.add(name)
                    known = Line(b"", self.plan.name, slot, stream if alone else None)
                    yield LogRef(name, self.plan.kind, self.plan.keep, known)

    def _names(self, path: str) -> Mapping[int | None, str]:
        if self.plan.merge or not _is_log(path):
            return {None: path} if _is_log(path) else {}
        found = worker_paths(path)
        return {slot: name for slot, name in found.items() if self.slot in (None, slot)}

    def flush(self) -> int:
        """Nothing is left of what was written so far; how many bytes that was.

        Lines are appended whole, so that one is either gone or behind this.
        """
        freed = 0
        for ref in self.refs():
            path = os.path.realpath(ref.path)
            for name in rotated(path, ref.keep):
                freed += _size(name)
                Path(name).unlink(missing_ok=True)
            freed += _size(path)
            if os.path.exists(path):
                os.truncate(path, 0)
        return freed


def _is_log(path: str) -> bool:
    """A device keeps nothing; what is not there yet will be a file."""
    return not os.path.exists(path) or os.path.isfile(path)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def logs_of(target: Target) -> AppLogs:
    """ConfigError for an app that writes no files."""
    told = _told(target.definition)
    if not told.get("files"):
        raise ConfigError(
            f"{target.name} writes its output to its own stdout and stderr, not into files",
            hint="look where it was started, or say --log FILE there",
        )
    return AppLogs(Plan(**told), target.slot)


def _told(definition: Definition) -> Mapping[str, Any]:
    """What a primary without a definition says; the definition's last start otherwise."""
    if definition.settings:
        return plan_of(definition.settings)
    from rrdispatch.control.ask import ask_all

    found = ask_all([definition.name], "stats", 3.0)[definition.name]
    if isinstance(found, Error):
        raise ControlError(f"{definition.name} has no logs: {found.message}", hint=found.hint)
    told: Mapping[str, Any] = found["logs"]
    return told


def with_default(settings: Settings) -> Settings:
    """In the background there is no stdout that anybody sees: what has no file gets one."""
    if settings.log_file is not None:
        return settings
    path = statedir.log_folder() / f"{settings.name or 'app'}.log"
    return dataclasses.replace(settings, log_file=str(path))
