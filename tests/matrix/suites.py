"""``python -m tests.matrix.suites``: test suites of real servers, plain and under the shim.

Each is the suite of one pinned release, from its source distribution, in an environment of its own.
Under the shim every TCP listener of every test, those on port 0 too, takes its connections from a
channel. Exit code 1 if a test fails there that passes plainly, and is not known to.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.shim.primary import LISTEN, fake_primary

LIMIT = 1800.0  # seconds
PYTEST = ("-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", "-o", "addopts=")
NEVER_CLOSED = "a listener that was closed can still be connected to"


@dataclass(frozen=True)
class Suite:
    """One release and how its tests are run. ``known``: tests that fail under the shim, and why."""

    name: str
    version: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ("pytest",)
    takes: tuple[str, ...] = ()  # of the source distribution, beside which the tests run
    env: Mapping[str, str] = field(default_factory=dict)
    known: Mapping[str, str] = field(default_factory=dict)


SUITES = (
    Suite(
        "tornado", "6.6.1", ("-m", "tornado.test"), needs=(), env={"ASYNC_TEST_TIMEOUT": "60"},
        known={"test_websocket_network_fail (tornado.test.websocket_test.WebSocketTest"
               ".test_websocket_network_fail)": NEVER_CLOSED},
    ),
    Suite("waitress", "3.0.2", (*PYTEST, "tests"), takes=("tests",)),
    Suite(
        "cheroot", "11.1.2",
        (*PYTEST, "-p", "cheroot.test._pytest_plugin", "--pyargs", "cheroot.test"),
        needs=("pytest", "pytest-mock", "jaraco.text", "portend", "requests", "trustme",
               "pyopenssl", "requests-unixsocket", "pypytools", "jaraco.context",
               "requests-toolbelt"),
    ),
    Suite(
        "uvicorn", "0.54.0", (*PYTEST, "tests"), takes=("tests", "pyproject.toml"),
        needs=("pytest", "pytest-mock", "pytest-xdist", "trustme", "cryptography", "httpx2",
               "pytest-codspeed", "a2wsgi", "wsproto", "uvicorn[standard]"),
        known={"tests/supervisors/test_signal.py::test_sigint_deny_request_after_triggered":
               NEVER_CLOSED},
    ),
    Suite(  # of its server, and of its client against it
        "aiohttp", "3.14.5",
        (*PYTEST, *(f"tests/test_{name}.py" for name in
                    ("run_app", "web_runner", "web_server", "web_functional",
                     "web_sendfile_functional", "web_websocket_functional"))),
        takes=("tests", "setup.cfg", "pytest.ini", "README.rst"),
        needs=("pytest", "pytest-mock", "pytest-timeout", "pytest-xdist", "pytest-codspeed",
               "freezegun", "pkgconfig", "proxy.py", "blockbuster", "trustme", "isal", "zlib_ng",
               "coverage"),
        known={"tests/test_run_app.py::TestShutdown::test_shutdown_new_conn_rejected":
               NEVER_CLOSED},
    ),
)  # fmt: skip


@dataclass
class Outcome:
    """What one run said."""

    told: str  # its own summary
    failed: set[str]
    listeners: int = 0
    good: bool = True  # it came to its end


def read(text: str) -> Outcome:
    """Of unittest or pytest."""
    failed = set(re.findall(r"^(?:FAIL|ERROR): (\S+ \(\S+\)|\S+)", text, re.MULTILINE))
    failed |= set(re.findall(r"^(?:FAILED|ERROR) (\S+::\S+|\S+\.py)", text, re.MULTILINE))
    ran = re.search(r"^Ran (\d+) tests? in .*\n\n(.*)$", text, re.MULTILINE)
    if ran:
        return Outcome(f"ran {ran[1]}: {ran[2]}", failed)
    lines = [one for one in text.splitlines() if re.search(r"\d+ (passed|failed|error)", one)]
    told = re.sub(r" in [\d.]+s.*", "", lines[-1].strip("= ")) if lines else ""
    return Outcome(told or text.strip().rpartition("\n")[2], failed, good=bool(told))


class Bench:
    """A folder with one suite's environment and its tests."""

    def __init__(self, suite: Suite, folder: Path) -> None:
        self.suite = suite
        self.folder = folder / suite.name
        self.python = self.folder / "venv" / "bin" / "python"
        self.work = self.folder / "work"

    def set_up(self) -> None:
        """What is there from an earlier run is used again."""
        if not self.python.exists():
            venv.create(self.folder / "venv", with_pip=True)
        pinned = f"{self.suite.name}=={self.suite.version}"
        self._pip("install", pinned, *self.suite.needs)
        self.work.mkdir(exist_ok=True)
        if self.suite.takes and not all((self.work / one).exists() for one in self.suite.takes):
            kept = self.folder / "sdist"
            self._pip("download", "--no-deps", "--no-binary", ":all:", "-d", str(kept), pinned)
            self._unpack(next(kept.glob("*.tar.gz")))

    def _pip(self, *words: str) -> None:
        command = [str(self.python), "-m", "pip", words[0], "--quiet", *words[1:]]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}:\n{done.stderr}")

    def _unpack(self, archive: Path) -> None:
        """Without the package itself, which would hide the one that is installed."""
        with tempfile.TemporaryDirectory() as folder, tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
            (root,) = Path(folder).iterdir()
            for name in self.suite.takes:
                shutil.move(str(root / name), self.work / name)

    def run(self, environment: Mapping[str, str], extra: Sequence[str]) -> Outcome:
        done = subprocess.run(
            [str(self.python), *self.suite.command, *extra],
            check=False,
            cwd=self.work,
            env={**environment, **self.suite.env, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=LIMIT,
        )
        name = "shim.txt" if "LD_PRELOAD" in environment else "plain.txt"
        (self.folder / name).write_text(done.stdout)
        return read(done.stdout)

    def both(self, extra: Sequence[str]) -> tuple[Outcome, Outcome]:
        plain = self.run({k: v for k, v in os.environ.items() if "PRELOAD" not in k}, extra)
        with fake_primary(self.folder, abstract=True) as primary:
            shimmed = self.run({**primary.preloaded, "RRDISPATCH_ANY_PORT": "1"}, extra)
            shimmed.listeners = len(primary.asked(LISTEN))
        return plain, shimmed


def told(suite: Suite, plain: Outcome, shimmed: Outcome) -> bool:
    """Prints both side by side; False for what is not as it should be."""
    fresh = sorted(shimmed.failed - plain.failed)
    print(f"{suite.name} {suite.version}, {shimmed.listeners} listeners through the shim")
    print(f"  plain   {plain.told}\n  shim    {shimmed.told}")
    for test in sorted(plain.failed):
        print(f"  fails plainly{' too' if test in shimmed.failed else ' only'}: {test}")
    for test in fresh:
        print(f"  fails under the shim: {test} ({suite.known.get(test, 'NOT KNOWN')})", flush=True)
    return plain.good and shimmed.good and suite.known.keys() >= set(fresh)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix.suites", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[s.name for s in SUITES])
    parser.add_argument("--folder", type=Path, help="kept, and used again")
    parser.add_argument("rest", nargs="*", help="for the suites, after --")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    good = True
    with tempfile.TemporaryDirectory(prefix="suites-") as own:
        for suite in SUITES:
            if options.only and suite.name not in options.only:
                continue
            bench = Bench(suite, options.folder or Path(own))
            bench.set_up()
            good &= told(suite, *bench.both(options.rest))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
