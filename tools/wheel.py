"""Builds the wheel and proves it: a new environment, outside of this folder, serves with it.

`make wheel` runs it, with this machine's compiler; `make wheels` has others. Stays in dist/.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from proof import prove

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"


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


if __name__ == "__main__":
    sys.exit(main())
