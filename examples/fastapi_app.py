"""A FastAPI app: async and blocking routes, a start and an end, a WebSocket.

rrdispatch run fastapi_app:app --cwd examples
curl http://127.0.0.1:8000/slow
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, WebSocket

SLOT = os.environ.get("RRDISPATCH_SLOT", "?")


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Connections come when this has yielded; it goes on when the last of them is finished."""
    print(f"worker {SLOT} opens its database")
    yield
    print(f"worker {SLOT} closes its database")


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def hello() -> dict[str, str]:
    return {"worker": SLOT, "pid": str(os.getpid())}


@app.get("/slow")
def slow(seconds: float = 0.2) -> dict[str, str]:
    """A blocking route: FastAPI runs it in one of its 40 threads."""
    time.sleep(min(seconds, 10.0))
    return {"worker": SLOT}


@app.websocket("/echo")
async def echo(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(f"worker {SLOT}: {text}")
