"""The shim in one program that knows nothing of it."""

from __future__ import annotations

import http.client
import subprocess
import sys
from pathlib import Path

from rrdispatch._core.layout import Field

from .kit import free_port, shim_needed
from .primary import LISTEN, READY, fake_primary

pytestmark = shim_needed


def test_http_server_of_the_standard_library(tmp_path: Path) -> None:
    with fake_primary(tmp_path) as primary:
        port = free_port()
        command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
        server = subprocess.Popen(
            command,
            env=primary.preloaded,
            start_new_session=True,
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            primary.wait(lambda: bool(primary.asked(READY)))
            for _ in range(20):
                client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                client.request("GET", "/")
                assert client.getresponse().read()
                client.close()
        finally:
            server.terminate()
        assert server.wait(20) == -15
        assert [request.pid for request in primary.asked(LISTEN)] == [server.pid]
        assert len(primary.asked(READY)) == 1
        assert primary.count(Field.RECEIVED) == 20
