"""Events in Node's order with Node's values; and real Node, where there is one, says the same."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from tests.harness.ports import kept_port
from tests.node.script import APPS, WITHIN, Script

NODE = shutil.which("node")

# event: state, exited_after_disconnect, is_dead, is_connected, workers; and code, signal at the end
FORKED = [("forked", "none", None), ("setup",), ("fork", "none", None)]
UP = [*FORKED, ("online", "online", None)]
SERVES = [*UP, ("listening", "listening", None)]


def ends(code: int | None, signal: str | None, after: bool, **gone: bool) -> list[tuple[Any, ...]]:
    there = gone.get("there", True)
    return [
        ("disconnect", "disconnected", after, there),
        ("exit", "dead", after, code, signal),
    ]


EXPECTED: dict[str, list[tuple[Any, ...]]] = {
    "exit": [*UP, *ends(3, None, False)],
    "exit-0": [*UP, *ends(0, None, False)],
    "throw": [*UP, *ends(1, None, False)],
    "kill-at-once": [*FORKED, *ends(None, "SIGTERM", False)],
    "kill": [*SERVES, *ends(None, "SIGTERM", False)],
    "kill9": [*SERVES, *ends(None, "SIGKILL", False)],
    "exit-later": [*SERVES, *ends(7, None, False)],
    "throw-later": [*SERVES, *ends(1, None, False)],
    "worker-disconnects": [*SERVES, *ends(0, None, True)],
    "worker-kills": [*SERVES, *ends(0, None, True)],
    "hang-up": [*SERVES, *ends(0, None, False)],
    "echo": [*SERVES, ("message", "listening", None, {"do": "echo"}), *ends(0, None, True)],
    "disconnect": [*SERVES, ("returned", "listening", True), *ends(0, None, True, there=False)],
    "disconnect-all": [
        *SERVES,
        *ends(0, None, True, there=False)[:1],
        ("all", "disconnected", True),
        *ends(0, None, True, there=False)[1:],
    ],
    # The worker's own handlers are first: it is leaving when the cluster's are called.
    "no-server": [*FORKED, ("online", "online", True), *ends(0, None, True, there=False)],
}


def shortened(line: dict[str, Any]) -> tuple[Any, ...]:
    name = line["event"]
    if name == "setup":
        return (name,)
    facts = (name, line["state"], line["after"])
    if name == "disconnect":
        assert not line["connected"]
        return (*facts, line["workers"] == [1])
    if name == "exit":
        assert line["dead"]
        assert line["workers"] == []
    return (*facts, *line["rest"]) if name in ("exit", "message") else facts


def settled(scenario: str, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A worker may have come online before a primary without a core could kill it."""
    early = scenario == "kill-at-once"
    return [line for line in lines if not (early and line["event"] == "online")]


@pytest.mark.parametrize("scenario", EXPECTED)
def test_order_and_values(scenario: str) -> None:
    port = kept_port()
    with Script("events.py", scenario, str(port)) as script:
        code = script.ended()
        said = script.said()
    assert [shortened(line) for line in settled(scenario, said)] == EXPECTED[scenario]
    assert code == 0
    for line in said:
        if line["event"] == "listening":
            assert line["rest"] == ["127.0.0.1", port, 4]


@pytest.mark.skipif(NODE is None, reason="Node is not installed: nothing to compare with")
@pytest.mark.parametrize("scenario", EXPECTED)
def test_node_says_the_same(scenario: str) -> None:
    assert NODE is not None
    port = str(kept_port())
    command = [NODE, str(APPS / "events.js"), scenario, port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    settled_lines = settled(scenario, lines)
    assert [shortened(line) for line in settled_lines] == EXPECTED[scenario], done.stderr
    for line in lines:
        if line["event"] == "listening":
            assert line["rest"] == ["127.0.0.1", int(port), 4]
