"""``rrdispatch.connect("web")``: an app of the list, from a program; each call has its own end.

Every call opens a connection of its own, so that it finds the primary of the moment. Threads may
share one. ``rrdispatch.aio.connect`` is the same with ``await``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rrdispatch.control import changing, ending, selectors
from rrdispatch.control.ask import ANSWER
from rrdispatch.control.definitions import Definition
from rrdispatch.errors import ConfigError

if TYPE_CHECKING:
    from rrdispatch.cluster.operations import ReloadResult


def connect(app: str) -> Service:
    """By name or id; ConfigError if there is none, or if several are meant."""
    found = selectors.resolve([app])
    if len(found) != 1:
        names = ", ".join(target.name for target in found)
        raise ConfigError(f"{app!r} means {len(found)} apps", hint=f"name one of {names}")
    return Service(found[0].definition)


class Service:
    """One app. ControlError where its primary is gone, refuses, or takes too long."""

    def __init__(self, definition: Definition) -> None:
        self._definition = definition

    @property
    def name(self) -> str:
        return self._definition.name

    def __repr__(self) -> str:
        return f"<rrdispatch.connect({self.name!r})>"

    def stats(self) -> dict[str, Any]:
        """What it is and does at this moment."""
        found: dict[str, Any] = self._call("stats")
        return found

    def reload(
        self, on_event: Callable[[Mapping[str, Any]], object] = lambda _event: None, **options: Any
    ) -> ReloadResult:
        """New code in every worker; ReloadError, with the old code serving, if it fails.

        ``batch``, ``park``, ``stop_first`` and ``probation`` override the settings.
        """
        from rrdispatch.cluster.operations import ReloadResult

        done = changing.reload(self._definition, options, on_event)
        assert done is not None
        return ReloadResult(done["generation"], done["seconds"], tuple(done["notes"]))

    def scale(self, workers: int) -> None:
        """Returns when so many serve."""
        changing.scale(self._definition, str(workers))

    def signal(self, name: str, slot: int | None = None) -> list[int]:
        """To the workers, or to one; their pids."""
        found: list[int] = self._call("signal", signal=name, slot=slot)
        return found

    def stop(self, *, now: bool = False) -> None:
        """Returns at its end. It stays in the list."""
        ending.stop(self._definition, now=now)

    def _call(self, method: str, **params: Any) -> Any:
        with changing.running(self._definition) as line:
            return line.call(method, ANSWER, **params)
