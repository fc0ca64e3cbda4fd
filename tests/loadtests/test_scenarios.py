"""The locust scenarios against a real cluster, a few seconds each."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from loadtests.running import traffic
from tests.harness.records import Plan
from tests.harness.servers import ROOT, Service, wait_until

if importlib.util.find_spec("locust") is None:  # importing it would put gevent into this process
    pytest.skip("locust is not installed: pip install locust", allow_module_level=True)
SCENARIOS = ROOT / "loadtests"
WORKERS = 2
ENOUGH = {
    "connection_per_request": 400, "keep_alive": 400, "mixed": 24, "sticky": 200,
    "websockets_long": 40,
}  # fmt: skip


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("app") / "apps"
    shutil.copytree(SCENARIOS / "apps", directory)
    (directory / "version").write_text("v0")
    options = ["-i", str(WORKERS), "--no-access-log", "--probation", "0.2", "--max-restarts", "0"]
    # A run is over in less time than a worker may be without a core: none is passed over for that.
    options += ["--stall-timeout", "60"]
    with Service("contender:asgi", *options, cwd=directory) as running:
        yield running


def locust(
    service: Service, name: str, *options: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "locust", "-f", str(SCENARIOS / f"{name}.py"), "--headless"]
    command += ["--host", f"http://{service.address}", "--users", "4", "--spawn-rate", "100"]
    command += ["--only-summary", *options]
    # One that was killed by the test before, or still works for clients that are gone, has no turn.
    wait_until(lambda: len(answering(service)) == WORKERS, 60.0, "all workers keep up")
    # Seconds count from before the imports: on a busy machine a run would be over before it began.
    enough = {} if name in ("ramp", "trouble") else {"REQUESTS": str(ENOUGH[name])}
    done = subprocess.run(
        command, env=os.environ | enough | (env or {}), capture_output=True, text=True, timeout=100
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def answering(service: Service) -> set[int]:
    """The pids of those that have a turn."""
    return {
        record.pid for record in traffic(Plan(service.address, "closed", count=8)) if record.pid
    }


def requests(done: subprocess.CompletedProcess[str], part: str) -> tuple[int, int]:
    """Number and failures, by the first such row of the table."""
    said = done.stdout + done.stderr  # its log and table go to either, by version
    found = re.search(rf"^{part} +\S+ +(\d+) +(\d+)\(", said, re.MULTILINE)
    assert found, said
    return int(found[1]), int(found[2])


def answers(done: subprocess.CompletedProcess[str]) -> list[int]:
    return [int(number) for number in re.findall(r"^.+: (\d+) answers$", done.stdout, re.MULTILINE)]


@pytest.mark.parametrize("name", ["connection_per_request", "keep_alive"])
def test_quick_requests(service: Service, name: str) -> None:
    done = locust(service, name)
    assert done.returncode == 0, done.stdout
    whole, connects = requests(done, "whole"), requests(done, "connect")
    assert whole[0] > 20
    assert whole[1] == 0
    # A connection each, or one for each of the four users; the end cuts off what is under way.
    if name == "connection_per_request":
        assert 0 <= connects[0] - whole[0] <= 4
    else:
        assert connects[0] == 4
    assert 0 <= requests(done, "first byte")[0] - whole[0] <= 4
    assert 0 <= sum(answers(done)) - whole[0] <= 4
    if name == "connection_per_request":
        most, fewest = max(answers(done)), min(answers(done))
        assert len(answers(done)) == WORKERS
        assert most < 2 * fewest
    assert re.search(r"^over 3 s: \d", done.stdout, re.MULTILINE)


def test_an_open_loop_counts_the_waiting_behind_a_blocked_worker(service: Service) -> None:
    quick = {"MIXED_QUICK": "/block/500", "MIXED_SLOW": "/block/500"}
    done = locust(service, "mixed", env=quick)
    # Each user asks ten times a second and is answered twice: the last has waited for seconds.
    shares = re.search(r"^over 1 s: ([\d.]+) %", done.stdout, re.MULTILINE)
    assert shares
    assert float(shares[1]) > 10, done.stdout


def test_sessions_that_nothing_binds_to_a_worker(service: Service) -> None:
    # Four users in step with two workers would each meet the same one for ever.
    done = locust(service, "sticky", "--users", "3")
    assert done.returncode == 0
    again = re.search(r"the worker of the first request again: ([\d.]+) %", done.stdout)
    assert again
    assert 10 < float(again[1]) < 90
    assert locust(service, "sticky", "--users", "3", env={"STICKY": "1"}).returncode == 1


def test_websockets(service: Service) -> None:
    pytest.importorskip("websocket")
    done = locust(service, "websockets_long")
    assert done.returncode == 0, done.stdout
    opened, failed = requests(done, "open")
    assert 1 <= opened <= 4  # once each; a worker without a core has not let them all in yet
    assert failed == 0
    assert requests(done, "message")[0] > 10
    assert answers(done)


@pytest.mark.parametrize("trouble", ["reload", "scale", "kill"])
def test_trouble(service: Service, trouble: str) -> None:
    options = ["--trouble", trouble, "--primary", str(service.pid), "--every", "0.5"]
    # What a killed worker had in hand, of four clients, dies with it.
    done = locust(service, "trouble", *options, "--times", "4", "--in-hand", "4")
    assert done.returncode == 0, done.stdout
    pattern = rf"^{trouble}: (\d+) times \(([A-Z, ]+)\), (\d+) failed"
    told = re.search(pattern, done.stdout, re.MULTILINE)
    assert told
    assert int(told[1]) == 4
    if trouble != "kill":
        assert int(told[3]) == 0
    service.wait_workers(lambda found: len(found) >= WORKERS)


def test_a_failed_request_fails_the_run(service: Service) -> None:
    options = ["--trouble", "kill", "--primary", str(service.pid), "--every", "60"]
    done = locust(service, "mixed", env={"MIXED_QUICK": "/block/nonsense"})
    assert done.returncode == 1
    quiet = locust(service, "trouble", *options, "--run-time", "3s")
    assert quiet.returncode == 1, "nothing was done, so nothing was shown"


def test_a_ramp_ends_at_saturation(service: Service) -> None:
    ramp = {"RAMP_STEP": "1", "RAMP_USERS": "2", "RAMP_MOST": "12"}
    done = locust(service, "ramp", env=ramp)
    assert done.returncode == 0, done.stdout + done.stderr
    steps = re.findall(r"^ +(\d+) +(\d+) +\d+$", done.stdout, re.MULTILINE)
    users = [int(step[0]) for step in steps]
    assert users[0] == 2
    assert users == sorted(users)
    assert len(users) >= 2
    assert max(int(step[1]) for step in steps) > 0
