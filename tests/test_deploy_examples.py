"""What stands in examples/deploy is what rrdispatch takes, prints and does."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from rrdispatch.control import units
from rrdispatch.control.definitions import Definition
from tests.harness.servers import ROOT, Service

DEPLOY = ROOT / "examples" / "deploy"
UNIT = DEPLOY / "rrdispatch-hello.service"


def words() -> list[str]:
    """Of the Dockerfile's command."""
    found = re.search(r"^CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert found
    command: list[str] = json.loads(found[1])
    assert command[:2] == ["rrdispatch", "run"]
    return command[2:]


def said(option: str) -> str:
    return words()[words().index(option) + 1]


def status(address: str, path: str) -> int:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_images_command_is_ready_and_at_the_end_is_not() -> None:
    """TERM: /ready says so at once, while all is still served."""
    target, *options = [re.sub(r"0\.0\.0\.0:\d+", "127.0.0.1:0", word) for word in words()]
    at = options.index("--bind")
    del options[at : at + 2]  # the harness has its own
    options[options.index("--shutdown-delay") + 1] = "12s"  # a busy machine asks late
    with Service(target, "-i", "1", *options, cwd=ROOT / "examples") as service:
        board = service.output.wait(r"/metrics on (127\.0\.0\.1:\d+)", 60.0)[1]
        service.output.wait("ready after", 60.0)
        assert (status(board, "/ready"), status(board, "/live")) == (200, 200)
        service.send_signal(signal.SIGTERM)
        service.output.wait("(?i)stopping", 60.0)
        assert status(board, "/ready") == 503
        assert status(service.address, "/") == 200
        assert service.wait(60.0) == 0


def test_the_image_is_made_of_what_is_here_and_needs_no_root() -> None:
    """It cannot be built in a test."""
    lines = [line.split() for line in (DEPLOY / "Dockerfile").read_text().splitlines()]
    last = max(number for number, line in enumerate(lines) if line[:1] == ["FROM"])
    for line in lines:
        if line[:1] == ["COPY"] and not line[1].startswith("--from"):
            assert (ROOT / line[1]).exists(), line
    assert [line[1] for line in lines[last:] if line[:1] == ["USER"]][-1].isdigit()  # runAsNonRoot
    extras = re.search(r"/src\[(.*?)\]", (DEPLOY / "Dockerfile").read_text())
    assert extras
    assert "metrics" in extras[1].split(","), "--status-bind is to have its /metrics"


def test_the_manifest_fits_the_image() -> None:
    yaml = pytest.importorskip("yaml")
    deployment, service = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    pod: dict[str, Any] = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert said("--bind") == f"0.0.0.0:{ports['http']}"
    assert said("--status-bind") == f"0.0.0.0:{ports['status']}"
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == "status"
    limits = [float(said(option).rstrip("s")) for option in ("--shutdown-delay", "--drain-timeout")]
    assert pod["terminationGracePeriodSeconds"] > sum(limits)
    assert deployment["spec"]["template"]["metadata"]["labels"] == service["spec"]["selector"]
    assert service["spec"]["ports"][0]["targetPort"] in ports


def test_the_unit_is_what_startup_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of root's app hello, installed in /srv/venv. UPDATE_EXAMPLES=1 writes it anew."""
    monkeypatch.setattr(units, "command", lambda: ["/srv/venv/bin/rrdispatch"])
    monkeypatch.setenv("RRDISPATCH_HOME", "/var/lib/rrdispatch")
    given = {"target": "hello:app", "instances": "2", "heir": True, "name": "hello"}
    app = Definition("hello", settings=given)
    text = units.text(app, units.Manager(user=False, folder=Path("/etc/systemd/system")))
    if os.environ.get("UPDATE_EXAMPLES"):
        UNIT.write_text(text)
    assert UNIT.read_text() == text
