"""A worker of an app, from its environment to its exit code.

Owns the order: place, app, kind, runner; and what is said when one of them fails: to the primary
only, which tells it once for all workers.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from rrdispatch.errors import MissingExtraError, TargetError
from rrdispatch.worker import runtime as worker
from rrdispatch.worker.place import Place
from rrdispatch.worker.runtime import Runtime

from .detect import Interface, detect
from .extras import require
from .load import AppError, broken, load
from .options import Options
from .stopping import ignore_stops

EXIT_TARGET = 3
EXIT_EXTRA = 4


def main() -> int:
    """Run the app that this process' environment names."""
    runtime = worker.enter(Place.from_environment())
    options = Options.from_app(runtime.place.app)
    try:
        return _run(options, runtime)
    except MissingExtraError as error:
        _tell(runtime, "extra", error)
        return EXIT_EXTRA
    except AppError as error:
        _tell(runtime, "app", error)
        return EXIT_TARGET
    except TargetError as error:
        _tell(runtime, "target", error)
        return EXIT_TARGET


def _run(options: Options, runtime: Runtime) -> int:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    app = load(options.target, factory=options.factory)
    runtime.notifier.loaded()
    _set_up_logging(options.log_level)
    if not runtime.place.listeners:
        from . import idle

        return idle.work(app, options)
    interface = detect(app, options.target, options.interface)
    try:
        return _runner(interface, app, options, runtime)
    finally:
        ignore_stops(options.stop_signal)


def _runner(interface: Interface, app: Any, options: Options, runtime: Runtime) -> int:
    if interface in (Interface.ASGI, Interface.ASGI2):
        require("uvicorn", "asgi", "an ASGI app")
        from . import asgi

        runtime.kind = "asgi"
        return asgi.serve(app, interface, options, runtime)
    if interface is Interface.WSGI:
        require("waitress", "wsgi", "a WSGI app")
        from . import wsgi

        runtime.kind, runtime.capacity = "wsgi", options.threads
        return wsgi.serve(app, options, runtime)
    runtime.kind = "serve"
    return _plain(app, options, runtime)


def _plain(app: Any, options: Options, runtime: Runtime) -> int:
    from . import plain

    if options.tls:
        raise TargetError(
            f"{options.target} is a serve(listener): TLS is its own affair",
            hint="leave out --ssl-certfile and --ssl-keyfile; ssl= of start_server, or wrap_socket",
        )
    try:
        return plain.serve(app, options, runtime)
    except Exception as error:
        if runtime.notifier.has_said("ready"):
            raise
        raise broken(f"{options.target} failed", error, AppError) from None


def _set_up_logging(level: str) -> None:
    """The servers' own lines go to stderr, unless the app has set up logging itself.

    What they say at level info (started, shutting down) is said by the primary.
    """
    number = 5 if level == "trace" else getattr(logging, level.upper(), logging.INFO)
    number = logging.WARNING if number == logging.INFO else number
    for name in ("uvicorn", "uvicorn.error", "waitress", "waitress.queue", "rrdispatch"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            # waitress warns of each request that waits for a thread: the scoreboard shows it.
            logger.setLevel(max(number, logging.ERROR) if name == "waitress.queue" else number)
        if not logger.hasHandlers():
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
            logger.addHandler(handler)
            logger.propagate = False


def _tell(runtime: Runtime, code: str, error: TargetError) -> None:
    runtime.notifier.error(code, error.message, hint=error.hint, traceback=error.traceback)
