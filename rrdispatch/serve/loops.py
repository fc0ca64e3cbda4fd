"""Which event loop a worker runs, and running it to its end."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Callable, Coroutine
from typing import Any, cast

from rrdispatch.errors import TargetError

from .extras import require
from .stopping import Stops

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def loop_factory(name: str) -> LoopFactory:
    """``auto`` is uvloop where it is installed; else asyncio, uvloop, or MODULE:CALLABLE."""
    if name == "auto":
        name = "uvloop" if importlib.util.find_spec("uvloop") else "asyncio"
    if name in ("asyncio", "none"):
        return asyncio.new_event_loop
    if name == "uvloop":
        module = require("uvloop", "fast", "the event loop uvloop")
        return cast(LoopFactory, module.new_event_loop)
    module_name, _, attribute = name.partition(":")
    try:
        return cast(LoopFactory, getattr(importlib.import_module(module_name), attribute))
    except (ImportError, AttributeError, ValueError) as error:
        raise TargetError(
            f"there is no event loop {name!r}: {error}", hint="auto, asyncio, uvloop or MODULE:NAME"
        ) from None


def run(main: Coroutine[Any, Any, int], factory: LoopFactory, stops: Stops | None = None) -> int:
    """Run ``main`` in a loop of its own, and end what it left behind; no ``stops`` count then."""
    loop = factory()
    asyncio.set_event_loop(loop)
    if stops is not None:
        stops.hear(loop)
    try:
        return loop.run_until_complete(main)
    finally:
        try:
            _cancel_all(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            if stops is not None:
                stops.ignore(loop)
            loop.close()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
