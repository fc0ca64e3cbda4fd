"""The wall clock may jump by days: nothing is decided by it."""

from __future__ import annotations

import ast
import http.client
import threading
from pathlib import Path

import rrdispatch
from tests.faults.inject import Faults
from tests.faults.kit import APPS
from tests.faults.test_shortage import Asking, still
from tests.harness import processes
from tests.harness.servers import ROOT, Service

DAY = 24 * 3600
# Who may ask what time it is for people, and nobody else.
FOR_PEOPLE = {
    "cluster/cron.py": 1,  # --cron-restart: people's hours, whatever becomes of the clock
    "cluster/events.py": 1,
    "cluster/report.py": 1,  # when workers ended, for show
    "cluster/logsources.py": 1,  # stamps of lines
    "cli/run.py": 1,  # "timestamp" of its own words, with --log-type json
    "cli/logs.py": 1,  # --since 5m
    "control/app.py": 3,  # when it was started and ended
    "control/ending.py": 1,
    "control/rows.py": 1,  # uptime
    "control/saved.py": 1,  # when it was saved
    "cluster/watching.py": 1,  # --watch: files have times of the wall clock
}


def asks(path: Path) -> int:
    """How often a module reads the wall clock."""
    found = 0
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found += (node.value.id, node.attr) in (
                ("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "today"),
            )  # fmt: skip
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            found += sum(alias.name in ("time", "time_ns") for alias in node.names)
    return found


def test_nobody_asks_for_the_wall_clock_but_to_tell_it() -> None:
    package = Path(rrdispatch.__file__).parent
    found = {str(path.relative_to(package)): asks(path) for path in package.rglob("*.py")}
    assert {name: count for name, count in found.items() if count} == FOR_PEOPLE
    for path in (ROOT / "csrc").glob("*.[ch]"):
        text = path.read_text()
        assert "CLOCK_REALTIME" not in text, path
        assert "gettimeofday" not in text, path


def test_a_service_whose_clock_jumps(tmp_path: Path) -> None:
    """Forth, back, and during a reload; the primary and the workers see it."""
    faults = Faults(tmp_path)
    faults.shift_clock(0)
    with Service(
        "faulty:serve", "-i", "2", "--drain-timeout", "30", cwd=APPS, env=faults.environment
    ) as service:
        family = service.processes()
        with Asking(service.address) as asking:
            for days in (1, -1, 3650, 0):
                faults.shift_clock(days * DAY)
                asking.more()
            still(service, family)
            seen = len(service.output.lines)
            service.send_signal(1)
            service.output.wait("reload begins", 60.0, seen)
            faults.shift_clock(-DAY)
            service.output.wait("reloaded in", 60.0, seen)
            faults.shift_clock(DAY)
            victim = service.workers()[0]
            processes.kill(victim)
            service.wait_workers(lambda workers: workers.get(0, victim) != victim)
            asking.more()
        assert len(asking.errors) <= 1, asking.errors  # what the victim had in its hand


def test_idle_connections_of_wsgi_live_as_long_as_was_said(tmp_path: Path) -> None:
    faults = Faults(tmp_path)
    faults.shift_clock(0)
    options = ("-i", "1", "--timeout-keep-alive", "8")
    with Service("probe:wsgi", *options, env=faults.environment) as service:
        host, _, port = service.address.rpartition(":")
        kept = http.client.HTTPConnection(host, int(port), timeout=60)

        def asked() -> int:
            kept.request("GET", "/")
            answer = kept.getresponse()
            answer.read()
            return answer.status

        assert asked() == 200
        first = kept.sock
        faults.shift_clock(DAY)
        for _ in range(5):  # more than a look of waitress, less than the limit, each
            threading.Event().wait(0.5)
            assert asked() == 200
        assert kept.sock is first, "it was kept over the jump"
        faults.shift_clock(-DAY)
        first.settimeout(60)
        assert first.recv(1) == b"", "silent for too long, whatever the clock says"
        kept.close()
