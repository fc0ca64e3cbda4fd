"""Small things that the shim's tests share."""

from __future__ import annotations

import socket

import pytest

from .primary import SHIM

shim_needed = pytest.mark.skipif(not SHIM.exists(), reason="the shim was not built")


def free_port(family: int = socket.AF_INET) -> int:
    """Of the loopback; nothing else takes it soon, as the kernel gives others first."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
