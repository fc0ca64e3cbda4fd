"""An app of the list whose primary is this process itself, as systemd and containers want it.

The process begins anew with the app's own environment and folder, under the same number: what is
told to a service (its notify socket, its listening sockets) comes along.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import rrdispatch
from rrdispatch import cpus
from rrdispatch.cli.daemon import gathered
from rrdispatch.cli.errors import guarded
from rrdispatch.cli.run import Talk
from rrdispatch.cluster import output
from rrdispatch.cluster.events import OnEvent
from rrdispatch.cluster.sdnotify import OF_SYSTEMD
from rrdispatch.control import daemon, definitions, statedir
from rrdispatch.control.announce import Announcer, both
from rrdispatch.control.definitions import Definition
from rrdispatch.errors import ConfigError
from rrdispatch.settings import Settings

# Of the process, not of the app.
OURS = OF_SYSTEMD | {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "INVOCATION_ID",
                     "JOURNAL_STREAM"}  # fmt: skip
_RUN = (
    "import sys; sys.path[0] = sys.argv[1]; "
    "from rrdispatch.cli.foreground import main; sys.exit(main(int(sys.argv[2])))"
)


def become(definition: Definition) -> NoReturn:
    """The app's primary, until it ends."""
    try:
        os.chdir(definition.cwd)
    except OSError as error:
        raise ConfigError(f"cwd: {definition.cwd}: {error.strerror}") from error
    told = os.memfd_create("rrdispatch-definition", 0)
    os.write(told, json.dumps(dataclasses.asdict(definition)).encode())
    root = str(Path(rrdispatch.__file__).resolve().parent.parent)
    sys.stdout.flush()
    sys.stderr.flush()
    arguments = [sys.executable, "-c", _RUN, root, str(told)]
    environ = environment(definition.environ, os.environ)
    os.execve(sys.executable, arguments, environ)  # noqa: S606


def environment(apps: Mapping[str, str], processes: Mapping[str, str]) -> dict[str, str]:
    """The app's, with what was said to this process instead of what was once said to another."""
    kept = {key: value for key, value in apps.items() if key not in OURS}
    told = {key: value for key, value in processes.items() if key in OURS}
    return {**kept, **told, "RRDISPATCH_HOME": str(statedir.home())}


class Nobody(daemon.Asker):
    """No command waits: whoever started this process sees how it goes."""

    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        self.over = False

    def definition(self) -> Definition:
        return self._definition

    def close(self) -> None:
        self.over = True

    def when_gone(self, _then: Callable[[], object]) -> Callable[[], object]:
        return lambda: None

    def _write(self, _data: bytes) -> None:
        return


def main(told: int) -> int:
    """In the new image of the process."""
    output.unblock()
    return guarded(lambda: daemon.run(Nobody(_definition(told)), gathered, _talk))


def _definition(told: int) -> Definition:
    with open(told, "rb") as file:
        file.seek(0)
        found = json.load(file)
    return definitions.made(found, found["name"])


def _talk(settings: Settings) -> OnEvent:
    talk = Talk(settings, cpus.count(settings.instances, cpus.detect()))
    return both(talk.event, Announcer().event)
