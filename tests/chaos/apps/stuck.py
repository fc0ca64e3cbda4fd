"""The probe app, of which one worker gets stuck for ever inside of ``recvmsg``.

A page that userfaultfd watches stands for a page that swap, FUSE or a network file system does not
bring: the kernel takes the message, copies it there, and waits with the channel's lock held. The
worker that finds the file ``$STUCK_FLAG``, and can remove it, is the one.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import platform
import struct
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2] / "harness" / "apps"))

import probe  # type: ignore[import-not-found,unused-ignore]

_USERFAULTFD = {"x86_64": 323, "aarch64": 282}
_API, _REGISTER = 0xC018AA3F, 0xC020AA00  # _IOWR(0xAA, 0x3F, 24 bytes), _IOWR(0xAA, 0, 32 bytes)
_API_VERSION, _MISSING = 0xAA, 1
_libc = ctypes.CDLL(None, use_errno=True)


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


def watched_page() -> tuple[int, mmap.mmap, int]:
    """userfaultfd, a page of which nobody will ever answer a fault, its address. Or OSError."""
    number = _USERFAULTFD.get(platform.machine())
    if number is None:
        raise OSError(f"userfaultfd's number on {platform.machine()} is not known here")
    # Not UFFD_USER_MODE_ONLY: the fault is to happen inside of the kernel.
    fd = _libc.syscall(number, os.O_CLOEXEC)
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "userfaultfd")
    fcntl.ioctl(fd, _API, struct.pack("QQQ", _API_VERSION, 0, 0))
    page = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    fcntl.ioctl(fd, _REGISTER, struct.pack("QQQQ", address, mmap.PAGESIZE, _MISSING, 0))
    return fd, page, address


def take_into(address: int, channel: int) -> None:
    """``recvmsg`` as a receiver does it, into that page."""
    control = ctypes.create_string_buffer(128)
    vector = _Iovec(address, 64)
    header = _Header(None, 0, ctypes.pointer(vector), 1, ctypes.addressof(control), 128, 0)
    _libc.recvmsg(channel, ctypes.byref(header), 0x40000000)  # MSG_CMSG_CLOEXEC


def serve(listener: Any) -> None:
    try:
        os.unlink(os.environ["STUCK_FLAG"])
    except FileNotFoundError:
        probe.serve(listener)
        return
    held = watched_page()
    listener.listen()  # ready
    os.write(1, f"stuck is pid {os.getpid()}\n".encode())
    take_into(held[2], listener.channel)
