"""A first primary that kills itself at a moment of the test's choice: before or after one call."""

from __future__ import annotations

from pathlib import Path

from tests.harness.servers import ROOT

CLUSTER = "rrdispatch.cluster"
_SITE = """
import os, signal, sys

def end(flag):
    try:
        os.unlink(flag)
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)

if "run" in sys.orig_argv and "-m" in sys.orig_argv:
    import functools, importlib
    flag, when, module, owner, name = os.environ["ENDS_ITSELF"].split(":")
    owner = getattr(importlib.import_module(module), owner)
    real = getattr(owner, name)

    @functools.wraps(real)
    def patched(*arguments, **more):
        if when == "before":
            end(flag)
        result = real(*arguments, **more)
        if when == "after":
            end(flag)
        return result

    setattr(owner, name, patched)
"""


def ends_itself(where: str, folder: Path) -> tuple[dict[str, str], Path]:
    """The environment of such a service, and the file that allows it to happen.

    ``where``: before or after, module, class, function; with colons.
    """
    flag = folder / "now"
    (folder / "sitecustomize.py").write_text(_SITE)
    return {"ENDS_ITSELF": f"{flag}:{where}", "PYTHONPATH": f"{folder}:{ROOT}"}, flag
