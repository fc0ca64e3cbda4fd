"""``rrdispatch cpus``: data on stdout, for people and for programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from rrdispatch import cpus
from rrdispatch.cli.group import run


def test_for_people(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "detect", lambda: cpus.Cpus(8, None, 8, 1.5))
    assert run(["cpus"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        "logical   8",
        "physical  not known",
        "affinity  8",
        "quota     1.5",
        "max       2 workers: 2 of 8 cores by cgroup quota of 1.5",
    ]


def test_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cpus", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts.keys() == {"logical", "physical", "affinity", "quota", "max", "limit"}
    assert facts["max"] >= 1


def test_affinity_of_the_caller_counts() -> None:
    core = min(os.sched_getaffinity(0))
    program = (
        "import os, sys\n"
        "os.sched_setaffinity(0, {int(sys.argv[1])})\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'rrdispatch', 'cpus', '--json'])"
    )
    command = [sys.executable, "-c", program, str(core)]
    output = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    assert json.loads(output)["max"] == 1


def test_a_reader_that_leaves_is_not_complained_about() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nobody:
        command = [sys.executable, "-m", "rrdispatch", "cpus"]
        done = subprocess.run(command, stdout=nobody, stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (1, b"")
