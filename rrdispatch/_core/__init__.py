"""The border to the operating system: the C core where it was built, else its stdlib-only twin.

``RRDISPATCH_PURE=1`` chooses the twin. Nothing else in the package imports the extension module.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

from rrdispatch import mutants

__all__ = [
    "NATIVE",
    "Scoreboard",
    "SpawnRequest",
    "Taken",
    "channel_pair",
    "control_receive",
    "control_send",
    "dispatcher_program",
    "gate",
    "ledger_close",
    "ledger_cookie",
    "ledger_note",
    "ledger_open",
    "now_ns",
    "pending",
    "scoreboard_create",
    "send",
    "shim_library",
    "spawn",
    "take",
]


def _native_loads() -> bool:
    """A worker may run in an interpreter without cffi, or one that the build does not fit."""
    try:
        importlib.import_module("rrdispatch._core._native")
    except ImportError:
        return False
    return True


_PURE = os.environ.get("RRDISPATCH_PURE") == "1" or not _native_loads()

if TYPE_CHECKING or _PURE:
    from .pure import (
        NATIVE,
        Scoreboard,
        SpawnRequest,
        Taken,
        channel_pair,
        control_receive,
        control_send,
        dispatcher_program,
        gate,
        ledger_close,
        ledger_cookie,
        ledger_note,
        ledger_open,
        now_ns,
        pending,
        scoreboard_create,
        send,
        shim_library,
        spawn,
        take,
    )
else:
    from .native import (
        NATIVE,
        Scoreboard,
        SpawnRequest,
        Taken,
        channel_pair,
        control_receive,
        control_send,
        dispatcher_program,
        gate,
        ledger_close,
        ledger_cookie,
        ledger_note,
        ledger_open,
        now_ns,
        pending,
        run_dispatcher,  # noqa: F401 (native only)
        scoreboard_create,
        send,
        shim_library,
        spawn,
        take,
    )

if mutants.enabled("no-room-check"):
    # With its ledger: what takes and what notes it belong together.
    from .pure import ledger_close, ledger_cookie, ledger_note, ledger_open, take
