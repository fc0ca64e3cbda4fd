"""The dashboard over a real cluster: what it shows is what happens, also when nobody answers."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rrdispatch.monit import commands
from rrdispatch.monit.live import Live
from tests.cli.plane import Plane
from tests.harness.servers import wait_until
from tests.monit.fake import View, view

pytestmark = pytest.mark.timeout(400)


def played(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, play: Callable[[View], Awaitable[None]]
) -> None:
    """On this home, in this process."""
    for key, value in plane.environment().items():
        monkeypatch.setenv(key, value)

    async def all_of_it() -> None:
        async with view(Live((), 0.2), (100, 30)) as seen:
            await play(seen)

    try:
        asyncio.run(all_of_it())
    finally:
        wait_until(commands.reap, 60.0, "the commands under way have ended")


async def do(seen: View, *keys: str, ends: str) -> None:
    """Presses keys, waits for the command's last word."""
    await seen.press(*keys)
    await seen.until_seen(ends)


async def get(row: dict[str, Any], times: int) -> None:
    host, port = row["listeners"][0].rsplit(":", 1)
    for _ in range(times):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert await reader.read()
        writer.close()


def test_a_day(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traffic, a worker more, new code, a stop, a start."""
    (plane.here / "shop.py").write_text(
        (plane.here / "shop.py").read_text() + "\nprint('hello from here', flush=True)\n"
    )
    row = plane.start("shop:app", "--stall-timeout", "60")  # nobody is passed over

    async def play(seen: View) -> None:
        await seen.until_seen("2/2")
        await seen.until_seen("hello from here")
        await get(row, 20)
        await seen.until(lambda: seen.text().count(" 50%  ━") == 2, "an even split")
        await do(seen, "plus", "y", ends="web: 3 workers")
        await seen.until_seen("3/3")
        await do(seen, "r", "y", ends="generation 2")
        await seen.until_seen("generation 2   ")

        def alone() -> bool:
            return len(seen.dashboard._seen[0].row["workers"]) == 3

        await seen.until(alone, "the old ones have ended: no row moves any more")
        await do(seen, "tab", "down", "R", "y", ends="web:1: restarted, pid ")
        await do(seen, "escape", "s", "y", ends="web: stopped")
        await seen.until_seen("○ stopped")
        # "start", or "restart" if its primary was still ending at the last look.
        await do(seen, "R", "y", ends="web: started")
        await seen.until_seen("● online")
        await seen.until_seen("3/3")

    played(plane, monkeypatch, play)


def test_a_primary_that_is_frozen_and_one_that_is_gone(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other app, and the keys, are as live as before."""
    frozen = plane.start("shop:app", "--no-heir", name="frozen")
    plane.start("shop:app", "--no-heir", name="web")

    async def play(seen: View) -> None:
        await seen.until(lambda: seen.text().count("2/2") == 2, "both serve")
        os.kill(frozen["primary_pid"], signal.SIGSTOP)
        await seen.until_seen("? not answering")
        before = seen.dashboard._seen[1].row
        assert "this help" in await seen.press("h")
        await seen.press("escape")
        await seen.until(lambda: seen.dashboard._seen[1].row is not before, "web goes on")
        assert "● online" in seen.text()
        os.kill(frozen["primary_pid"], signal.SIGCONT)
        await seen.until(lambda: seen.text().count("● online") == 2, "it answers again")
        os.kill(frozen["primary_pid"], signal.SIGKILL)
        await seen.until_seen("x killed")
        assert "$ rrdispatch start frozen" in await seen.press("home", "R")
        await do(seen, "y", ends="frozen: started")
        await seen.until(lambda: seen.text().count("● online") == 2, "it is started again")

    played(plane, monkeypatch, play)


def test_apps_that_come_and_go(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(seen: View) -> None:
        assert "no apps" in await seen.look()
        await asyncio.to_thread(plane.start, "shop:app", "--log", "/dev/null", name="late")
        await seen.until_seen("late")
        await seen.until_seen("2/2")
        await asyncio.to_thread(plane.ok, "delete", "late")
        await seen.until_seen("no apps")

    played(plane, monkeypatch, play)


def test_an_heir_is_found(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    row = plane.start("shop:app")

    async def play(seen: View) -> None:
        await seen.until_seen("2/2")
        os.kill(row["primary_pid"], signal.SIGKILL)

        def another() -> bool:
            found = seen.dashboard._seen[0].row["primary_pid"]
            return found not in (None, row["primary_pid"])

        await seen.until(another, "the heir answers")
        await seen.until_seen("● online")

    played(plane, monkeypatch, play)
