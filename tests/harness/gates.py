"""Where the kernel lets this user put a filter on a TCP listener (newer ones: CAP_NET_ADMIN)."""

from __future__ import annotations

import functools
import socket

import pytest

from rrdispatch import _core


@functools.cache
def permitted() -> bool:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        try:
            _core.gate(probe.fileno())
        except PermissionError:
            return False
    return True


def need_gate() -> None:
    """Skips the test that calls it where there is no gate to be had."""
    if not permitted():
        pytest.skip("a filter on a TCP listener takes CAP_NET_ADMIN on this kernel")
