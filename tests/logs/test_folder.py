"""What lies in the state folder: no app's file is another's, and no file grows without end."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rrdispatch.cluster import output
from rrdispatch.control import protocol, statedir
from rrdispatch.control.statedir import OUTPUT
from tests.cli.plane import Plane
from tests.harness import processes
from tests.harness.servers import ROOT, wait_until

PRINTS = "import os, time; print('I am', os.environ['WHO'], flush=True); time.sleep(1000)"
JOB = ("--no-listen", "--no-heir", "--min-uptime", "0", "--", sys.executable, "-c", PRINTS)


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    made = Plane(tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_a_slots_file_is_no_other_apps(plane: Plane) -> None:
    plane.ok("start", "--name", "web", "-i", "2", "--no-merge-logs", *JOB, env={"WHO": "web"})
    plane.ok("start", "--name", "web-1", "-i", "1", *JOB, env={"WHO": "the other"})
    wait_until(lambda: len(plane.ok("logs", "--no-follow").splitlines()) == 3, 60.0)
    assert plane.ok("logs", "web-1", "--no-follow", "--raw") == "I am the other\n"
    assert plane.ok("logs", "web", "--no-follow", "--raw") == "I am web\n" * 2
    plane.ok("flush", "web")
    assert plane.ok("logs", "web-1", "--no-follow", "--raw") == "I am the other\n"


LOUD = """
import os, pathlib, time
while not pathlib.Path("go").exists():
    time.sleep(0.01)
block = 0
while block < 500 or (block < 5000 and not pathlib.Path("enough").exists()):
    os.write(1, b"".join(b"%8d " % (block * 1000 + n) + b"x" * 90 + b"\\n" for n in range(1000)))
    block += 1
pathlib.Path("blocks").write_text(str(block))
pathlib.Path("blocks").rename("done")
time.sleep(1000)
"""


def test_control_answers_while_a_worker_prints_50_mb_and_no_line_is_lost(plane: Plane) -> None:
    options = ("--log-size", "0", "--log-type", "raw", "-l", "loud.log")
    job = ("--no-listen", "--min-uptime", "0", "--", sys.executable, "-c", LOUD)
    plane.ok("start", "--name", "loud", "-i", "1", *options, *job)
    (plane.here / "go").touch()
    answers = 0
    while not (plane.here / "done").exists():
        with statedir.connect("loud", plane.home, 30.0) as control:
            control.sendall(protocol.request("stats", {}, 1))
            assert control.recv(16)
        answers += 1
        if answers > 10:  # whoever has no core meanwhile asks later, and it prints on
            (plane.here / "enough").touch()
    assert answers > 10
    lines = 1000 * int((plane.here / "done").read_text())
    log = plane.here / "loud.log"
    wait_until(lambda: log.stat().st_size == lines * 100, 60.0, "all of it is in the file")
    assert [int(line[:8]) for line in log.read_bytes().splitlines()] == list(range(lines))


SAYS = """
import sys
from rrdispatch.cluster import output
output.unblock()
output.keep_small(sys.argv[1])
for number in range(int(sys.argv[2])):
    print(number, "x" * 200, file=sys.stderr)
"""


def says(path: Path, told: Path, lines: int) -> None:
    """A primary whose stderr is ``path``, and which was told that it is ``told``."""
    with path.open("ab") as file:
        command = [sys.executable, "-c", SAYS, str(told), str(lines)]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run(command, stderr=file, env=env, check=True, timeout=120)


def numbers(path: Path) -> list[int]:
    return [int(line.split()[0]) for line in path.read_text().splitlines()]


def test_the_primarys_own_words_begin_anew_and_the_last_ones_stay(tmp_path: Path) -> None:
    log, old = tmp_path / OUTPUT, tmp_path / f"{OUTPUT}.1"
    lines = 3 * output.MOST // 200
    says(log, log, lines)
    assert numbers(old) + numbers(log) == list(range(numbers(old)[0], lines))
    assert output.MOST // 2 < old.stat().st_size <= output.MOST + 300
    assert log.stat().st_size <= output.MOST + 300
    assert stat.S_IMODE(old.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == [OUTPUT, f"{OUTPUT}.1"]


@pytest.mark.parametrize("what", ["another file", "a symlink"])
def test_a_file_that_is_not_ours_is_left_as_it_is(tmp_path: Path, what: str) -> None:
    """``run --heir 2>FILE``: whoever said so looks after it."""
    log, theirs = tmp_path / OUTPUT, tmp_path / "theirs"
    if what == "a symlink":
        log.symlink_to(theirs)
    lines = 2 * output.MOST // 200
    says(theirs, log, lines)
    assert numbers(theirs) == list(range(lines))


def test_of_a_started_app_and_of_its_heir(plane: Plane) -> None:
    plane.start()
    log = plane.home / "web" / OUTPUT
    for _ in range(2):
        with log.open("a") as file:
            file.write(("x" * 100 + "\n") * (output.MOST // 100))
        primary = plane.row()["primary_pid"]
        plane.ok("scale", "web", "1")
        plane.ok("scale", "web", "2")
        wait_until(lambda: log.stat().st_size < output.MOST // 2, 60.0)
        assert (plane.home / "web" / f"{OUTPUT}.1").stat().st_size >= output.MOST
        processes.kill(primary)
        wait_until(lambda before=primary: plane.row()["primary_pid"] not in (None, before), 60.0)
    plane.ok("delete", "web")
    assert not (plane.home / "web").exists()
