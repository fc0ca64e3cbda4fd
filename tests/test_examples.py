"""Every example does what its first lines say."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness import processes
from tests.harness.servers import Server, Service, rrdispatch_command, wait_until, workers

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
# Who has no core for 50 ms is passed over: none is in what is told of turns.
PATIENT = ("--stall-timeout", "60")


def get(address: str, path: str = "/") -> str:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        assert response.status == 200
        return response.read().decode()
    finally:
        connection.close()


def test_hello() -> None:
    with Service("hello:app", "-i", "3", *PATIENT, cwd=EXAMPLES) as service:
        split = Counter(get(service.address).partition(",")[0] for _ in range(30))
    assert split == {f"hello from worker {slot}": 10 for slot in range(3)}


@pytest.mark.parametrize("target", ["fastapi_app:app", "flask_app:app"])
def test_frameworks(target: str) -> None:
    with Service(target, "-i", "2", *PATIENT, cwd=EXAMPLES) as service:
        split = Counter(json.loads(get(service.address))["worker"] for _ in range(10))
    assert split == {"0": 5, "1": 5}


def test_fastapi_start_and_end_are_run() -> None:
    with Service("fastapi_app:app", "-i", "1", cwd=EXAMPLES) as service:
        assert json.loads(get(service.address, "/slow?seconds=0.01")) == {"worker": "0"}
        service.stop()
        text = service.output.text("stdout")
    assert "worker 0 opens its database" in text
    assert "worker 0 closes its database" in text


def python_with_django() -> str:
    """Ours, or that of the servers that `make matrix` is told of."""
    for python in (sys.executable, os.environ.get("PYTHON_SERVERS", "")):
        look = [python, "-c", "import django, waitress"]
        if python and subprocess.run(look, capture_output=True, timeout=60).returncode == 0:
            return python
    pytest.skip("needs Django and waitress, here or in PYTHON_SERVERS")


def test_django() -> None:
    options = ("-i", "2", *PATIENT, "--python", python_with_django())
    with Service("django_app:application", *options, cwd=EXAMPLES) as service:
        answers = [json.loads(get(service.address)) for _ in range(10)]
    assert Counter(answer["worker"] for answer in answers) == {"0": 5, "1": 5}
    assert {answer["client"] for answer in answers} == {"127.0.0.1"}


def test_chat() -> None:
    """Each poll is a connection; each client is answered by one worker, and they are shared out."""
    pytest.importorskip("flask_socketio", reason="pip install flask-socketio")
    socketio = pytest.importorskip("socketio", reason="pip install 'python-socketio[client]'")
    requests = pytest.importorskip("requests", reason="pip install 'python-socketio[client]'")
    from tests.acceptance.test_sticky import SILENT, From

    def told(number: int) -> set[str]:
        with requests.Session() as session:
            session.mount("http://", From(f"127.0.0.{number + 1}"))
            session.headers["Connection"] = "close"
            client = socketio.Client(
                reconnection=False, http_session=session, engineio_logger=SILENT
            )
            heard: list[str] = []
            client.on("said", heard.append)
            client.connect(f"http://{service.address}", transports=["polling"], wait_timeout=60)
            found = {client.call("say", "hello", timeout=60) for _ in range(3)}
            wait_until(lambda: len(heard) == 3, 60.0, "it hears itself")
            client.eio.disconnect(abort=True)
            return found

    options = ("-i", "2", "--policy", "source-hash", "--threads", "32", "--drain-timeout", "1s")
    options += PATIENT
    with Service("chat:app", *options, cwd=EXAMPLES) as service:
        workers = [told(number) for number in range(8)]
    assert all(len(found) == 1 for found in workers)
    assert len(set.union(*workers)) == 2


def test_jobs(tmp_path: Path) -> None:
    """Each is done once; a killed worker's again; at the end the one in hand is finished."""
    for number in range(20):
        (tmp_path / f"{number:02}.job").write_text("something")
    command = rrdispatch_command(
        "run", "jobs.py", str(tmp_path), "-i", "2", "--no-listen", "--probation", "0"
    )
    with Server(command, cwd=EXAMPLES) as server:
        wait_until(lambda: not list(tmp_path.iterdir()), 60.0, "all jobs are done")
        (tmp_path / "long.new").write_text("sleep 1000")
        (tmp_path / "long.new").rename(tmp_path / "long.job")
        slot = int(server.output.wait(r"worker (\d) begins long", 60.0)[1])
        seen = len(server.output.lines)
        (tmp_path / "long.job").write_text("sleep 1")
        killed = workers(server.processes())[slot]
        os.kill(killed, signal.SIGKILL)
        server.output.wait(r"worker \d begins long.job: sleep 1$", 60.0, seen)
        assert server.stop() == 0
        done = re.findall(r"has done (\S+)", server.output.text())
    assert sorted(done) == [f"{number:02}.job" for number in range(20)] + ["long.job"]
    assert list(tmp_path.iterdir()) == []


