"""What stats say while workers come and go, and what is said about the dispatcher."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from rrdispatch import _core
from rrdispatch.cluster import report
from rrdispatch.control import primary
from rrdispatch.settings import from_values
from tests.cluster.service import APPS, LIMIT, app, running
from tests.harness import processes

SLOW_TO_END = """
import os, signal, time
def end(*_):
    while not os.path.exists("go"):
        time.sleep(0.02)
    raise SystemExit
def serve(listener):
    signal.signal(signal.SIGTERM, end)
    while True:
        listener.accept()[0].close()
"""


def test_who_drains_is_shown_and_what_is_not_written(tmp_path: Path) -> None:
    app(tmp_path, SLOW_TO_END)

    async def main() -> None:
        async with running("app:serve", tmp_path, park=False, probation=0.0) as service:
            assert service.supervisor.stats()["serving"] == 2
            full, logs = "No space left on device", service.supervisor.world.logs
            for error, told in ((full, {"/x.log": full}), ("", {})):
                logs.on_output("/x.log", error, 7)
                assert service.supervisor.stats()["unwritten"] == told
            logs.on_output("/x.log", full, 7)
            processes.kill(logs.pid)
            await service.until("logger-replaced")
            assert service.supervisor.stats()["unwritten"] == {}, "the next one tells it again"
            await service.supervisor.reload()
            await service.until("draining")
            found = service.supervisor.stats()
            assert (found["serving"], found["wanted"]) == (2, 2)
            states = sorted(row["state"] for row in found["workers"])
            assert states.count("ready") == 2
            assert len(states) > 2
            (tmp_path / "go").touch()

    asyncio.run(main())


def test_a_fallback_to_the_python_dispatcher_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core, "dispatcher_program", lambda: None)
    monkeypatch.setattr("sys.platform", "linux")
    told = report.fallback(from_values({"target": "app:app"}))
    assert told is not None
    assert "not built" in told[0]
    assert report.fallback(from_values({"target": "app:app", "dispatcher": "python"})) is None


def test_an_embedded_cluster_is_told_so_by_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core, "dispatcher_program", lambda: None)
    ours, its = socket.socketpair()
    ours.settimeout(LIMIT)
    its.setblocking(False)
    settings = from_values({"target": "plain:serve", "cwd": str(APPS), "instances": "1",
                            "bind": ["127.0.0.1:0"]}).values()  # fmt: skip
    request = {"jsonrpc": "2.0", "id": 1, "method": "start", "params": {"settings": settings}}
    ours.sendall(json.dumps(request).encode() + b"\n")
    seen: list[dict[str, Any]] = []

    def read() -> None:
        for line in ours.makefile():
            seen.append(json.loads(line))
            if seen[-1].get("id") == 1:
                break
        ours.shutdown(socket.SHUT_RDWR)

    reader = threading.Thread(target=read)
    reader.start()
    monkeypatch.setattr("rrdispatch.cluster.signals.Signals.__init__", lambda *_: None)
    monkeypatch.setattr("rrdispatch.cluster.signals.Signals.close", lambda *_: None)
    assert asyncio.run(primary.Primary().serve(its)) == 0
    reader.join(LIMIT)
    ours.close()
    warned = [told["params"] for told in seen if told.get("method") == "event"]
    (told,) = [event for event in warned if event["event"] == "warning"]
    assert "not built" in told["message"]
    assert "compiler" in told["hint"]
    (answer,) = [told["result"] for told in seen if told.get("id") == 1]
    assert answer["dispatcher"] == "python"
