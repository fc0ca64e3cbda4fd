"""``rrdispatch kill``: stops all apps."""

from __future__ import annotations

import click

from rrdispatch.cli.each import each
from rrdispatch.cli.stop import stop
from rrdispatch.control import ending, selectors
from rrdispatch.control.definitions import RUN
from rrdispatch.control.selectors import Target


@click.command("kill")
@click.option("--now", is_flag=True, help="Cut off what is under way.")
def command(now: bool) -> int:
    """Stop all apps, and no error if there are none. `resurrect` starts those that ran again."""
    if not selectors.known():
        click.echo("no apps")
        return 0
    return each(["all"], lambda target: kill(target, now), at_once=True)


def kill(target: Target, now: bool) -> str:
    app = target.definition
    said = stop(target, now)
    if app.id >= 0 and app.wanted == RUN:
        ending.wish(app)
    return said