def test_parked_jobs(tmp_path: Path) -> None:
    """In a reload that fails the old generation ends its job and begins none until it serves."""
    first, second = tmp_path / "first.job", tmp_path / "second.job"
    second.touch()
    options = ("-i", "1", "--no-listen", "--min-uptime", "0.1", "--probation", "300")
    command = rrdispatch_command("run", "jobs.py", str(tmp_path), *options)
    with second.open() as ours, ExitStack() as running:
        fcntl.flock(ours, fcntl.LOCK_EX)
        server = running.enter_context(Server(command, cwd=EXAMPLES))
        server.output.wait(r": ready after", 60.0)
        old = workers(server.processes())[0]
        first.with_suffix(".new").write_text("sleep 2")
        first.with_suffix(".new").rename(first)
        server.output.wait(r"worker 0 begins first.job", 60.0)
        server.send_signal(signal.SIGHUP)
        server.output.wait(r"worker 0 begins no more", 60.0)
        new = workers(server.processes())[0]
        assert new != old
        os.kill(new, signal.SIGSTOP)
        wait_until(lambda: processes.state(new) == "T", 60.0)
        fcntl.flock(ours, fcntl.LOCK_UN)
        server.output.wait(r"worker 0 has done first.job", 60.0)
        os.kill(new, signal.SIGKILL)
        server.output.wait(r"worker 0 has done second.job", 60.0)
        assert workers(server.processes()) == {0: old}
        said = re.findall(r"worker 0 (begins no more|goes on|begins second)", server.output.text())
    assert said[:3] == ["begins no more", "goes on", "begins second"]


def test_echo() -> None:
    with Service("echo:serve", "-i", "2", *PATIENT, cwd=EXAMPLES) as service:
        host, _, port = service.address.rpartition(":")
        seen = set()
        for _ in range(2):
            with socket.create_connection((host, int(port)), 20) as connection:
                stream = connection.makefile("rwb")
                seen.add(stream.readline())
                stream.write(b"something\n")
                stream.flush()
                assert stream.readline() == b"something\n"
                stream.close()
    assert seen == {b"worker 0\n", b"worker 1\n"}


PATIENT_CLUSTER = """
import functools, runpy, sys
import rrdispatch
rrdispatch.Cluster = functools.partial(rrdispatch.Cluster, stall_timeout=60)
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def test_embedded() -> None:
    command = [sys.executable, "-c", PATIENT_CLUSTER, str(EXAMPLES / "embedded.py")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    first, *_, last = (line for line in done.stdout.splitlines() if line.startswith("Counter"))
    assert first.count(": 10") == 2
    assert last.count(": 10") == 3


def test_the_demo_shows_an_even_split() -> None:
    command = [sys.executable, str(ROOT / "tools" / "demo.py"), "-i", "4", *PATIENT]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("   100  ####") == 4
