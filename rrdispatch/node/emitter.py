"""``on``, ``once``, ``off``: handlers by the name of an event, as calls or as decorators. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

Handler = TypeVar("Handler", bound=Callable[..., object])
Spawner = Callable[[Awaitable[object]], object]


class Emitter:
    """Calls the handlers of an event in the order in which they came."""

    EVENTS: frozenset[str] = frozenset()
    spawn: Spawner | None = None  # for handlers that are coroutine functions: an event loop's

    def __init__(self) -> None:
        self._handlers: dict[str, list[tuple[Callable[..., object], bool]]] = {}

    def on(self, event: str, handler: Handler | None = None) -> Any:
        """From now on. The handler is given back; without one this is a decorator."""
        return self._add(event, handler, False)

    def once(self, event: str, handler: Handler | None = None) -> Any:
        """The next time only."""
        return self._add(event, handler, True)

    def off(self, event: str, handler: Callable[..., object]) -> None:
        """Not any more; nothing if it was not there."""
        self._check(event)
        left = [one for one in self._handlers.get(event, []) if one[0] is not handler]
        self._handlers[event] = left

    def has(self, event: str) -> bool:
        """Whether anybody is there."""
        return bool(self._handlers.get(event))

    def emit(self, event: str, *facts: Any) -> bool:
        """Whether anybody was there. What a handler raises is the caller's."""
        known = tuple(self._handlers.get(event, ()))
        for one in known:
            if one[1]:
                self._handlers[event].remove(one)
            result = one[0](*facts)
            if isinstance(result, Awaitable) and Emitter.spawn is not None:
                Emitter.spawn(result)
        return bool(known)

    def _add(self, event: str, handler: Handler | None, only_once: bool) -> Any:
        self._check(event)
        if handler is None:
            return lambda given: self._add(event, given, only_once)
        if not callable(handler):
            raise TypeError(f"{handler!r} cannot be called")
        self._handlers.setdefault(event, []).append((handler, only_once))
        return handler

    def _check(self, event: str) -> None:
        if event not in self.EVENTS:
            raise ValueError(
                f"there is no event {event!r}: one of {', '.join(sorted(self.EVENTS))}"
            )
