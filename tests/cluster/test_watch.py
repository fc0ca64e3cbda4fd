"""--watch: a changed file is a reload."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

import pytest

from rrdispatch.errors import MissingExtraError
from tests.cluster.service import app, running, version


def test_a_changed_file_is_a_reload_and_a_broken_one_is_told(tmp_path: Path) -> None:
    app(tmp_path)

    async def main() -> None:
        async with running("app:serve", tmp_path, instances="1", watch=True) as service:
            await touched_until(service.until("reloaded"), tmp_path / "app.py", version(2))
            assert await service.versions(2) == {"2"}
            await touched_until(service.until("reload-failed"), tmp_path / "app.py", "1 / 0\n")
            assert await service.versions(2) == {"2"}

    asyncio.run(main())


async def touched_until(event: object, path: Path, text: str) -> None:
    """Nobody says when a watcher has begun to watch: write until it has seen it."""
    task = asyncio.ensure_future(event)  # type: ignore[call-overload]
    while not task.done():
        path.write_text(text)  # noqa: ASYNC240
        await asyncio.wait([task], timeout=2.0)
    await task


def test_without_watchfiles_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    async def main() -> None:
        with pytest.raises(MissingExtraError, match="watchfiles") as missing:
            async with running("app:serve", tmp_path, watch=True) as service:
                await service.task
        assert "rrdispatch[watch]" in (missing.value.hint or "")

    asyncio.run(main())
