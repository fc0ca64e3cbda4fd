"""``rrdispatch kill``: stops all apps."""

from __future__ import annotations

import click

from rrdispatch.cli.each import each
from rrdispatch.cli.stop import stop
from rrdispatch.control import selectors


@click.command("kill")
@click.option("--now", is_flag=True, help="Cut off what is under way.")
def command(now: bool) -> int:
    """Stop all apps: the same as `stop all`, and no error if there are none."""
    if not selectors.known():
        click.echo("no apps")
        return 0
    return each(["all"], lambda target: stop(target, now), at_once=True)
