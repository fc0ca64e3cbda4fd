"""``rrdispatch.aio.connect("web")``: an app of the list, with ``await``. Calls wait in threads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from rrdispatch.control import service
from rrdispatch.control.service import Service

if TYPE_CHECKING:
    from rrdispatch.cluster.operations import ReloadResult


async def connect(app: str) -> AsyncService:
    """By name or id; ConfigError if there is none, or if several are meant."""
    return AsyncService(await asyncio.to_thread(service.connect, app))


class AsyncService:
    """The same with ``await``. A call that is cancelled goes on by itself to its end."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @property
    def name(self) -> str:
        return self._service.name

    async def stats(self) -> dict[str, Any]:
        return await asyncio.to_thread(self._service.stats)

    async def reload(self, **options: Any) -> ReloadResult:
        return await asyncio.to_thread(self._service.reload, **options)

    async def scale(self, workers: int) -> None:
        await asyncio.to_thread(self._service.scale, workers)

    async def signal(self, name: str, slot: int | None = None) -> list[int]:
        return await asyncio.to_thread(self._service.signal, name, slot)

    async def stop(self, *, now: bool = False) -> None:
        await asyncio.to_thread(self._service.stop, now=now)
