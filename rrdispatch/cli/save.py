"""``rrdispatch save``: keeps the list of apps as it is now, for ``resurrect``."""

from __future__ import annotations

import click

from rrdispatch.cli.errors import warn
from rrdispatch.control import definitions, saved
from rrdispatch.control.definitions import RUN


@click.command("save")
@click.option("--force", is_flag=True, help="Also if there are no apps.")
def command(force: bool) -> None:
    """Keep the apps as they are now.

    Each change of an app is saved anyway. This is a second copy, which delete and stop leave alone:
    `resurrect` comes back to it if nothing else is left, `resurrect --saved` always.
    """
    apps = [app for app in definitions.all_of() if app.id >= 0]
    for app in definitions.all_of():
        if app.id < 0 and app.error:
            warn(f"{app.name} is left out: {app.error['message']}")
    if not apps and not force:
        warn("there are no apps: nothing was saved", "rrdispatch save --force forgets what was")
        return
    path = saved.save(apps)
    run = sum(app.wanted == RUN for app in apps)
    count = "1 app" if len(apps) == 1 else f"{len(apps)} apps"
    click.echo(f"saved: {count}, of which {run} should run: {path}")
