"""Where the logs of apps are: of those that run and those that do not."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rrdispatch.cluster.logformat import ERR, OUT, Line
from rrdispatch.cluster.logplan import Plan, plan_of, rotated, worker_paths
from rrdispatch.control import statedir
from rrdispatch.control.definitions import Definition
from rrdispatch.control.logread import LogRef
from rrdispatch.errors import ConfigError, ControlError, Error
from rrdispatch.settings import Settings

STREAMS = (OUT, ERR)


@dataclass(frozen=True)
class AppLogs:
    """One app's, or those of some of its slots."""

    plan: Plan
    slots: frozenset[int] | None = None  # None: all

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
        found, some = worker_paths(path), self.slots
        return {slot: name for slot, name in found.items() if some is None or slot in some}

    def flush(self) -> int:
        """Nothing is left of what was written so far; how many bytes that was.

        Lines are appended whole, so that one is either gone or behind this.
        """
        self.check_flush()
        freed = 0
        for ref in self.refs():
            folder, name = os.path.split(ref.path)
            path = os.path.join(os.path.realpath(folder), name)
            for each in rotated(path, ref.keep):
                freed += _emptied(each, unlink=True)
            freed += _emptied(path)
        return freed

    def check_flush(self) -> None:
        """ConfigError if more would be gone than what was named."""
        if self.slots is not None and self.plan.merge:
            raise ConfigError(
                f"{self.plan.name}: all workers write to one file, nothing of it is one worker's",
                hint=f"rrdispatch flush {self.plan.name}",
            )


def _emptied(path: str, *, unlink: bool = False) -> int:
    """Bytes that are gone. Whoever may write in that folder could have put anything there: no
    symlink is followed, and no file of somebody else's is emptied in root's name.
    """
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(path, flags), "wb", buffering=0) as file:
            found = os.fstat(file.fileno())
            if found.st_uid not in (os.getuid(), os.stat(statedir.home()).st_uid):
                raise ControlError(f"{path} belongs to user {found.st_uid}: it is left as it is")
            if unlink:
                os.unlink(path)
            else:
                os.ftruncate(file.fileno(), 0)
            return found.st_size
    except FileNotFoundError:
        return 0
    except OSError as error:
        why = "it is a symlink" if error.errno == errno.ELOOP else error.strerror
        raise ControlError(f"{path} cannot be emptied: {why}") from error


def _is_log(path: str) -> bool:
    """A device keeps nothing; what is not there yet will be a file."""
    return not os.path.exists(path) or os.path.isfile(path)


def logs_of(definition: Definition, slots: frozenset[int] | None = None) -> AppLogs:
    """ConfigError for an app that writes no files."""
    told = _told(definition)
    if not told.get("files"):
        raise ConfigError(
            f"{definition.name} writes its output to its own stdout and stderr, not into files",
            hint="look where it was started, or say --log FILE there",
        )
    return AppLogs(Plan(**told), slots)


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
    name = settings.name or "app"
    # web-1.log would be that of an app of this name; no name has an @
    file = f"{name}.log" if settings.merge_logs else f"{name}@slot.log"
    path = statedir.log_folder() / file
    return dataclasses.replace(settings, log_file=str(path))
