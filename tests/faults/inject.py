"""Errors of system calls, made at will in a process of ours: ``inject.c`` by LD_PRELOAD."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from pathlib import Path

from tests.faults.kit import skip

SOURCE = Path(__file__).with_name("inject.c")
ACCEPT, SEND, CLOCK, SIZE = 0, 8, 16, 24


class Faults:
    """What fails, as the process that has it preloaded sees it at once."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            skip("no C compiler: errors of system calls are not injected")
            raise AssertionError
        self._library = folder / "inject.so"
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(SOURCE)]
        subprocess.run([*command, "-ldl"], check=True)
        self._path = folder / "faults"
        self._path.write_bytes(bytes(SIZE))
        with self._path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), SIZE)

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "INJECT": str(self._path)}

    def accept(self, error: int, times: int) -> None:
        """The next ``times`` calls fail so."""
        struct.pack_into("=ii", self._map, ACCEPT, error, times)

    def send(self, error: int, times: int) -> None:
        """Of messages with descriptors."""
        struct.pack_into("=ii", self._map, SEND, error, times)

    def left(self) -> tuple[int, int]:
        """How many of each are still to come."""
        accepts = struct.unpack_from("=ii", self._map, ACCEPT)[1]
        return max(0, accepts), max(0, struct.unpack_from("=ii", self._map, SEND)[1])

    def shift_clock(self, seconds: int) -> None:
        """The wall clock; the monotonic one stays as it is."""
        struct.pack_into("=q", self._map, CLOCK, seconds)
