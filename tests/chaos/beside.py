"""Scenarios several at a time, each in a process of its own, where times are not what is judged.

With a mutant only one thing matters: that the check breaks which is meant to, and a busy machine
breaks no other in its place. Of the scenarios themselves those may run together that count and
compare, and measure nothing in milliseconds; the others run alone.
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

TOGETHER = ("kill-", "reload-")
ALONE = ("kill-dispatcher",)
# What a *user* has in flight counts there: anybody else's descriptors would, too.
SHARED_LIMIT = "limit-inflight"
SCENARIOS_AT_ONCE, MUTANTS_AT_ONCE = 2, 4


def may_run_together(scenario: Scenario) -> bool:
    return scenario.name.startswith(TOGETHER) and scenario.name not in ALONE


def run_together(scenarios: Sequence[Scenario], dispatcher: str) -> Iterator[Outcome]:
    """In their order."""
    with ThreadPoolExecutor(SCENARIOS_AT_ONCE) as pool:
        yield from pool.map(lambda each: _run(each, "", dispatcher), scenarios)


def run_mutants(scenarios: Sequence[Scenario], dispatcher: str) -> Iterator[Outcome]:
    """Each with its mutant."""
    alone = [each for each in scenarios if each.name.startswith(SHARED_LIMIT)]
    others = [each for each in scenarios if each not in alone]
    with ThreadPoolExecutor(MUTANTS_AT_ONCE) as pool:
        yield from pool.map(lambda each: _run(each, each.mutant, dispatcher), others)
    for each in alone:
        yield _run(each, each.mutant, dispatcher)


def _run(scenario: Scenario, mutant: str, dispatcher: str) -> Outcome:
    command = [sys.executable, "-m", "tests.chaos", "--dispatcher", dispatcher, "--as-json"]
    command += ["--only", scenario.name, *(["--mutant", mutant] if mutant else [])]
    limit = LIMITS[False] + 60
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            said, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            said = process.communicate()[0]
    return from_json(scenario, mutant, said)


def to_json(outcome: Outcome) -> str:
    return json.dumps({"result": asdict(outcome.result), "seconds": outcome.seconds})


def from_json(scenario: Scenario, mutant: str, said: str) -> Outcome:
    """The last line; one that said nothing has not run to its end."""
    try:
        told = json.loads(said.splitlines()[-1])
        return Outcome(scenario, Result(**told["result"]), told["seconds"], mutant)
    except (IndexError, ValueError, KeyError):
        return Outcome(scenario, Result(checks={f"{RAN}: {said[-300:]}": False}), 0.0, mutant)
