"""Signals that mean drain, and leaving without waiting for threads that don't end."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn


def handled_signals(stop_signal: str) -> set[signal.Signals]:
    """SIGTERM always; SIGINT for a terminal; and the one that the settings name."""
    return {signal.SIGTERM, signal.SIGINT, signal.Signals[f"SIG{stop_signal}"]}


def exit_now(code: int) -> NoReturn:
    """Without the interpreter's end, which waits for every thread that is no daemon."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # noqa: PERF203 (nobody reads it any more)
            continue
    os._exit(code)
