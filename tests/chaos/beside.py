"""Runs with a mutant, several at a time, each by a process of its own.

A scenario is run alone, for its times. With a mutant only one thing matters, that the check breaks
which is meant to, and a busy machine breaks no other in its place.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from tests.chaos.kit import Result, Scenario
from tests.chaos.runner import LIMITS, RAN, Outcome

AT_ONCE = 3


def run_mutants(scenarios: Sequence[Scenario], dispatcher: str) -> Iterator[Outcome]:
    """Each scenario that has a mutant, with it; in their order."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(lambda each: _run(each, dispatcher), scenarios)


def _run(scenario: Scenario, dispatcher: str) -> Outcome:
    command = [sys.executable, "-m", "tests.chaos", "--dispatcher", dispatcher, "--as-json"]
    command += ["--only", scenario.name, "--mutant", scenario.mutant]
    limit = LIMITS[False] + 60
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            said, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            said = process.communicate()[0]
    return from_json(scenario, said)


def to_json(outcome: Outcome) -> str:
    return json.dumps({"result": asdict(outcome.result), "seconds": outcome.seconds})


def from_json(scenario: Scenario, said: str) -> Outcome:
    """The last line; one that said nothing has not run to its end."""
    try:
        told = json.loads(said.splitlines()[-1])
    except (IndexError, ValueError):
        return Outcome(scenario, Result(checks={RAN: False}), 0.0, scenario.mutant)
    return Outcome(scenario, Result(**told["result"]), told["seconds"], scenario.mutant)
