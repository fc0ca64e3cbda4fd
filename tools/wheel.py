"""Builds the wheel and proves it: a new environment, outside of this folder, serves with it.

`make wheel` runs it. The wheel stays in dist/.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
PROOF = """
import rrdispatch, rrdispatch._core as core, pathlib
assert "site-packages" in rrdispatch.__file__, rrdispatch.__file__
assert core.NATIVE, "the extension is not in the wheel"
assert pathlib.Path(core.dispatcher_program()).is_file(), "the dispatcher is not in the wheel"
assert (pathlib.Path(rrdispatch.__file__).parent / "py.typed").is_file()
"""


def main() -> int:
    for old in DIST.glob("*.whl"):
        old.unlink()
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(DIST)]
    subprocess.run([*pip, str(ROOT)], check=True)
    (wheel,) = DIST.glob("*.whl")
    print(f"{wheel.name}: {wheel.stat().st_size} bytes")
    assert "abi3" in wheel.name, "one wheel is meant to serve all Python versions"
    with tempfile.TemporaryDirectory() as folder:
        prove(wheel, Path(folder))
    return 0


def prove(wheel: Path, folder: Path) -> None:
    """Install it as a user would, import it, and serve the demo with it."""
    venv.create(folder / "env", with_pip=True)
    python = str(folder / "env" / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", f"{wheel}[asgi]"]
    subprocess.run(install, check=True, cwd=folder)
    subprocess.run([python, "-c", PROOF], check=True, cwd=folder)
    subprocess.run([python, str(ROOT / "tools" / "demo.py")], check=True, cwd=folder)


if __name__ == "__main__":
    sys.exit(main())
