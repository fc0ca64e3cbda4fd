"""What means nothing ends nobody; and whoever asks for the end again, while the last things are put
away, changes nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.harness import processes
from tests.harness.processes import Process
from tests.harness.servers import Service, wait_until

NAMES = ["USR2", "ALRM", "VTALRM", "PROF", "IO", "WINCH"]
UNUSED = [signal.Signals[f"SIG{name}"] for name in NAMES]

LEAVES_A_CHILD = """
import subprocess, sys
# It holds our stdout for a while: the logger waits for what it may say.
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1.5)"], start_new_session=True)
from plain import serve
"""


def of_worker(process: Process) -> bool:
    """A worker or a child of it, which may have ended meanwhile."""
    return "RRDISPATCH_SLOT" in processes.environment(process.pid) or not process.alive()


def test_a_primary_that_is_asked_again_and_again_ends_with_0(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(
        "def serve(listener):\n    for _ in listener:\n        pass\n"
    )
    (tmp_path / "app.py").write_text(LEAVES_A_CHILD)
    with Service("app:serve", "-i", "1", cwd=tmp_path) as service:

        def ours() -> list[Process]:
            return [each for each in service.processes() if not of_worker(each)]

        # In the midst of exec the child has no environment yet.
        wait_until(lambda: len(ours()) == 3, 60.0, "primary, dispatcher, logger")
        for each in ours():
            for number in UNUSED:
                os.kill(each.pid, number)
        for number in UNUSED[:-1]:
            service.output.wait(f"{number.name} is ignored", 60.0)
        service.output.wait("SIGHUP reloads, SIGTERM stops", 60.0)
        assert not service.output.text().count("dispatcher")
        code = None
        while code is None:
            service.send_signal(15)
            try:
                code = service.popen.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
        assert code == 0
