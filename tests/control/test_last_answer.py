"""A service that is over at once: whoever waits for its start has the answer before its end."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rrdispatch.control import heirs, statedir
from rrdispatch.control.app import App


def test_an_answer_that_takes_its_time_is_given(tmp_path: Path) -> None:
    """Of a job, for example, on a busy machine: its numbers are asked for while it ends."""
    said: list[str] = []

    async def serve() -> int:
        begun = asyncio.Event()

        async def run() -> int:
            await begun.wait()
            said.append("over")
            return 0

        async def answer() -> None:
            begun.set()
            await asyncio.sleep(1.3)
            said.append("answer")

        operations, world = SimpleNamespace(ran_out=False), SimpleNamespace(now=time.monotonic)
        supervisor: Any = SimpleNamespace(run=run, operations=operations, world=world, view=None)
        return await heirs.serve(supervisor, App(statedir.claim("web", tmp_path)), answer)

    assert asyncio.run(serve()) == 0
    assert said == ["over", "answer"]
