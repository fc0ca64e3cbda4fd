"""The first lines of a worker; run by path: ``boot.py SCRIPT|-m MODULE|-a MODULE:ATTRIBUTE``.

It says ``online``, then becomes the program that its primary named, and stays when that has come to
its end, as Node does.
"""

from __future__ import annotations

import json
import os
import sys
import types
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


def join(place: dict[str, Any]) -> Any:
    """The package that this file belongs to, wherever sys.path would find another one."""
    if sys.path and os.path.abspath(sys.path[0] or ".") == HERE:
        del sys.path[0]
    sys.path.insert(0, ROOT)
    try:
        from rrdispatch.node import child
    finally:
        sys.path.remove(ROOT)
    return child.enter(place)


def give_up(place: dict[str, Any]) -> None:
    """setup_primary's ``gid`` and ``uid``. Groups of root's go with either, as Node does it."""
    gid, uid = place.get("gid"), place.get("uid")
    if gid is None and uid is None:
        return
    if os.geteuid() == 0:
        os.setgroups([])
    if gid is not None:
        os.setgid(gid)
    if uid is not None:
        os.setuid(uid)


def put_first(folder: str) -> None:
    """As Python does for a script; not where it was told not to (-P, -I)."""
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path.insert(0, folder)


def run_script(path: str) -> None:
    """As ``python path`` would."""
    sys.argv[:] = sys.argv[1:]
    if not os.path.isfile(path) or path.endswith((".zip", ".pyz")):
        import runpy

        runpy.run_path(path, run_name="__main__")
        return
    put_first(os.path.dirname(os.path.abspath(path)))
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    module = types.ModuleType("__main__")
    module.__dict__.update({"__file__": path, "__builtins__": __builtins__, "__cached__": None})
    sys.modules["__main__"] = module
    exec(code, module.__dict__)  # noqa: S102 (it is the script)


def run_module(name: str) -> None:
    """As ``python -m name`` would."""
    import runpy

    sys.argv[:] = sys.argv[2:]
    put_first(os.getcwd())
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def run_app(target: str) -> int:
    """By rrdispatch's own runners."""
    sys.argv[:] = [target]
    put_first(os.getcwd())
    from rrdispatch.serve.main import main

    return main()


def main() -> int:
    place = json.loads(os.environ.pop("RRDISPATCH_NODE"))
    worker = join(place)
    give_up(place)
    try:
        if sys.argv[1] == "-a":
            return run_app(sys.argv[2])
        if sys.argv[1] == "-m":
            run_module(sys.argv[2])
        else:
            run_script(sys.argv[1])
        worker.run()
    except Exception as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
