"""The access log: one format, whichever interface the app has."""

from __future__ import annotations

import io
import re

import pytest

from rrdispatch.serve import accesslog
from rrdispatch.serve.accesslog import Request

from .client import Client
from .conftest import Start

BOTH = pytest.mark.parametrize("target", ["web:app", "web:wsgi"], ids=["asgi", "wsgi"])
LINE = re.compile(r'(\S+) - "([A-Z]+) (\S+) HTTP/(\S+)" (\d+) [\d.]+ms')


@pytest.mark.parametrize(
    ("request_", "status", "seconds", "text"),
    [
        (Request("127.0.0.1", 5, "GET", "/", "1.1"), 200, 0.0123,
         '127.0.0.1:5 - "GET / HTTP/1.1" 200 12ms'),
        (Request("::1", 5, "GET", "/a?b=c", "1.0"), 404, 0.00042,
         '[::1]:5 - "GET /a?b=c HTTP/1.0" 404 0.4ms'),
        (Request("1.2.3.4", 0, "POST", "/", "1.1"), 500, 3.4,
         '1.2.3.4 - "POST / HTTP/1.1" 500 3400ms'),
        (Request(None, 0, "GET", "/", "1.1"), 200, 0.01, 'unix - "GET / HTTP/1.1" 200 10ms'),
        (Request("a\nb", 0, "G\x1bT", '/"\r\n\x7f\xe9', "1.1"), 200, 0.01,
         'a%0Ab - "G%1BT /%22%0D%0A%7F%C3%A9 HTTP/1.1" 200 10ms'),
    ],
)  # fmt: skip
def test_format(request_: Request, status: int, seconds: float, text: str) -> None:
    assert accesslog.line(request_, status, seconds) == text


def test_a_log_that_nobody_reads_hurts_nobody() -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    closed = io.StringIO()
    closed.close()
    for stream in (Broken(), closed):
        accesslog.write(Request(None, 0, "GET", "/", "1.1"), 200, 0.1, stream)


@BOTH
def test_what_a_worker_writes(start: Start, target: str) -> None:
    primary = start(target, access_log=True).ready()
    client = Client(primary.connect())
    port = client.sock.getsockname()[1]
    client.get("/?a=1%20b")
    client.get("/", {"X-Forwarded-For": "1.2.3.4"})
    assert client.get("/fail").status == 500
    client.close()
    primary.stop()
    assert primary.wait() == 0
    lines = primary.output()[0].replace("lifespan shutdown\n", "").splitlines()
    found = [LINE.fullmatch(line) for line in lines]
    assert all(found), lines
    # A line is written after its answer was sent: another thread's may come before it.
    assert sorted(match.groups() for match in found if match) == [
        ("1.2.3.4", "GET", "/", "1.1", "200"),
        (f"127.0.0.1:{port}", "GET", "/?a=1%20b", "1.1", "200"),
        (f"127.0.0.1:{port}", "GET", "/fail", "1.1", "500"),
    ]


@BOTH
def test_a_unix_peer_and_a_root_path(start: Start, target: str) -> None:
    primary = start(target, binds=["unix"], root_path="/shop").ready()
    client = Client(primary.connect())
    assert client.get("/who").json()["path"] == "/who"
    client.close()
    primary.stop()
    assert primary.wait() == 0
    assert 'unix - "GET /who HTTP/1.1" 200' in primary.output()[0]


@BOTH
def test_switched_off(start: Start, target: str) -> None:
    primary = start(target, access_log=False).ready()
    client = Client(primary.connect())
    client.get("/")
    client.close()
    primary.stop()
    assert primary.wait() == 0
    assert primary.output() == ("" if target == "web:wsgi" else "lifespan shutdown\n", "")


@BOTH
def test_it_is_written_while_the_worker_runs(start: Start, target: str) -> None:
    primary = start(target, limit_concurrency=2).ready()
    client = Client(primary.connect())
    client.get("/now")
    assert primary.process.stdout is not None
    assert b'"GET /now HTTP/1.1" 200' in primary.process.stdout.readline()
    another = Client(primary.connect())
    status = 503 if target == "web:app" else 200  # above the limit, which WSGI has not
    assert another.get("/more").status == status
    line = f'"GET /more HTTP/1.1" {status}'
    assert line in primary.process.stdout.readline().decode()
