"""``show`` has no password of an address, wherever it stands; unless it is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rrdispatch.cli import facts
from rrdispatch.control import definitions
from rrdispatch.control.definitions import Definition
from rrdispatch.control.selectors import Target

ADDRESS = "redis://me:hid/d@n@cache/0"
SAID = {
    "stats": dict.fromkeys(("policy", "dispatcher", "dispatcher_pid", "logger_pid", "slots")),
    "ends": [],
    "launch": {"cwd": "/", "python": None, "argv": ["job", ADDRESS, f"--cache={ADDRESS}"]},
}


def ask(_name: str, method: str) -> Any:
    return SAID[method]


def test_a_command_line_and_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RRDISPATCH_HOME", str(tmp_path))
    monkeypatch.setattr(facts, "ask", ask)
    (tmp_path / "job").mkdir(mode=0o700)
    app = Definition("job", id=0, settings={"arguments": [ADDRESS], "target": "job"})
    definitions.save(app)
    told = facts.facts(Target(app), show_secrets=False)
    masked = "redis://me:********@cache/0"
    assert told["command"] == ["job", masked, f"--cache={masked}"]
    assert told["settings"]["arguments"] == [masked]
    assert "hid/d" not in json.dumps(told)
    told = facts.facts(Target(app), show_secrets=True)
    assert told["command"] == SAID["launch"]["argv"]
    assert told["settings"]["arguments"] == [ADDRESS]
