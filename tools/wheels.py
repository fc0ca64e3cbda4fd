"""Wheels for glibc and musl, x86_64 and aarch64, made on this machine: zig, from PyPI, compiles.

    python tools/wheels.py [PLATFORM ...]       into dist/

`make wheels` runs it. Each wheel is checked by auditwheel and abi3audit and looked into; what this
machine can run is run. What it cannot is said at the end: compiled and checked is not tried.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from proof import prove

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
BUILD = ROOT / "build" / "wheels"
TARGETS = {  # zig's name of each; 2.17 is the oldest glibc that pip knows of on both machines
    "manylinux_2_17_x86_64": "x86_64-linux-gnu.2.17",
    "manylinux_2_17_aarch64": "aarch64-linux-gnu.2.17",
    "musllinux_1_2_x86_64": "x86_64-linux-musl",
    "musllinux_1_2_aarch64": "aarch64-linux-musl",
}
MACHINES = {62: "x86_64", 183: "aarch64"}  # of ELF
EXTENSION = "rrdispatch/_core/_native.abi3.so"
PROGRAM = "rrdispatch/_core/rr-dispatcher"
SHIM = "rrdispatch/_core/rr-shim.so"
NO_CONTROL_SOCKET = 2  # rr-dispatcher's exit code when nothing is on fd 3


def main() -> int:
    chosen = sys.argv[1:] or list(TARGETS)
    if unknown := [name for name in chosen if name not in TARGETS]:
        print(f"error: {', '.join(unknown)}: not one of {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    shutil.rmtree(BUILD, ignore_errors=True)
    untried = []
    for name in chosen:
        wheel = audited(built(name), name)
        print(f"{wheel.name}: {wheel.stat().st_size} bytes", flush=True)
        if found := problems(wheel, name):
            raise SystemExit(f"error: {wheel.name}: {'; '.join(found)}")
        audit = [sys.executable, "-m", "abi3audit", "--strict", "--assume-minimum-abi3", "3.10"]
        subprocess.run([*audit, str(wheel)], check=True)
        if lacks := tried(wheel, name):
            untried.append(f"{name}: {lacks}")
    for line in untried:
        print(f"NOT RUN: {line}", file=sys.stderr)
    return 0


def built(name: str) -> Path:
    """Under its name, which is to be proved yet."""
    folder = BUILD / name
    command = [sys.executable, "setup.py", "--quiet", "build", "--build-base", f"{folder}/build"]
    command += ["bdist_wheel", "--dist-dir", str(folder), "--bdist-dir", f"{folder}/bdist"]
    subprocess.run([*command, "--plat-name", name], check=True, cwd=ROOT, env=compilers(name))
    (wheel,) = folder.glob("*.whl")
    return wheel


def machine(name: str) -> str:
    return next(machine for machine in MACHINES.values() if name.endswith(machine))


def compilers(name: str) -> dict[str, str]:
    zig = f'"{sys.executable}" -m ziglang cc -target {TARGETS[name]}'
    flags = f'-I"{headers(name)}"'
    return os.environ | {"CC": zig, "LDSHARED": f"{zig} -shared", "CFLAGS": flags, "LDFLAGS": "-s"}


def headers(name: str) -> Path:
    """Debian's pyconfig.h includes that of the machine by its place, musl or not, and there is only
    this machine's. To the limited API all 64-bit Linux are the same.
    """
    import sysconfig

    folder = BUILD / name / "include"
    version = "python{}.{}".format(*sys.version_info)
    there = folder / f"{machine(name)}-linux-gnu" / version / "pyconfig.h"
    there.parent.mkdir(parents=True)
    plain = Path(sysconfig.get_config_h_filename())
    of_machine = (
        plain.parents[1] / (sysconfig.get_config_var("MULTIARCH") or "") / version / plain.name
    )
    shutil.copy(of_machine if of_machine.exists() else plain, there)
    return folder


def audited(wheel: Path, name: str) -> Path:
    """auditwheel gives it a lesser name if any ELF file in it asks for more. musl's loader takes
    any libc.* for itself; auditwheel knows Alpine's name of it only.
    """
    folder = BUILD / name / "audited"
    command = [sys.executable, "-m", "auditwheel", "repair", "--plat", "auto", "--only-plat"]
    command += ["--patcher", "none", "--exclude", "libc.so", "-w", str(folder), str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    made = list(folder.glob(f"*-cp310-abi3-*{name}.whl"))
    if done.returncode or not made:
        raise SystemExit(f"error: {wheel.name} is not what its name says\n{done.stderr}")
    DIST.mkdir(exist_ok=True)
    return Path(shutil.copy(made[0], DIST))


def problems(wheel: Path, name: str) -> list[str]:
    """All three are to be there, for that machine, and the program to be executable."""
    found = []
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        for path in (EXTENSION, SHIM, PROGRAM):
            if path in names:
                found += elf_problems(path, archive.read(path), name)
            else:
                found.append(f"{path} is not there")
        if PROGRAM in names and not archive.getinfo(PROGRAM).external_attr >> 16 & stat.S_IXUSR:
            found.append(f"{PROGRAM} is not executable")
    return found + [f"{path} is too much" for path in names if re.search(r"\.(c|o|new)$", path)]


def elf_problems(path: str, data: bytes, name: str) -> list[str]:
    made_for = None
    if data[:4] == b"\x7fELF":
        made_for = MACHINES.get(int.from_bytes(data[18:20], "little"))
    found = [] if made_for == machine(name) else [f"{path} is for {made_for}"]
    newest = max(map(version, re.findall(rb"GLIBC_([\d.]+\d)", data)), default=(0,))
    if newest > ((2, 17) if "manylinux" in name else (0,)):
        found.append(f"{path} needs glibc {'.'.join(map(str, newest))}")
    return found


def version(text: bytes) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(b"."))


def tried(wheel: Path, name: str) -> str:
    """Runs what of it can be run here; what was not, and why."""
    here = machine(name) == platform.machine()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        if here and ("manylinux" in name) == (platform.libc_ver()[0] == "glibc"):
            prove(wheel, folder)
            return ""
        with zipfile.ZipFile(wheel) as archive:
            program = Path(archive.extract(PROGRAM, folder))
        program.chmod(0o755)
        emulator = None if here else shutil.which(f"qemu-{machine(name)}-static")
        if not here and emulator is None:
            return f"no such machine here, and no qemu-{machine(name)}-static"
        if "manylinux" in name:
            return "its C library is not here"
        command = [*([emulator] if emulator else []), str(program)]
        code = subprocess.call(command, stdin=subprocess.DEVNULL, timeout=60)
        if code != NO_CONTROL_SOCKET:
            raise SystemExit(f"error: {wheel.name}: rr-dispatcher ended with {code}")
    return "only rr-dispatcher, which starts; no Python for it is here"


if __name__ == "__main__":
    sys.exit(main())
