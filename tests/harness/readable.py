"""Is there something to read? By poll(2): select(2) fails for descriptors from 1,024 on."""

from __future__ import annotations

import select
from typing import Protocol


class HasFileno(Protocol):
    def fileno(self) -> int: ...


def readable(fd: int | HasFileno, seconds: float) -> bool:
    """Within that time; the end and an error count, too."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))
