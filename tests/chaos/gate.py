"""The other end of ``apps/gated.py``: a gate that is shut until it is opened."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.harness.servers import APPS

HERE = Path(__file__).with_name("apps")


class Gate:
    """A directory with the app, and a FIFO that its requests wait for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        for path in (APPS / "probe.py", APPS / "journal.py", APPS / "version", HERE / "gated.py"):
            shutil.copy(path, directory)
        self.path = directory / "gate"
        os.mkfifo(self.path)
        self.path.chmod(0o644)
        self._held = -1

    @property
    def env(self) -> dict[str, str]:
        return {"GATE": str(self.path)}

    def open(self) -> None:
        """From now on no request waits."""
        self._held = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)

    def shut(self) -> None:
        if self._held >= 0:
            os.close(self._held)
            self._held = -1
