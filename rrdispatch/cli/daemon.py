"""The primary that ``rrdispatch start`` leaves behind: started by it, never typed."""

from __future__ import annotations

import os
import socket

from rrdispatch import cpus
from rrdispatch.cli.errors import guarded
from rrdispatch.cli.run import Talk, gather
from rrdispatch.cli.start import followed
from rrdispatch.cluster import output
from rrdispatch.cluster.events import OnEvent
from rrdispatch.cluster.sdnotify import OF_SYSTEMD
from rrdispatch.control import daemon, statedir
from rrdispatch.control.definitions import Definition
from rrdispatch.settings import Settings


def main() -> int:
    """Until the service ends; its exit code."""
    output.unblock()
    for name in OF_SYSTEMD:  # of the service, if any, in which the command was typed
        os.environ.pop(name, None)
    link = socket.socket(fileno=daemon.FD)
    link.set_inheritable(False)
    return guarded(lambda: daemon.run(daemon.Asker(link), gathered, _talk))


def gathered(definition: Definition) -> Settings:
    """Read anew at each start: what a file or the environment says now is what counts."""
    output.keep_small(statedir.output_path(definition.name))
    typed = {**definition.typed, "name": definition.name}
    which = (definition.section, definition.profile)
    return followed(gather(typed, os.environ, definition.config, *which))


def _talk(settings: Settings) -> OnEvent:
    return Talk(settings, cpus.count(settings.instances, cpus.detect())).event
