"""``rrdispatch resurrect``: starts what should run and does not, after a crash of everything."""

from __future__ import annotations

import click

from rrdispatch.cli.each import one
from rrdispatch.control import definitions, rows, selectors
from rrdispatch.control.definitions import RUN
from rrdispatch.control.selectors import Target


@click.command("resurrect")
def command() -> int:
    """Start all apps that should run and do not; not those that somebody stopped."""
    apps = [app for app in selectors.known() if app.id >= 0 and app.wanted == RUN]
    told = zip(apps, rows.collect(apps, rates=False), strict=True)
    gone = [app for app, row in told if row["status"] in rows.GONE and not row["primary_pid"]]
    if not gone:
        click.echo("nothing to start")
    return max([one(Target(app), start) for app in gone], default=0)


def start(target: Target) -> str:
    from rrdispatch.cli.start import longest
    from rrdispatch.cli.start import start as start_it

    app = definitions.load(target.name)  # the starts before this one took their time
    if app is None:
        return "was deleted meanwhile"
    if app.wanted != RUN:
        return "was stopped meanwhile"
    start_it(app, longest(app.settings))
    return "started"
