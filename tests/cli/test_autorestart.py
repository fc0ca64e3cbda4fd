"""--no-autorestart and --stop-exit-codes of real workers: what is said, and the exit code."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.cli.plane import Plane
from tests.harness import processes
from tests.harness.servers import Server, rrdispatch_command, wait_until

JOB = """
import os, sys, time
print("job of slot", os.environ["RRDISPATCH_SLOT"], flush=True)
sys.exit(int(sys.argv[1]))
"""


def job(folder: Path, code: int, *options: str) -> Server:
    (folder / "job.py").write_text(JOB)
    words = ["run", "-i", "2", "--no-listen", *options, "job.py", str(code)]
    return Server(rrdispatch_command(*words), cwd=folder)


@pytest.mark.parametrize(
    ("code", "options", "exit_code", "said"),
    [
        (0, ("--no-autorestart",), 0, "every worker has ended, and none is replaced"),
        (3, ("--stop-exit-codes", "0,3"), 0, "every worker has ended, and none is replaced"),
        (3, ("--no-autorestart", "--min-uptime", "0"), 1, "replaced; worker [01]: exit code 3"),
    ],
)  # fmt: skip
def test_run_ends_when_all_have_ended(
    tmp_path: Path, code: int, options: tuple[str, ...], exit_code: int, said: str
) -> None:
    with job(tmp_path, code, *options) as service:
        assert service.wait(60) == exit_code, service.output.text()
        service.assert_nothing_left()
        service.output.wait(said, 0)
        lines = [line for _, line in service.output.lines if "job of slot" in line]
        assert sorted(line[-1] for line in lines) == ["0", "1"], "each once"


def test_a_job_runs_again_at_its_hour(tmp_path: Path) -> None:
    """The primary waits for it, with nobody to supervise."""
    options = ("--no-autorestart", "--cron-restart", "*/3 * * * * *", "--probation", "0")
    with job(tmp_path, 0, *options) as service:

        def ran() -> list[int]:
            return [service.output.text().count(f"job of slot {slot}") for slot in range(2)]

        wait_until(lambda: min(ran()) >= 3, 60.0)
        service.output.wait("reloaded in", 60.0)


def test_one_that_is_killed_is_not_replaced_and_shown_as_stopped(plane: Plane) -> None:
    row = plane.start("shop:app", "--no-autorestart")
    victim, other = (worker["pid"] for worker in row["workers"])
    processes.kill(victim)
    wait_until(lambda: len(plane.row()["workers"]) == 1, 60, "the dead one is forgotten")
    (found,) = json.loads(plane.ok("show", "web", "--json"))
    assert found["status"] == "online"
    slots = {slot["slot"]: slot for slot in found["slots"]}
    assert (slots[0]["state"], slots[0]["last_exit"]) == ("stopped", "killed by SIGKILL")
    assert [worker["pid"] for worker in found["workers"]] == [other]
    assert found["restarts"] == 0
    plane.ok("scale", "web", "3")
    assert plane.row()["serving"] == 2, "it waits for no one that ended"
    plane.ok("reload", "web")
    assert plane.row()["serving"] == 3, "a reload starts it again"


def test_an_app_whose_workers_have_all_ended_well_is_stopped_and_stays_so(plane: Plane) -> None:
    row = plane.start("shop:app", "--stop-exit-codes", "0")
    for worker in row["workers"]:
        processes.kill(worker["pid"], signal.SIGTERM)  # our runner's workers drain and exit 0
    until_stopped(plane, "web")
    assert plane.ok("resurrect") == "nothing to start\n"
    plane.ok("start", "web")
    assert plane.row()["serving"] == 2


def until_stopped(plane: Plane, name: str) -> None:
    """While it ends it answers no more, and still holds its lock; its logger writes on a while."""
    wait_until(lambda: plane.row(name)["status"] == "stopped", 60)
    assert processes.wait_gone(plane.living(), 60.0) == []


def test_a_job_is_started_done_and_stopped(plane: Plane) -> None:
    (plane.here / "job.py").write_text(JOB)
    told = plane.type("start", "--no-listen", "--no-autorestart", "--name", "job", "job.py", "0")
    assert told.code == 0, told
    until_stopped(plane, "job")
    assert "job of slot 0" in plane.ok("logs", "job", "--no-follow")
