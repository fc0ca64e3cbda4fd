"""Takes every descriptor that its process may have, and gives them back."""

from __future__ import annotations

import os
import resource
from typing import Any

HELD: list[int] = []

resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))


def app(environ: Any, start_response: Any) -> list[bytes]:
    body = b"ok"
    if environ["PATH_INFO"] == "/eat":
        try:
            while True:
                HELD.append(os.dup(0))
        except OSError:
            body = b"full"
    elif environ["PATH_INFO"] == "/give":
        while HELD:
            os.close(HELD.pop())
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
