"""rrdispatch for asyncio: servers over a worker's listeners, Cluster, connect and Node's cluster
with ``await``.

Names are loaded when they are first used: a worker needs no cluster, an embedding service no
listeners.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rrdispatch.control.aembed import Cluster
    from rrdispatch.control.aservice import connect
    from rrdispatch.node.aio import cluster
    from rrdispatch.worker.streams import create_server, start_server

__all__ = ["Cluster", "cluster", "connect", "create_server", "start_server"]

_PLACES = {
    "Cluster": "rrdispatch.control.aembed",
    "cluster": "rrdispatch.node.aio",
    "connect": "rrdispatch.control.aservice",
    "create_server": "rrdispatch.worker.streams",
    "start_server": "rrdispatch.worker.streams",
}


def __getattr__(name: str) -> Any:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(place), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_PLACES)
