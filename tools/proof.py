"""A wheel, proved: in an empty environment without a compiler it does what README says first."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import subprocess
import venv
from pathlib import Path

from service import until_ready

ROOT = Path(__file__).resolve().parent.parent
COMPILERS = ("cc", "gcc", "clang", "c++", "zig")
PROOF = """
import rrdispatch, rrdispatch._core as core, pathlib
assert "site-packages" in rrdispatch.__file__, rrdispatch.__file__
assert core.NATIVE, "the extension is not in the wheel"
assert pathlib.Path(core.dispatcher_program()).is_file(), "the dispatcher is not in the wheel"
assert (pathlib.Path(rrdispatch.__file__).parent / "py.typed").is_file()
"""


def prove(wheel: Path, folder: Path) -> None:
    """Install it as a user would who has no compiler, and do what README does first."""
    venv.create(folder / "env", with_pip=True)
    scripts = folder / "env" / "bin"
    environ = {"PATH": str(scripts), "HOME": str(folder), "RRDISPATCH_BIND": "127.0.0.1:0"}
    environ |= {name: text for name, text in os.environ.items() if name.startswith("PIP_")}
    assert not any(shutil.which(name, path=environ["PATH"]) for name in COMPILERS)
    python = str(scripts / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--only-binary=:all:", f"{wheel}[asgi]"]
    subprocess.run(install, check=True, cwd=folder, env=environ)
    subprocess.run([python, "-c", PROOF], check=True, cwd=folder, env=environ)
    shutil.copy(ROOT / "examples" / "hello.py", folder / "app.py")
    serve(first_command(), folder, environ)


def first_command() -> list[str]:
    """README's: `rrdispatch run app:app ...`."""
    found = re.search(r"^    rrdispatch (.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert found is not None
    return found[1].split()


def serve(command: list[str], folder: Path, environ: dict[str, str]) -> None:
    print("$ rrdispatch", *command, flush=True)
    program = [str(folder / "env" / "bin" / "rrdispatch"), *command]
    with subprocess.Popen(
        program,
        cwd=folder,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            connection = http.client.HTTPConnection(until_ready(server), timeout=20)
            connection.request("GET", "/", headers={"Connection": "close"})
            print(connection.getresponse().read().decode())
        finally:
            server.send_signal(signal.SIGTERM)
            code = server.wait(timeout=60)
    if code:
        raise SystemExit(f"rrdispatch {' '.join(command)} ended with {code}")
