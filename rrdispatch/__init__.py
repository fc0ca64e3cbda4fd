"""rrdispatch: every core serves, each new connection goes to the next worker in turn.

Names are loaded when they are first used, so that ``import rrdispatch`` costs next to nothing
inside an app. Nothing here knows how anything is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rrdispatch import cluster as cluster
    from rrdispatch.control.service import connect as connect
    from rrdispatch.embed import Cluster as Cluster
    from rrdispatch.errors import BindError as BindError
    from rrdispatch.errors import ConfigError as ConfigError
    from rrdispatch.errors import ControlError as ControlError
    from rrdispatch.errors import DispatcherError as DispatcherError
    from rrdispatch.errors import Error as Error
    from rrdispatch.errors import MissingExtraError as MissingExtraError
    from rrdispatch.errors import ProtocolError as ProtocolError
    from rrdispatch.errors import ReloadError as ReloadError
    from rrdispatch.errors import StartError as StartError
    from rrdispatch.errors import TargetError as TargetError
    from rrdispatch.worker.listener import Listener as Listener
    from rrdispatch.worker.notify import ready as ready
    from rrdispatch.worker.parking import on_park as on_park
    from rrdispatch.worker.parking import on_resume as on_resume

__version__ = "0.1.0"

_PLACES = {
    "Cluster": "rrdispatch.embed",
    "BindError": "rrdispatch.errors",
    "ConfigError": "rrdispatch.errors",
    "ControlError": "rrdispatch.errors",
    "DispatcherError": "rrdispatch.errors",
    "Error": "rrdispatch.errors",
    "MissingExtraError": "rrdispatch.errors",
    "ProtocolError": "rrdispatch.errors",
    "ReloadError": "rrdispatch.errors",
    "StartError": "rrdispatch.errors",
    "TargetError": "rrdispatch.errors",
    "Listener": "rrdispatch.worker.listener",
    "connect": "rrdispatch.control.service",
    "on_park": "rrdispatch.worker.parking",
    "on_resume": "rrdispatch.worker.parking",
    "ready": "rrdispatch.worker.notify",
}

__all__ = [
    "BindError",
    "Cluster",
    "ConfigError",
    "ControlError",
    "DispatcherError",
    "Error",
    "Listener",
    "MissingExtraError",
    "ProtocolError",
    "ReloadError",
    "StartError",
    "TargetError",
    "__version__",
    "cluster",
    "connect",
    "on_park",
    "on_resume",
    "ready",
]


def __getattr__(name: str) -> Any:
    if name == "cluster":  # the package itself, which is Node's API, too
        import rrdispatch.cluster as package

        return package
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(place), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
