"""The probe app, of which one worker gets stuck for ever inside of ``recvmsg``.

It receives into a page that never comes: the kernel takes the message, copies it there, and waits
with the channel's lock held. The worker that finds the file ``$STUCK_FLAG``, and can rename it, is
the one.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2] / "harness" / "apps"))

import page  # type: ignore[import-not-found,unused-ignore]
import probe  # type: ignore[import-not-found,unused-ignore]


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iov_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


def take_into(address: int, channel: int) -> None:
    """``recvmsg`` as a receiver does it, into that page."""
    control = ctypes.create_string_buffer(128)
    vector = _Iovec(address, 64)
    header = _Header(None, 0, ctypes.pointer(vector), 1, ctypes.addressof(control), 128, 0)
    ctypes.CDLL(None).recvmsg(channel, ctypes.byref(header), 0x40000000)  # MSG_CMSG_CLOEXEC


def serve(listener: Any) -> None:
    flag = os.environ["STUCK_FLAG"]
    try:
        os.rename(flag, f"{flag}.{os.getpid()}")
    except FileNotFoundError:
        probe.serve(listener)
        return
    _fd, _page, address = page.watched_page()
    listener.listen()  # ready
    take_into(address, listener.channel)
