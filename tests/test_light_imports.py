"""``import rrdispatch`` costs an app next to nothing; the command line loads what it uses."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
before = set(sys.modules)
{action}
print(json.dumps(sorted(set(sys.modules) - before)), file=sys.__stdout__)
"""

HEAVY = (
    "asyncio", "cffi", "click", "cronsim", "ctypes", "email", "http", "inspect", "logging",
    "multiprocessing", "psutil", "socket", "ssl", "subprocess", "threading", "tomllib",
    "typing_extensions", "unittest", "uvicorn", "waitress", "watchfiles",
)  # fmt: skip

# Python 3.10's platform imports it; click (by uuid) and waitress import that.
SUBPROCESS = {"subprocess"} if sys.version_info >= (3, 11) else set()


def loaded(action: str) -> set[str]:
    """The modules that the action adds to a fresh interpreter."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(action=action)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return set(json.loads(run.stdout.splitlines()[-1]))


def cli(*arguments: str) -> str:
    return (
        "import contextlib, io\n"
        "from rrdispatch.cli.group import run\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        f"    run({list(arguments)!r})"
    )


def test_import_rrdispatch() -> None:
    found = loaded("import rrdispatch")
    assert {name for name in found if name.startswith("rrdispatch")} == {"rrdispatch"}
    assert not found & set(HEAVY)


def test_errors_cost_nothing_more() -> None:
    found = loaded("import rrdispatch; rrdispatch.ConfigError")
    assert {n for n in found if n.startswith("rrdispatch")} == {"rrdispatch", "rrdispatch.errors"}
    assert not found & set(HEAVY)


def test_settings_open_no_file_reader() -> None:
    found = loaded("import rrdispatch.settings")
    assert not found & {"asyncio", "psutil", "click", "socket", "tomllib", "tomli", "threading"}


def test_help_loads_no_command() -> None:
    found = loaded(cli("--help"))
    ours = {name for name in found if name.startswith("rrdispatch.")}
    assert ours == {
        "rrdispatch.cli", "rrdispatch.cli.errors", "rrdispatch.cli.group", "rrdispatch.errors",
        "rrdispatch.options",
    }  # fmt: skip
    assert not found & {"asyncio", "psutil", "socket", "ssl", "uvicorn", "multiprocessing"}


@pytest.mark.parametrize("command", ["run", "cpus"])
def test_help_of_a_command_loads_no_primary(command: str) -> None:
    found = loaded(cli(command, "--help"))
    layers = {name.split(".")[1] for name in found if name.startswith("rrdispatch.")}
    assert not layers & {"cluster", "dispatch", "worker", "serve", "net", "_core", "control"}
    assert not found & {"asyncio", "psutil", "ssl", "uvicorn", "multiprocessing"}


def test_a_worker_names_only_what_it_needs() -> None:
    found = loaded("import rrdispatch; rrdispatch.Listener, rrdispatch.ready, rrdispatch.on_park")
    layers = {name.split(".")[1] for name in found if name.startswith("rrdispatch.")}
    assert not layers & {"cluster", "dispatch", "control", "cli", "embed"}
    assert not found & {"asyncio", "psutil", "click"}


def test_a_worker_of_a_wsgi_app_has_no_loop_and_no_tls() -> None:
    found = loaded("import rrdispatch.serve.main, rrdispatch.serve.wsgi")
    assert "waitress" in found
    heavy = {"asyncio", "ssl", "concurrent", "difflib", "click", "psutil"}
    assert not found & (heavy | SUBPROCESS)
