"""Recognises what an app is, by what it wants to be called with.

ASGI: three arguments and a coroutine. WSGI: two. ``serve``: one, the listener. It calls nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from typing import Any

from rrdispatch.errors import TargetError


class Interface(Enum):
    """How a runner talks to the app."""

    ASGI = "asgi"
    ASGI2 = "asgi2"  # a callable of the scope, which gives a coroutine function
    WSGI = "wsgi"
    SERVE = "serve"


_HINT = "say it: --interface asgi, wsgi or serve"


def detect(app: Any, target: str, wanted: str = "auto") -> Interface:
    """What it is; ``wanted`` is believed."""
    fewest, most, first = _arguments(app)
    if wanted != "auto":
        if wanted == "asgi" and fewest == most == 1:
            return Interface.ASGI2
        return Interface(wanted)
    if fewest is None:
        raise TargetError(f"{target}: can't see what kind of app it is", hint=_HINT)
    if fewest == 3:
        return Interface.ASGI
    if fewest == 2 and not is_async(app):
        return Interface.WSGI
    if fewest == 1:
        return Interface.ASGI2 if first == "scope" else Interface.SERVE
    if fewest == 0:
        raise TargetError(
            f"{target} can be called without an argument: it may be a factory",
            hint=f"--factory if it makes the app; else {_HINT}",
        )
    raise TargetError(
        f"{target} wants {fewest} arguments{' and is async' if is_async(app) else ''}: it is no "
        "ASGI app (3), no WSGI app (2, not async), no serve(listener) (1)",
        hint=_HINT,
    )


def is_async(app: Any) -> bool:
    """A coroutine function, or an object whose call is one."""
    called = inspect.unwrap(app) if inspect.isroutine(app) else app
    while hasattr(called, "func") and hasattr(called, "keywords"):  # functools.partial
        called = called.func
    return inspect.iscoroutinefunction(called) or inspect.iscoroutinefunction(
        getattr(called, "__call__", None)  # noqa: B004 (the method itself is looked at)
    )


def _arguments(app: Callable[..., Any]) -> tuple[int | None, int | None, str]:
    """Fewest and most positional arguments, and the first one's name; None: can't be seen."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return None, None, ""
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None, None, ""
    usual = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in usual if p.default is p.empty]
    return len(needed), len(usual), usual[0].name if usual else ""
