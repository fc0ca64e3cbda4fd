"""examples/node_style.py: Node's ten lines."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from tests.harness.ports import kept_port
from tests.harness.servers import Server, wait_until
from tests.node.script import WITHIN, who

ROOT = Path(__file__).parents[2]


def answers(address: str) -> bool:
    try:
        who(address)
    except OSError:
        return False
    return True


def test_every_core_serves_and_who_dies_is_followed() -> None:
    port = kept_port()
    address = f"127.0.0.1:{port}"
    cores = len(os.sched_getaffinity(0))
    command = [sys.executable, "node_style.py", str(port)]
    with Server(command, cwd=ROOT / "examples") as server:
        wait_until(lambda: answers(address), WITHIN)
        wait_until(lambda: len(server_workers(server)) == cores, WITHIN)
        os.kill(server_workers(server)[0], signal.SIGKILL)
        server.output.wait(r"worker \d+ ended: SIGKILL", WITHIN)
        wait_until(lambda: len(server_workers(server)) == cores, WITHIN)
        assert answers(address)
        server.send_signal(signal.SIGTERM)
        server.wait(WITHIN)
        server.assert_nothing_left(WITHIN)


def server_workers(server: Server) -> list[int]:
    from tests.harness.servers import workers

    return list(workers(server.processes()).values())
