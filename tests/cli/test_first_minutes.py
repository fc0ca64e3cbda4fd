"""docs/first-minutes.md, word by word: each block is typed, and what stands below it comes out."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.plane import Plane, free_address
from tests.harness.servers import ROOT

PAGE = (ROOT / "docs" / "first-minutes.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SLOT = re.compile(r"worker \d")


def commands(folder: Path) -> Path:
    """``rrdispatch`` as it is installed; python starts it here."""
    (folder / "bin").mkdir()
    program = folder / "bin" / "rrdispatch"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rrdispatch "$@"\n')
    program.chmod(0o755)
    return program.parent


def pattern(line: str) -> str:
    """Times and slots may differ: whose turn it is after a crash is not promised."""
    return re.sub(r"\d+", r"\\d+", re.escape(line)).replace(r"\d+\.\d+", r"[\d.]+")


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page uses curl")
def test_word_by_word(plane: Plane, tmp_path: Path) -> None:
    address, said = ":".join(map(str, free_address())), []
    # Whoever has no core for 10 ms keeps its turn, and its connection.
    turns = {"RRDISPATCH_BIND": address, "RRDISPATCH_STALL_TIMEOUT": "60s"}
    environment = plane.environment(turns)
    environment["PATH"] = f"{commands(tmp_path)}:{environment['PATH']}"
    for number, (kind, text) in enumerate(BLOCKS):
        if kind == "python":
            (plane.here / "app.py").write_text(text)
        if kind != "sh":
            continue
        done = subprocess.run(
            ["bash", "-ec", text.replace("127.0.0.1:8000", address)],
            cwd=plane.here, env=environment, capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, (text, done)
        said.append(text)
        after = BLOCKS[number + 1 : number + 2]
        if after and after[0][0] == "text":
            shown, seen = after[0][1].splitlines(), done.stdout.splitlines()
            assert len(shown) == len(seen), (text, done)
            for one, other in zip(shown, seen, strict=True):
                assert re.fullmatch(pattern(one), other), (text, done)
        if text.startswith("for"):
            slots = SLOT.findall(done.stdout)
            assert slots[:2] == slots[2:]
            assert slots[0] != slots[1]
    assert len(said) == 7
    assert plane.rows() == []
