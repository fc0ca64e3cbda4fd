"""Flask-SocketIO: a chat. Its sessions live in a worker's memory, so each client keeps its worker.

rrdispatch run chat:app --cwd examples --policy source-hash --threads 32

``source-hash``: every poll of a client is a connection of its own, and all reach the worker that
knows the session. A poll waits in a thread: as many threads as there are clients per worker. What
one worker emits the others' clients do not hear unless there is a message queue: give ``SocketIO``
a ``message_queue="redis://..."`` for that. Behind a proxy let the proxy stick: docs/policies.md.
"""

from __future__ import annotations

import os

from flask import Flask, request
from flask_socketio import SocketIO

app = Flask(__name__)
chat = SocketIO(app, async_mode="threading", ping_interval=5)
SLOT = os.environ.get("RRDISPATCH_SLOT", "?")


@app.get("/")
def who() -> dict[str, str]:
    return {"worker": SLOT}


@chat.event
def say(text: str) -> str:
    """Told to everybody who is here; the answer is who told it."""
    chat.emit("said", f"{request.sid}: {text}")  # type: ignore[attr-defined]  # added by the extension
    return SLOT
