"""A script that is its own primary, as a test sees it."""

from __future__ import annotations

import http.client
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.harness.servers import Server, wait_until

APPS = Path(__file__).with_name("apps")
WITHIN = 100.0  # on a machine that does much else


class Script(Server):
    """``python apps/NAME ARGUMENTS``."""

    def __init__(
        self, name: str, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path = APPS
    ) -> None:
        super().__init__([sys.executable, name, *arguments], cwd=cwd, env=env)

    def __enter__(self) -> Script:
        return self

    def said(self) -> list[dict[str, Any]]:
        """The lines of JSON that it printed so far."""
        lines = self.output.text("stdout").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.said() if line["event"] == event]

    def ended(self) -> int:
        """Its exit code, when it has ended by itself and left nothing."""
        code = self.wait(WITHIN)
        self.assert_nothing_left()
        return code


class Service(Script):
    """apps/serve.py: so many workers, each on all of the ports; ready when each listens on each."""

    def __init__(
        self, tmp_path: Path, workers: int, *ports: int, env: Mapping[str, str] | None = None
    ) -> None:
        self.fifo = tmp_path / "orders"
        os.mkfifo(self.fifo)
        numbers = [str(number) for number in (workers, *ports)]
        super().__init__("serve.py", str(self.fifo), *numbers, env=env)
        self.address = f"127.0.0.1:{ports[0]}"
        try:
            self.wait_for("listening", workers * len(ports))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Service:
        return self

    def order(self, words: str) -> None:
        with self.fifo.open("w") as file:
            file.write(words + "\n")

    def wait_for(self, event: str, count: int) -> list[dict[str, Any]]:
        """Until so many were said."""
        wait_until(lambda: len(self.of(event)) >= count, WITHIN, f"{count} times {event}")
        return self.of(event)

    def ask(self, count: int, port: int | None = None) -> list[str]:
        """Who answered, a connection per request."""
        address = self.address if port is None else f"127.0.0.1:{port}"
        return [who(address) for _ in range(count)]

    def end(self) -> int:
        self.order("end")
        return self.ended()


def who(address: str) -> str:
    """The id of the worker that answers."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=WITHIN)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        assert response.status == 200
        return response.read().decode().split()[0]
    finally:
        connection.close()
