"""Apps that end well and take their time to be gone, with threads that heed no signal mask."""

import asyncio
import os
import sys
import threading
import time
import types

GATE = os.environ["GATE"]


def wait_for_gate(gate=GATE, exists=os.path.exists, sleep=time.sleep, write=os.write):
    write(1, b"leaving\n")
    while not exists(gate):
        sleep(0.005)


class Lingers:
    """What modules hold goes last: Python has taken its signal handlers away by then."""

    def __del__(self, wait=wait_for_gate):
        wait()


threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
sys.modules["late"] = types.ModuleType("late")  # no thread's frame holds it, as it may this one
sys.modules["late"].it = Lingers()


async def asgi(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"asgi"})


def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [b"wsgi"]


def plain(listener):
    for connection, _ in listener:
        connection.close()


async def coroutine(listener):
    loop = asyncio.get_running_loop()
    while True:
        try:
            connection, _ = await loop.run_in_executor(None, listener.accept)
        except OSError:
            return
        connection.close()
