"""Real servers that know nothing of the shim: they start, answer with the right peer, and end."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rrdispatch._core.layout import Field
from tests.harness.servers import wait_until

from .kit import free_port, shim_needed
from .primary import LISTEN, READY, FakePrimary, fake_primary

pytestmark = shim_needed

REQUESTS = 20

APPS = '''
"""What each server runs: the body of an answer is the peer that the server saw."""

import os


def wsgi(environ, start_response):
    body = f"{environ['REMOTE_ADDR']}:{environ['REMOTE_PORT']}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    host, port = scope["client"]
    body = f"{host}:{port}".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
'''

HTTP_SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = "%s:%d" % self.client_address[:2]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

ASYNCIO = """
import asyncio, sys
LOOP
async def serve(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    body = "%s:%d" % writer.get_extra_info("peername")[:2]
    writer.write(f"HTTP/1.1 200 OK\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n{body}".encode())
    await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
asyncio.run(main())
"""

NODE = """
const server = require("http").createServer((request, response) => {
  response.end(`${request.socket.remoteAddress}:${request.socket.remotePort}`);
});
server.listen(Number(process.argv[2]), "127.0.0.1");
process.on("SIGTERM", () => server.close(() => process.exit(0)));
"""

PYTHON = [sys.executable]
SERVERS: dict[str, list[str]] = {
    "http.server": [*PYTHON, "http_server.py", "PORT"],
    "asyncio": [*PYTHON, "with_asyncio.py", "PORT"],
    "uvloop": [*PYTHON, "with_uvloop.py", "PORT"],
    "uvicorn": [*PYTHON, "-m", "uvicorn", "apps:asgi", "--port", "PORT", "--loop", "asyncio"],
    "uvicorn-uvloop": [*PYTHON, "-m", "uvicorn", "apps:asgi", "--port", "PORT", "--loop", "uvloop"],
    "uvicorn-workers": [*PYTHON, "-m", "uvicorn", "apps:asgi", "--port", "PORT", "--workers", "2"],
    "gunicorn": [*PYTHON, "-m", "gunicorn", "-b", "127.0.0.1:PORT", "apps:wsgi"],
    "gunicorn-gthread": [
        *PYTHON, "-m", "gunicorn", "-k", "gthread", "-w", "2", "-b", "127.0.0.1:PORT", "apps:wsgi",
    ],
    "waitress": [*PYTHON, "-m", "waitress", "--listen", "127.0.0.1:PORT", "apps:wsgi"],
    "node": ["node", "server.js", "PORT"],
}  # fmt: skip
NEEDS = {
    "uvloop": "uvloop", "uvicorn": "uvicorn", "uvicorn-uvloop": "uvloop",
    "uvicorn-workers": "uvicorn", "gunicorn": "gunicorn", "gunicorn-gthread": "gunicorn",
    "waitress": "waitress",
}  # fmt: skip


@contextmanager
def server(
    name: str, folder: Path, port: int, primary: FakePrimary
) -> Iterator[subprocess.Popen[bytes]]:
    (folder / "apps.py").write_text(APPS)
    (folder / "http_server.py").write_text(HTTP_SERVER)
    (folder / "with_asyncio.py").write_text(ASYNCIO.replace("LOOP", ""))
    (folder / "with_uvloop.py").write_text(
        ASYNCIO.replace("LOOP", "import uvloop").replace("asyncio.run", "uvloop.run")
    )
    (folder / "server.js").write_text(NODE)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [word.replace("PORT", str(port)) for word in SERVERS[name]],
            env=primary.preloaded,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            try:
                os.killpg(process.pid, 9)
            except ProcessLookupError:
                pass
            process.wait(20)


def peer_told(port: int) -> tuple[str, str]:
    """(what the server says that we are, what we are)."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        mine = "{}:{}".format(*client.getsockname())
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while part := client.recv(4096):
            answer += part
    assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")), answer
    return answer.rpartition(b"\r\n")[2].decode(), mine


@pytest.mark.parametrize("name", SERVERS)
def test_server(name: str, tmp_path: Path) -> None:
    if name == "node" and not shutil.which("node"):
        pytest.skip("no node")
    if name in NEEDS and not importlib.util.find_spec(NEEDS[name]):
        pytest.skip(f"no {NEEDS[name]}")
    port = free_port()
    with fake_primary(tmp_path) as primary, server(name, tmp_path, port, primary) as process:
        primary.wait(lambda: bool(primary.asked(READY)), 30)
        assert primary.asked(LISTEN)
        for _ in range(REQUESTS):
            told, mine = peer_told(port)
            assert told == mine
        assert primary.count(Field.RECEIVED) == REQUESTS
        (place,) = primary.places.values()
        wait_until(lambda: place.sent == REQUESTS, 20.0)  # it counts when it has sent
        process.terminate()
        assert process.wait(30) in (0, -15), (tmp_path / "log").read_text()
