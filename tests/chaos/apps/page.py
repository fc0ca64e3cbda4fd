"""A page of memory that the kernel can never fill: a copy into it waits for ever.

It stands for a page that swap, FUSE or a network file system does not bring. Nobody answers the
faults of this userfaultfd.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import platform
import struct

_USERFAULTFD = {"x86_64": 323, "aarch64": 282}
_API, _REGISTER = 0xC018AA3F, 0xC020AA00  # _IOWR(0xAA, 0x3F, 24 bytes), _IOWR(0xAA, 0, 32 bytes)
_API_VERSION, _MISSING = 0xAA, 1


def watched_page() -> tuple[int, mmap.mmap, int]:
    """userfaultfd, a page of which nobody will ever answer a fault, its address. Or OSError."""
    number = _USERFAULTFD.get(platform.machine())
    if number is None:
        raise OSError(f"userfaultfd's number on {platform.machine()} is not known here")
    # Not UFFD_USER_MODE_ONLY: the fault is to happen inside of the kernel.
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(number, os.O_CLOEXEC)
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "userfaultfd")
    fcntl.ioctl(fd, _API, struct.pack("QQQ", _API_VERSION, 0, 0))
    page = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    fcntl.ioctl(fd, _REGISTER, struct.pack("QQQQ", address, mmap.PAGESIZE, _MISSING, 0))
    return fd, page, address
