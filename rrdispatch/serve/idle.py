"""Runs an app that takes no connections (``--no-listen``): a queue's consumer, a scheduler.

The app is a function without arguments (or with one, which is None then). Signals are its own
business: if it handles none, the stop signal ends it.
"""

from __future__ import annotations

import inspect
from typing import Any

from rrdispatch.errors import TargetError

from .detect import is_async
from .loops import loop_factory, run
from .options import Options


def work(app: Any, options: Options) -> int:
    """Until the app has returned; the exit code."""
    arguments = _arguments(app, options.target)
    if is_async(app):

        async def main() -> int:
            await app(*arguments)
            return 0

        return run(main(), loop_factory(options.loop))
    app(*arguments)
    return 0


def _arguments(app: Any, target: str) -> tuple[None, ...]:
    for arguments in ((), (None,)):
        try:
            inspect.signature(app).bind(*arguments)
        except (TypeError, ValueError):
            continue
        return arguments
    raise TargetError(
        f"{target} has no address to serve on, and cannot be called without one",
        hint="a function without arguments is wanted with --no-listen; else say --bind",
    )
