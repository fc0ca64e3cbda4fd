"""In the place of a logger: workers write where the script writes."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Any

from rrdispatch.cluster.handle import WorkerHandle


class NoLogs:
    """What ``cluster.workers`` asks of its logs."""

    on_output: Any = None
    on_trouble: Any = None

    def add(self, handle: WorkerHandle) -> None:
        """Nothing is read from it."""

    def forget(self, handle: WorkerHandle) -> None:
        """Nothing was."""

    def say(self, _slot: int, text: str) -> None:
        with suppress(OSError):
            os.write(2, text.encode(errors="replace") + b"\n")

    def tail(self, _worker: int) -> asyncio.Future[str]:
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        done.set_result("")
        return done
