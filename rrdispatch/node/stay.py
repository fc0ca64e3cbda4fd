"""The end of the script is not the end: as long as there is something to wait for.

At the end of the main thread Python calls those who asked for it before it waits for threads. An
exception or sys.exit() is an end all the same: then the main module's last instruction was no
return.
"""

from __future__ import annotations

import atexit
import dis
import os
import sys
import threading
from collections.abc import Callable
from types import FrameType

_asked = False
_main: FrameType | None = None


def at_end_of_script(wait: Callable[[], None]) -> None:
    """Calls ``wait`` in the main thread when the script has come to its end. Once per process."""
    global _asked, _main  # noqa: PLW0603 (a process has one script)
    if _asked:
        return
    _asked = True
    _main = _frame_of_script()
    # Registered after it, so called before it: it ends all pools of threads, and handlers may
    # want them.
    import concurrent.futures.thread  # noqa: F401

    register = getattr(threading, "_register_atexit", None) or atexit.register
    register(_ended, wait, os.getpid())


def _ended(wait: Callable[[], None], pid: int) -> None:
    if pid != os.getpid() or not came_to_its_end(_main):
        return
    try:
        wait()
    except KeyboardInterrupt:
        _leave(130)
    except SystemExit as error:
        _leave(_code(error))
    except BaseException:
        sys.excepthook(*sys.exc_info())
        _leave(1)


def _code(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    sys.stderr.write(f"{error.code}\n")
    return 1


def _leave(code: int) -> None:
    """Python's own way would say 0."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # noqa: PERF203 (nobody reads it any more)
            continue
    os._exit(code)


def _frame_of_script() -> FrameType | None:
    """The main module's, if it is running."""
    main = sys.modules.get("__main__")
    ident = threading.main_thread().ident
    frame = sys._current_frames().get(ident) if ident is not None else None
    while frame is not None:
        its = main is not None and frame.f_globals is main.__dict__
        if its and frame.f_code.co_name == "<module>":
            return frame
        frame = frame.f_back
    return None


def came_to_its_end(frame: FrameType | None) -> bool:
    """It returned, and was not left by an exception."""
    if frame is None or frame.f_lasti < 0:
        return False
    return dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith("RETURN")
