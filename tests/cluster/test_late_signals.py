"""Whoever asks for the end again, while the last things are put away, changes nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.harness.servers import Service

LEAVES_A_CHILD = """
import subprocess, sys
# It holds our stdout for a while: the logger waits for what it may say.
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1.5)"], start_new_session=True)
from plain import serve
"""


def test_a_primary_that_is_asked_again_and_again_ends_with_0(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(
        "def serve(listener):\n    for _ in listener:\n        pass\n"
    )
    (tmp_path / "app.py").write_text(LEAVES_A_CHILD)
    with Service("app:serve", "-i", "1", cwd=tmp_path) as service:
        code = None
        while code is None:
            service.send_signal(15)
            try:
                code = service.popen.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
        assert code == 0
