"""``rrdispatch kill``: stops all apps."""

from __future__ import annotations

import click

from rrdispatch.cli.each import each
from rrdispatch.cli.stop import stop
from rrdispatch.control import selectors
from rrdispatch.control.definitions import STOP
from rrdispatch.control.selectors import Target


@click.command("kill")
@click.option("--now", is_flag=True, help="Cut off what is under way.")
def command(now: bool) -> int:
    """Stop all apps, and no error if there are none. `resurrect` starts those that ran again."""
    if not selectors.known():
        click.echo("no apps")
        return 0
    return each(["all"], lambda target: kill(target, now), at_once="the stop goes on")


def kill(target: Target, now: bool) -> str:
    app = target.definition
    return stop(target, now, app.wanted if app.id >= 0 else STOP)
