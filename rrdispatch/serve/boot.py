"""The first lines of a worker of an app; run by path, by the app's own interpreter.

That interpreter may not have rrdispatch installed, or another version of it. So the package that
this file belongs to is registered by hand, and ``sys.path`` stays the app's.
"""

from __future__ import annotations

import importlib.util
import os
import sys


def register() -> None:
    """Make this file's package importable as ``rrdispatch``, whatever is installed."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    spec = importlib.util.spec_from_file_location(
        "rrdispatch", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["rrdispatch"] = package
    spec.loader.exec_module(package)


def use_apps_path() -> None:
    """Python put this file's folder first, whose modules would hide the app's; cwd is wanted."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [item for item in sys.path if os.path.abspath(item or ".") != here]
    sys.path.insert(0, os.getcwd())
    sys.argv[:] = sys.argv[1:] or [""]


def boot() -> int:
    use_apps_path()
    register()
    from rrdispatch.serve.main import main

    return main()


if __name__ == "__main__":
    sys.exit(boot())
