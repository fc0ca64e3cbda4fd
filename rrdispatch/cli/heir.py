"""The primary that follows one that was killed: started by its dispatcher, never typed."""

from __future__ import annotations

from rrdispatch import cpus
from rrdispatch.cli.errors import guarded
from rrdispatch.cli.run import Talk
from rrdispatch.cluster import output
from rrdispatch.control import statedir
from rrdispatch.control.announce import Announcer, both
from rrdispatch.control.heirs import run_heir, take_over


def main() -> int:
    """Until the service ends; its exit code."""
    return guarded(_serve)


def _serve() -> int:
    output.unblock()
    inherited, settings = take_over()
    output.keep_small(statedir.output_path(settings.name or "app"))
    talk = Talk(settings, cpus.count(settings.instances, cpus.detect()))
    return run_heir(inherited, settings, both(talk.event, Announcer().event))
